"""Worker processes and their places, with workers that are no processes, or that stand still."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from whichcar.errors import CheckpointError
from whichcar.serving import workers as workers_module
from whichcar.serving.settings import Job, WorkerSetup
from whichcar.serving.workers import WorkerDied, WorkerProcess, Workers

from ..waiting import stop, until

SETUP = WorkerSetup("cars.whichcar", None, None, None, 1)


class Worker:
    """Has the model that is in the file when it starts; a process that does not exist."""

    file = "old"

    def __init__(self, setup: WorkerSetup, threads: int, hang_timeout: float, stopping: threading.Event) -> None:
        if self.file == "broken":
            raise CheckpointError("cars.whichcar: broken")
        self.description = {"name": "cars", "sha256": self.file}
        self.status: int | None = None
        self.process = SimpleNamespace(pid=1, poll=lambda: self.status)

    def kill(self) -> None:
        self.status = -9

    close = kill


def test_workers_that_die_together_are_exchanged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "WorkerProcess", Worker)
    monkeypatch.setattr(workers_module, "_PAUSE", 0.01)
    monkeypatch.setattr(Worker, "file", "old")
    reloads = []

    def reload() -> None:
        reloads.append(1)
        time.sleep(0.1)
        workers.reload()

    workers = Workers(SETUP, 4, 1, 1.0, reload)
    monkeypatch.setattr(Worker, "file", "new")
    for place in workers._places:
        place._worker.kill()
    until(lambda: {place._worker.description["sha256"] for place in workers._places} == {"new"}, 5)
    assert len(reloads) == 1
    workers.close()


@pytest.mark.parametrize("broken_first", [False, True])
def test_all_workers_have_the_model_of_one_that_was_replaced(
    monkeypatch: pytest.MonkeyPatch, broken_first: bool
) -> None:
    monkeypatch.setattr(workers_module, "WorkerProcess", Worker)
    monkeypatch.setattr(workers_module, "_PAUSE", 0.01)
    monkeypatch.setattr(Worker, "file", "old")
    workers = Workers(SETUP, 2, 1, 1.0, lambda: workers.reload())
    first, second = (place.worker() for place in workers._places)
    monkeypatch.setattr(Worker, "file", "broken" if broken_first else "new")
    first.kill()
    time.sleep(0.05)
    monkeypatch.setattr(Worker, "file", "new")
    until(lambda: workers.description["sha256"] == "new" and second.process.poll() is not None, 5)
    assert [place.worker().description["sha256"] for place in workers._places] == ["new", "new"]
    workers.close()


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Workers]]:
    """Starts a worker whose process stands still as a whole, with the seconds after which that counts as hanging."""
    monkeypatch.setattr(WorkerProcess, "_loaded", lambda *_: {"name": "cars", "sha256": "old"})
    started: list[Workers] = []

    def start(hang_timeout: float) -> Workers:
        started.append(Workers(SETUP, 1, 1, hang_timeout, lambda: None))
        stop(started[0]._places[0].worker().process.pid)
        return started[0]

    yield start
    for workers in started:
        workers.close()


def test_a_stop_does_not_wait_for_a_worker_that_hangs(frozen: Callable[[float], Workers]) -> None:
    workers = frozen(20)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(workers.lines[0].ask, [Job("a", b"")])
        until(workers.lines[0].lock.locked)
        workers.stop()
        with pytest.raises(WorkerDied):
            asked.result(5)


def test_a_worker_that_reads_nothing_is_lost_however_large_the_image(frozen: Callable[[float], Workers]) -> None:
    workers = frozen(0.1)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(workers.lines[0].ask, [Job("a", bytes(5_000_000))])
        try:
            with pytest.raises(WorkerDied):
                asked.result(5)
        finally:
            workers.stop()  # or the thread would wait for ever
