"""The service of one machine, with workers that are no processes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

from whichcar.serving import worker_service as service_module
from whichcar.serving import workers as workers_module
from whichcar.serving.settings import Job, ServerSettings, WorkerSetup
from whichcar.serving.worker_service import WorkerService
from whichcar.serving.workers import WorkerDied

from ..waiting import until
from .test_workers import Worker


@pytest.fixture
def service(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerService:
    monkeypatch.setattr(workers_module, "WorkerProcess", Worker)
    monkeypatch.setattr(Worker, "file", "old")
    return WorkerService(WorkerSetup(str(bundle), None, None, None, 1), ServerSettings(queue=2))


def test_a_server_with_a_dead_worker_that_cannot_be_replaced_ends(
    service: WorkerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "file", "broken")
    service.workers._places[0].worker().kill()
    (asked,) = service.batcher.submit([Job("a", b"")])
    until(lambda: service.batcher.working)
    closing = threading.Thread(target=service.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    with pytest.raises(WorkerDied, match="the server is stopping"):
        asked.result(0)


def test_no_request_may_have_more_images_than_the_queue_holds(service: WorkerService) -> None:
    assert service.settings.max_images == 2
    service.close()


def test_a_file_that_is_replaced_while_its_workers_start_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replaced(Worker):
        def __init__(self, *options: Any) -> None:  # noqa: ANN401
            super().__init__(*options)
            if self.file == "old":
                (tmp_path / "a.whichcar").write_text("new")
                monkeypatch.setattr(Worker, "file", "new")

    (tmp_path / "a.whichcar").write_text("old!")
    monkeypatch.setattr(workers_module, "WorkerProcess", Replaced)
    monkeypatch.setattr(Worker, "file", "old")
    monkeypatch.setattr(service_module, "_POLL", 0.01)
    setup = WorkerSetup(str(tmp_path / "a.whichcar"), None, None, None, 1)
    service = WorkerService(setup, ServerSettings(reload_model=True))
    assert service.description["sha256"] == "old"

    async def watch() -> None:
        tasks = [asyncio.ensure_future(one) for one in service.started()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while service.description["sha256"] == "old":
                    await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()

    asyncio.run(watch())
    assert service.description["sha256"] == "new"
    service.close()
