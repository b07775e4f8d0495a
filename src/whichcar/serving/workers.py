"""The server's side of the worker processes: starting, asking, replacing and exchanging them."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from whichcar.errors import CheckpointError, WhichcarError
from whichcar.serving.settings import Job, WorkerSetup

log = logging.getLogger(__name__)

_LOADING = 300.0  # seconds for a worker to load its model before it is given up
_LOOK = 0.2  # seconds between checks whether the server is stopping
_PAUSE = 1.0  # seconds between attempts to replace a worker that does not start


class WorkerDied(Exception):
    """The worker ended, or was stopped, before it answered; the message is for the client."""


class WorkerProcess:
    """A process with a model, and one connection per thread.

    Sending raises OSError if the worker has read nothing for `hang_timeout` seconds.

    Raises:
        WhichcarError: the model cannot be loaded; the message is the worker's.
    """

    def __init__(self, setup: WorkerSetup, threads: int, hang_timeout: float, stopping: threading.Event) -> None:
        """Start the process and wait until its model is loaded, or `stopping` is set."""
        pairs = [socket.socketpair() for _ in range(threads)]
        numbers = [inside.fileno() for _, inside in pairs]
        command = [sys.executable, "-m", "whichcar.serving.worker", *map(str, numbers)]
        self.process = subprocess.Popen(command, pass_fds=numbers, start_new_session=True, stdin=subprocess.DEVNULL)
        for outside, inside in pairs:
            inside.close()
            limit = struct.pack("ll", int(hang_timeout), int(hang_timeout % 1 * 1_000_000))
            outside.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self.connections = [Connection(outside.detach()) for outside, _ in pairs]
        try:
            self.description = self._loaded(setup, stopping)
        except BaseException:
            self.kill()
            raise

    def _loaded(self, setup: WorkerSetup, stopping: threading.Event) -> dict[str, Any]:
        first, end = self.connections[0], time.monotonic() + _LOADING
        try:
            first.send(setup)
            while not first.poll(_LOOK):
                if stopping.is_set():
                    raise CheckpointError("the server is stopping")
                if time.monotonic() > end:
                    raise CheckpointError(f"{setup.model}: the worker process did not load it within {_LOADING:g} s")
            answer: dict[str, Any] = json.loads(first.recv_bytes())
        except (EOFError, OSError) as error:
            raise CheckpointError(f"{setup.model}: the worker process ended while it loaded the model") from error
        if "error" in answer:
            raise CheckpointError(answer["error"])
        description: dict[str, Any] = answer["description"]
        return description

    def kill(self) -> None:
        """Kill the process; no connection is closed, so that a thread that still reads from one finds its end."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Close the connections, which ends the process, and wait for that."""
        for connection in self.connections:
            connection.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Line:
    """A server thread's connection to one thread of a worker process; one request at a time."""

    def __init__(self, place: _Place, number: int, hang_timeout: float) -> None:
        """Use connection `number` of the process at `place`."""
        self._place, self._number, self._hang_timeout = place, number, hang_timeout
        self.lock = threading.Lock()

    def ask(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Return one row per job, each with the `model` that answered.

        Raises:
            WorkerDied: the process ended and is being replaced, the worker failed, or the server is stopping.
        """
        with self.lock:
            worker = self._place.worker()
            connection = worker.connections[self._number]
            try:
                connection.send(list(jobs))
                if not connection.poll(self._hang_timeout):
                    log.error("a worker did not answer for %g seconds and is replaced", self._hang_timeout)
                    worker.process.kill()
                answer = json.loads(connection.recv_bytes())
            except (EOFError, OSError) as error:
                self._place.lost(worker)
                raise WorkerDied("the worker process ended while it had this image; send it again") from error
        if "failure" in answer:
            log.error("a worker failed on a batch of %d: %s", len(jobs), answer["failure"])
            raise WorkerDied("the worker failed on this image; see the server's log")
        model = {name: worker.description[name] for name in ("name", "sha256")}
        return [row | {"model": model} for row in answer["rows"]]


class _Place:
    """The place of one worker process, which is replaced when it dies."""

    def __init__(self, start: Callable[[], WorkerProcess], worker: WorkerProcess, stopping: threading.Event) -> None:
        self._start, self._worker, self._stopping = start, worker, stopping
        self._before = worker  # after an exchange, the previous process, which may still answer
        self._lock = threading.Lock()
        self._is_lost = False
        self.replaced = 0

    def worker(self) -> WorkerProcess:
        """Return the process, after replacing it if it has died."""
        while True:
            with self._lock:
                if (not self._is_lost and self._worker.process.poll() is None) or self._replace():
                    return self._worker
            self._stopping.wait(_PAUSE)  # meanwhile `exchange` may install another process

    def lost(self, worker: WorkerProcess) -> None:
        with self._lock:
            self._is_lost = self._is_lost or worker is self._worker

    def exchange(self, worker: WorkerProcess) -> WorkerProcess:
        with self._lock:
            self._before, self._worker, self._is_lost = self._worker, worker, False
            return self._before

    def stop(self) -> None:
        with self._lock:
            for worker in (self._before, self._worker):
                worker.kill()

    def close(self) -> None:
        with self._lock:
            self._worker.close()

    def _replace(self) -> bool:
        if self._stopping.is_set():
            raise WorkerDied("the server is stopping")
        self._worker.kill()
        log.warning(
            "worker %d ended (status %s); starting another", self._worker.process.pid, self._worker.process.poll()
        )
        try:
            self._worker, self._is_lost = self._start(), False
        except (WhichcarError, OSError) as error:
            log.error("a worker cannot be started: %s", error)
            return False
        self.replaced += 1
        return True


class Workers:
    """All worker processes.

    Args:
        setup: what each worker is started with.
        processes: number of processes.
        threads: threads per process.
        hang_timeout: seconds after which a worker that does not answer is replaced.
        reload: must call `Workers.reload`; called if the file holds another model when a worker is replaced.

    Raises:
        WhichcarError: the model cannot be loaded.
    """

    def __init__(
        self, setup: WorkerSetup, processes: int, threads: int, hang_timeout: float, reload: Callable[[], object]
    ) -> None:
        """Start them and wait until they are ready."""
        self._setup, self._threads, self._hang_timeout, self._reload = setup, threads, hang_timeout, reload
        self._stopping, self._reloading, self._exchanging = threading.Event(), threading.Lock(), threading.Lock()
        started = [self._start() for _ in range(processes)]
        self._places = [_Place(self._replacement, worker, self._stopping) for worker in started]
        self.description = started[0].description
        self.lines = [Line(place, n, hang_timeout) for place in self._places for n in range(threads)]
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    @property
    def replaced(self) -> int:
        """How many workers have been replaced since the start."""
        return sum(place.replaced for place in self._places)

    def _start(self) -> WorkerProcess:
        return WorkerProcess(self._setup, self._threads, self._hang_timeout, self._stopping)

    def _replacement(self) -> WorkerProcess:
        """Start a replacement for a worker that died; it must have the same model as the others."""
        if self._reloading.locked():
            raise CheckpointError("all workers are being exchanged")
        worker = self._start()
        if worker.description["sha256"] == self.description["sha256"]:
            return worker
        worker.close()
        threading.Thread(target=self._exchange, name="reload", daemon=True).start()
        raise CheckpointError(f"{self._setup.model}: holds another model now; all workers are exchanged")

    def _exchange(self) -> None:
        """Reload the model, only once if several workers have died together."""
        if self._exchanging.acquire(blocking=False):
            try:
                self._reload()
            finally:
                self._exchanging.release()

    def _watch(self) -> None:
        """Replace workers that have died, even without a request."""
        while not self._stopping.wait(_PAUSE):
            for place in self._places:
                with contextlib.suppress(WorkerDied):
                    place.worker()

    def reload(self) -> dict[str, Any]:
        """Load the model from its file in new processes, which then replace the old ones.

        Returns:
            The new description.

        Raises:
            WhichcarError: the new model cannot be loaded; the old one stays.
        """
        with self._reloading:
            started: list[WorkerProcess] = []
            try:
                started.extend(self._start() for _ in self._places)
            except BaseException:
                for worker in started:
                    worker.close()
                raise
            self.description = started[0].description
            for number, (place, worker) in enumerate(zip(self._places, started, strict=True)):
                before = place.exchange(worker)
                for line in self.lines[number * self._threads : (number + 1) * self._threads]:
                    with line.lock:  # its request to the old process has been answered
                        pass
                before.close()
            return self.description

    def stop(self) -> None:
        """Kill all workers and replace none of them; threads that wait for an answer get `WorkerDied`."""
        self._stopping.set()
        for place in self._places:
            place.stop()

    def close(self) -> None:
        """Stop all workers."""
        self.stop()
        with self._reloading:
            for place in self._places:
                place.close()
