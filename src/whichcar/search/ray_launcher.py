"""A search on a Ray cluster: one Ray task per slot, each an ordinary `whichcar sweep FILE` on the shared study.

Ray decides where a slot runs, and restarts it if its worker or node dies; the leases in the study let another slot
resume its trial. Ray itself runs in a separate process (`main`), since it takes over signals, writes to the terminal
bypassing Python, and ends its process when the cluster has been gone for a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from whichcar.errors import ClusterError, Interrupted, SweepError
from whichcar.ray_cluster import connect, last_line, own_cores, reason_in
from whichcar.search.launcher import QUIET, gpu_limits, how_it_ended, killed_from_outside, start
from whichcar.search.live_table import LiveTable
from whichcar.search.results import Results

WHICHCAR = ("-m", "whichcar")  # arguments of the node's Python
LOG = "ray.txt"
POLL_SECONDS = 0.2
STOP_SECONDS = 120.0  # for all slots to save their trials
PASSED_ON = ("WHICHCAR_", "KERAS_", "TF_", "XLA_", "JAX_")  # variables passed on to the slots


@dataclass(frozen=True, slots=True)
class Slots:
    """What runs on the cluster: `count` times `python WORDS`, in the working directory of the search.

    `restarts` is how often each slot is restarted; `sqlite` is True if the study is a SQLite file.
    """

    address: str
    count: int
    restarts: int
    folder: str
    sqlite: bool
    words: Sequence[str]


class RayDriver:
    """Runs the slots of a search and shows the progress of the study; `ended` counts trials that ended meanwhile."""

    def __init__(self, slots: Slots, results: Results, live_table: LiveTable) -> None:
        self._slots, self._results, self._live_table = slots, results, live_table
        self._log = Path(slots.folder) / LOG
        self._ended_before = {trial.number for trial in results.trials() if trial.state.is_finished()}
        self._process: subprocess.Popen[bytes] | None = None
        self.ended = 0

    def run(self, stop: threading.Event) -> None:
        """Run the slots until the budget is used up, or a stop is requested.

        Raises:
            SweepError: there is no such cluster (any more), or a slot failed.
            Interrupted: a stop was requested.
        """
        with self._live_table:
            process = self._process = self._start()
            try:
                while process.poll() is None:
                    if stop.is_set():
                        self._stop(process)
                    self._show()
                    stop.wait(POLL_SECONDS)
            finally:
                self._results.write_settings()  # the slots have replaced the search's command with their own
                self._results.settle()
                self._show(last=True)
            if process.returncode:
                raise SweepError(f"--ray {self._slots.address}: {reason_in(self._log.read_bytes())}")

    def kill(self) -> None:
        """End the connection to the cluster, and with it whatever still runs there."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _stop(self, process: subprocess.Popen[bytes]) -> NoReturn:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        saved = "are saved" if process.returncode == 0 else "resume from what they saved last"
        raise Interrupted(f"{self._slots.folder}: stopped; running trials {saved}")

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", __spec__.name, json.dumps(asdict(self._slots))]
        with self._log.open("wb") as log:
            return start(command, sorted(os.sched_getaffinity(0)), log)

    def _show(self, last: bool = False) -> None:
        status = self._results.status(self._results.running())
        for ended, row in self._results.ended():
            if ended.number not in self._ended_before:
                self._ended_before.add(ended.number)
                self.ended += 1
                self._live_table.ended(ended, row, status)
        self._live_table.show(status, last)


