"""The service of one machine, with workers that are no processes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from whichcar.serving import workers as workers_module
from whichcar.serving.settings import Job, ServerSettings, WorkerSetup
from whichcar.serving.worker_service import WorkerService
from whichcar.serving.workers import WorkerDied

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
    while not service.batcher.working:
        time.sleep(0.01)
    closing = threading.Thread(target=service.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    with pytest.raises(WorkerDied, match="the server is stopping"):
        asked.result(0)


def test_no_request_may_have_more_images_than_the_queue_holds(service: WorkerService) -> None:
    assert service.settings.max_images == 2
    service.close()
