"""Trials on a Ray cluster: `RayLauncher` starts each on the node that has room for its share of processors and GPUs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from whichcar.errors import MissingExtraError, SweepError
from whichcar.search.launcher import LOG, Command, tied_command, train_command

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger(__name__)

CONNECT_SECONDS = 25.0
ANSWER_SECONDS = 5.0  # for a machine to take a connection
KILL_SECONDS = 30.0
END_SECONDS = 10.0  # for the process between to take its leave of the cluster
WAIT_SECONDS = 20.0  # a trial that has not begun after these waits for room, which is said once
# What a training may be told by the driver's environment; all else is the node's own, such as PATH.
PASSED_ON = ("WHICHCAR_", "KERAS_", "TF_", "XLA_", "JAX_")


@dataclass(frozen=True, slots=True)
class Share:
    """What a trial asks of its node: whole processors; GPUs, where the cluster has any, also a part of one."""

    cpus: int
    gpus: float

    def __str__(self) -> str:
        """In words."""
        cpus = f"{self.cpus} processor{'s' if self.cpus > 1 else ''}"
        return f"{cpus} and {self.gpus:g} GPU" if self.gpus else cpus

    def room(self, nodes: Sequence[tuple[float, float]]) -> int:
        """Return how many trials with this share fit on the nodes at once."""
        return sum(min(int(cpus // self.cpus), self._gpu_room(gpus)) for cpus, gpus in nodes)

    def _gpu_room(self, gpus: float) -> int:
        if not self.gpus:
            return sys.maxsize
        # Parts of a GPU are parts of one and the same.
        return int(gpus // self.gpus) if self.gpus >= 1 else int(gpus) * round(1 / self.gpus)


def share_of(nodes: Sequence[tuple[float, float]], parallel: int) -> Share:
    """Return the largest share that lets this many trials run at once, the GPUs divided first.

    Args:
        nodes: processors and GPUs of each.

    Where not even the smallest (a processor; where there are GPUs, the part of one that so many would get) fits as
    often, it is that one, and trials wait for each other.
    """
    gpus = _gpus_each([int(gpus) for _, gpus in nodes], parallel)
    for cpus in range(int(max((cpus for cpus, _ in nodes), default=1)), 1, -1):
        if Share(cpus, gpus).room(nodes) >= parallel:
            return Share(cpus, gpus)
    return Share(1, gpus)


def _gpus_each(gpus: Sequence[int], parallel: int) -> float:
    if not sum(gpus):
        return 0.0
    for each in range(max(gpus), 0, -1):
        if sum(count // each for count in gpus) >= parallel:
            return each
    return 1 / -(-parallel // sum(gpus))


class RayLauncher:
    """Starts trials on a Ray cluster, as a context manager that holds the connection.

    The trials end with the block, and when this process dies. Each is bound to as many processors as its share, see
    `cluster_trial.own_cores`, and runs with the node's Python in the working directory of this process.
    """

    def __init__(self, address: str, command: Command = train_command) -> None:
        """Check the address.

        Args:
            address: `auto` (the cluster of this machine, or RAY_ADDRESS), or `HOST:PORT` of the cluster's head.
            command: of a trial; its first word, this machine's Python, becomes the node's.

        Raises:
            SweepError: the address is of no such form.
            MissingExtraError: Ray is not installed.
        """
        self.address = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
        if self.address.startswith("ray://"):
            raise SweepError(
                f"--ray {self.address}: Ray's client is not supported; run the search on a machine of the cluster, "
                "with --ray auto or --ray HOST:PORT (of its head)"
            )
        if self.address != "auto" and not self.address.rpartition(":")[2].isdecimal():
            raise SweepError(f"--ray {self.address}: must be auto or HOST:PORT, such as 10.0.0.5:6379")
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("Ray", "ray")
        self._command = command
        self._link: subprocess.Popen[bytes] | None = None
        self._said = b""
        self._trials: dict[int, _Remote] = {}
        self._begun = 0
        self._nodes: list[tuple[float, float]] = []
        self._told = False

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            SweepError: no cluster answers at the address, or it does not take us.
        """
        self._knock()
        module = "whichcar.search.ray_bridge"
        self._link = subprocess.Popen(
            tied_command([sys.executable, "-m", module, self.address], sorted(os.sched_getaffinity(0))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what went wrong comes as an event, or is told by the exit
            start_new_session=True,  # a Ctrl-C is meant for the search
        )
        try:
            until = time.monotonic() + CONNECT_SECONDS
            while not self._nodes and time.monotonic() < until:
                self.look(0.1)
            if not self._nodes:
                raise self._refused(f"no answer within {CONNECT_SECONDS:.0f} s")
        except BaseException:
            self._close(0.0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the cluster; what still runs there is ended."""
        self._close(END_SECONDS)

    def launch(self, config: Path, slot: int, slots: int) -> _Remote:
        """Start a trial where there is room for its share, or let it wait for room."""
        share = share_of(self._nodes, slots)
        room = share.room(self._nodes)
        if room < slots:
            self._tell_once(f"the cluster has room for {room} of {slots} trials at once ({share} each); others wait")
        self._begun += 1
        trial = _Remote(self, self._begun, config, share)
        self._trials[self._begun] = trial
        order = {
            "words": list(self._command(config))[1:],
            "config": str(config),
            "directory": str(Path.cwd()),
            "environment": {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)},
            "cpus": share.cpus,
            "gpus": share.gpus,
        }
        self.send({"trial": self._begun, "order": order})
        return trial

    def send(self, order: dict[str, Any]) -> None:
        """Give an order to the process between.

        Raises:
            SweepError: it is not there any more, nor is the cluster.
        """
        assert self._link is not None and self._link.stdin is not None  # noqa: S101  (`with` starts it)
        try:
            self._link.stdin.write(f"{json.dumps(order)}\n".encode())
            self._link.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def look(self, seconds: float = 0.0) -> None:
        """Take in what has happened on the cluster, waiting for it no longer than this.

        Raises:
            SweepError: the cluster is gone, or refused the connection.
        """
        assert self._link is not None and self._link.stdout is not None  # noqa: S101
        while select.select([self._link.stdout], [], [], seconds)[0]:
            seconds = 0.0
            said = os.read(self._link.stdout.fileno(), 65536)
            if not said:
                raise self._gone() if self._nodes else self._refused("Ray gave up")
            *lines, self._said = (self._said + said).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
        for trial in self._trials.values():
            if not trial.node and time.monotonic() - trial.began > WAIT_SECONDS:
                self._tell_once(f"{trial.config.parent.name} waits for room on the cluster ({trial.share})")

    def _take(self, event: dict[str, Any]) -> None:
        if "refused" in event:
            raise self._refused(event["refused"])
        if "gone" in event:
            raise self._gone()
        if "bug" in event:
            raise RuntimeError(event["bug"])
        if "nodes" in event:
            self._nodes = [(cpus, gpus) for cpus, gpus in event["nodes"]]
        elif "node" in event:
            self._trials[event["trial"]].node = event["node"]
        else:
            self._trials.pop(event["trial"]).end(event["status"], event["problem"])

    def _knock(self) -> None:
        """See that something listens at the address: Ray itself waits half a minute before it gives up."""
        if self.address == "auto":
            return
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise self._refused(getattr(error, "strerror", None) or str(error)) from None

    def _refused(self, reason: str) -> SweepError:
        return SweepError(
            f"--ray {self.address}: no Ray cluster to run trials on ({reason}); begin one with `ray start --head`, "
            "or leave --ray out"
        )

    def _gone(self) -> SweepError:
        return SweepError(
            f"--ray {self.address}: the Ray cluster is gone, or the connection to it; the same command resumes "
            "what the trials saved, once it is back or without --ray"
        )

    def _tell_once(self, line: str) -> None:
        if not self._told:
            self._told = True
            log.warning("--ray %s: %s", self.address, line)

    def _close(self, seconds: float) -> None:
        assert self._link is not None and self._link.stdin is not None and self._link.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self._link.stdin.close()
        try:
            self._link.wait(seconds)
        except subprocess.TimeoutExpired:
            self._link.kill()
            self._link.wait()
        self._link.stdout.close()


class _Remote:
    """A trial on the cluster; `node` is empty as long as it waits for room."""

    def __init__(self, launcher: RayLauncher, number: int, config: Path, share: Share) -> None:
        self.config, self.share = config, share
        self.node, self.began = "", time.monotonic()
        self._launcher, self._number = launcher, number
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            self._launcher.look()
        return self._status

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it; where the cluster is gone, so is the trial."""
        try:
            self._signal(signal.SIGKILL)
            until = time.monotonic() + KILL_SECONDS
            while self._status is None and time.monotonic() < until:
                self._launcher.look(0.1)
        except SweepError:
            return

    def end(self, status: int, problem: str) -> None:
        """Note how it ended; what kept it from beginning goes to its log, where a failure's reason is looked for."""
        self._status = status
        if problem:
            with (self.config.parent / LOG).open("a", encoding="utf-8") as file:
                file.write(f"error: {problem}\n")

    def _signal(self, number: int) -> None:
        if self._status is None:
            self._launcher.send({"trial": self._number, "signal": int(number)})