def share(nodes: Sequence[tuple[int, int]], slots: int) -> tuple[int, float]:
    """Return the most processors and GPUs per slot that let all slots run at once; if none do, slots wait for Ray.

    Args:
        nodes: processors and GPUs of each node. If any has GPUs, slots run on those only, and may share one GPU.
        slots: number of slots.
    """
    nodes = [node for node in nodes if node[1]] or nodes
    cpus, gpus = ([node[kind] for node in nodes] for kind in (0, 1))

    def most(counts: Sequence[int]) -> int:
        sizes = range(1, max(counts, default=1) + 1)
        return max((size for size in sizes if sum(count // size for count in counts) >= slots), default=1)

    if not sum(gpus):
        return most(cpus), 0
    return most(cpus), most(gpus) if sum(gpus) >= slots else 1 / -(-slots // sum(gpus))


def run_slot(number: int, slots: Slots, directory: str, cpus: int, variables: Mapping[str, str]) -> str:
    """Run a slot to its end on `cpus` processors of this node and return the error message, empty if there is none.

    Raises:
        ChildProcessError: it was killed; Ray starts it again.
        KeyboardInterrupt: the task was cancelled; the slot has saved its trial.
    """
    folder = Path(directory, slots.folder)
    if not folder.is_dir():
        node = socket.gethostname()
        return f"node {node} does not see {folder}; all nodes need the same disk for it, under the same path"
    log = folder / f"slot_{number}.txt"
    with own_cores(cpus) as cores, log.open("ab") as file:
        file.write(f"on node {socket.gethostname()}, processors {','.join(map(str, cores))}\n".encode())
        file.flush()
        begin = file.tell()
        process = None
        try:
            process = start(
                [sys.executable, *slots.words], cores, file, {**os.environ, **variables, **QUIET}, directory
            )
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
        finally:
            if process is not None:
                process.terminate()
                process.wait()
    if killed_from_outside(process.returncode):
        raise ChildProcessError(f"slot {number}: {how_it_ended(process.returncode)} (log: {log})")
    lines = log.read_bytes()[begin:].decode("utf-8", "replace").strip().splitlines()
    message = (lines or ["no message"])[-1].removeprefix("error: ")
    return f"{message} (log: {log})" if process.returncode else ""


def main() -> None:
    """Connect and run the slots; once one ends, stop the others: the budget is spent, or something failed."""
    slots = Slots(**json.loads(sys.argv[1]))
    try:
        connect(slots.address)
    except ClusterError as error:
        _fail(str(error))
    import ray
    from ray.exceptions import RayError, TaskCancelledError

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if problem := host_problem(nodes, sqlite=slots.sqlite):
        _fail(problem)
    resources = [node["Resources"] for node in nodes]
    cpus, gpus = share([(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in resources], slots.count)
    task = ray.remote(
        num_cpus=cpus, num_gpus=gpus, max_retries=slots.restarts, retry_exceptions=[ChildProcessError]
    )(run_slot)  # fmt: skip
    variables = _variables(cpus, gpus)
    tasks = [task.remote(number, slots, str(Path.cwd()), cpus, variables) for number in range(slots.count)]
    cancelled = False
    while tasks:
        done, tasks = ray.wait(tasks, timeout=POLL_SECONDS)
        for one in done:
            try:
                problem = problem or ray.get(one)
            except TaskCancelledError:
                continue
            except RayError as error:  # its worker or node died too often, or cannot load whichcar
                problem = problem or last_line(error)
        if (done or stop.is_set()) and not cancelled:
            cancelled = True
            for one in tasks:
                ray.cancel(one)
    if problem:
        _fail(problem)


def host_problem(nodes: Sequence[Mapping[str, Any]], *, sqlite: bool) -> str:
    """Return what keeps these nodes from sharing the study; empty if nothing does."""
    hosts = sorted({node["NodeManagerHostname"] for node in nodes})
    if not sqlite or len(hosts) == 1:
        return ""
    storage = "--storage FILE.journal (on the shared disk) or --storage postgresql://..."
    return f"the hosts {', '.join(hosts)} cannot share a SQLite file; give {storage}"


def _variables(cpus: int, gpus: float) -> dict[str, str]:
    """Return the environment of a slot; Ray only counts processors, so TensorFlow and JAX would use all of them."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC"), str(cpus))
    if 0 < gpus < 1:
        limits |= gpu_limits(gpus)
    return limits | {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def _fail(reason: str) -> NoReturn:
    sys.exit(f"error: {reason}")


if __name__ == "__main__":
    main()
