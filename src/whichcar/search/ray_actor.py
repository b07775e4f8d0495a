"""A trial on a node of a Ray cluster: an actor that starts the training as a child process tied to its own life."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from whichcar.search.launcher import INTERRUPTED, LOG, QUIET, tied_command, trains

MISTAKE = 2  # what `whichcar train` says when something is wrong that the user can fix
SEEN_SECONDS = 2.0  # for a new folder to appear on a node
FREE_SECONDS = 120.0  # a node cut off from the cluster goes on for a minute, Ray's time, before it ends what it runs


@dataclass(frozen=True, slots=True)
class Order:
    """What a node is to run.

    `words` follow the node's Python; `config` may be relative to `directory`, which becomes the working directory;
    `environment` is laid over the node's own; `cpus` processors and `gpus` (also a part of one) are the trial's share.
    """

    words: Sequence[str]
    config: str
    directory: str
    environment: Mapping[str, str]
    cpus: int
    gpus: float


class Trial:
    """The actor. `run` and `signal` are called at the same time, so it needs two threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0

    def where(self) -> str:
        """Name the node."""
        return node_name()

    def signal(self, number: int) -> None:
        """Send a signal to the training; one that has not begun does not begin."""
        with self._lock:
            self._asked = number
            if self._process is not None:
                self._process.send_signal(number)

    def run(self, order: Order) -> tuple[int, str]:
        """Run the training to its end.

        Returns:
            Its exit status, and what is wrong where it could not even begin.
        """
        config = Path(order.directory, order.config)
        if unseen := _unseen(Path(order.directory), config):
            where = f"node {node_name()} does not see {unseen}"
            return MISTAKE, f"{where}; a search with --ray needs a disk that all nodes share, under the same path"
        if not self._wait_until_free(config.parent):
            return MISTAKE, f"{config.parent}: another process trains there, and does not end"
        with own_cores(order.cpus) as cores:
            # The child is tied to the thread that starts it, see prctl(2): it is this one, which waits for its end.
            with self._lock:
                if self._asked:
                    return INTERRUPTED, ""
                self._process = _start(order, config.parent / LOG, cores)
            return self._process.wait(), ""

    def _wait_until_free(self, folder: Path) -> bool:
        until = time.monotonic() + FREE_SECONDS
        while trains(folder):
            if self._asked or time.monotonic() > until:
                return bool(self._asked)
            time.sleep(0.1)
        return True


def node_name() -> str:
    """Return the name that tells this node from the others, also from those on the same machine."""
    import ray

    context = ray.get_runtime_context()
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()}, {context.get_node_id()[:8]})"


def _unseen(directory: Path, config: Path) -> Path | None:
    """Return what is not here of what must be."""
    until = time.monotonic() + SEEN_SECONDS
    while not (directory.is_dir() and config.is_file()):
        if time.monotonic() > until:
            return config if directory.is_dir() else directory
        time.sleep(0.1)
    return None


@contextlib.contextmanager
def own_cores(count: int) -> Iterator[list[int]]:
    """Give as many processors as asked for that no other trial of this machine has, until the block ends.

    Ray only counts processors. A training makes as many threads as it has processors to run on, in TensorFlow, JAX and
    our own reading of images; no variable tells all of them otherwise, so it is bound to its share, by a locked file
    for each. Which come first is left to chance, since containers on one machine do not see each other's files. Where
    Ray was told of more processors than there are, all of them are given.
    """
    folder = Path(tempfile.gettempdir()) / f"whichcar_cores_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    everything = sorted(os.sched_getaffinity(0))
    first = random.randrange(len(everything))
    mine: list[int] = []
    with contextlib.ExitStack() as held:
        for core in everything[first:] + everything[:first]:
            if len(mine) == count:
                break
            file = held.enter_context((folder / str(core)).open("w"))
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine.append(core)
        yield sorted(mine) if len(mine) == count else everything


def _start(order: Order, log: Path, cores: Sequence[int]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **order.environment, **QUIET}
    if 0 < order.gpus < 1:  # else the first trial takes most of the memory that several share
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 * order.gpus:.2f}")
        environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    gpus = f", GPU {environment.get('CUDA_VISIBLE_DEVICES')}" if order.gpus else ""
    with log.open("ab") as file:
        file.write(f"on node {node_name()}, processors {','.join(map(str, cores))}{gpus}\n".encode())
        file.flush()
        return subprocess.Popen(
            tied_command([sys.executable, *order.words], cores),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=order.directory,
            env=environment,
            start_new_session=True,
        )
