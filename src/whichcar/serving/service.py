"""What stands behind the routes: the workers, the queue, who may ask, and the counters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any

from whichcar.errors import ConfigError, WhichcarError
from whichcar.inference.released import find_model
from whichcar.inference.runtimes import BUNDLES
from whichcar.parallel import usable_cores
from whichcar.serving.access import Access
from whichcar.serving.batching import Batcher, QueueFull
from whichcar.serving.metrics import Metrics
from whichcar.serving.problems import Refused, busy
from whichcar.serving.settings import Job, ServerSettings, WorkerSetup
from whichcar.serving.uploads import Buffered
from whichcar.serving.workers import WorkerDied, Workers

log = logging.getLogger(__name__)

Row = dict[str, Any]
_POLL = 2.0  # seconds between looks at the model's file


class Service:
    """A model that answers requests.

    Raises:
        WhichcarError: the model or the tokens cannot be loaded.
    """

    def __init__(self, setup: WorkerSetup, settings: ServerSettings) -> None:
        """Load the model."""
        self.settings, self.draining = settings, False
        self._file = find_model(setup.model or None)
        is_bundle = self._file.suffix.lower() in BUNDLES
        if settings.reload_model and not is_bundle:
            raise ConfigError(f"{self._file}: only a bundle's file can be watched; export it, or send SIGHUP")
        self.access, self.metrics = Access(settings.tokens, settings.rate), Metrics()
        self.buffered = Buffered(settings.max_buffered)
        # Keras spreads a call over the cores by itself.
        threads = max(1, usable_cores() // settings.workers) if is_bundle else 1
        self.workers = Workers(setup, settings.workers, threads, settings.hang_timeout)
        self.batcher = Batcher[Job, Row](
            [line.ask for line in self.workers.lines],
            settings.batch_size,
            settings.batch_wait,
            settings.queue,
            self.metrics.batch_done,
        )
        self.metrics.watch("whichcar_queue_images", "Images that wait", lambda: len(self.batcher))
        self.metrics.watch("whichcar_working_images", "Images in work", lambda: self.batcher.working)
        self.metrics.watch("whichcar_queue_capacity_images", "Images that may wait", lambda: self.batcher.capacity)
        self.metrics.watch("whichcar_workers_replaced", "Workers replaced", lambda: self.workers.replaced)
        self.metrics.watch("whichcar_upload_bytes", "Uploads in memory", lambda: self.buffered.used)
        self._describe()

    @property
    def description(self) -> Row:
        """What there is to say of the model."""
        return self.workers.description

    def _describe(self) -> None:
        self.metrics.model.clear()
        self.metrics.model.labels(self.description["name"], self.description["sha256"]).set(1)

    async def rows(
        self, jobs: Sequence[Job], until: float, gone: Callable[[], Awaitable[None]] | None = None
    ) -> tuple[Row, list[Row]]:
        """Return name and checksum of the model that answered, and one row a job.

        Args:
            jobs: the images of a request.
            until: when its time is over, on the monotonic clock.
            gone: returns when the client has closed its connection.

        Raises:
            Refused: the queue is full, the time is over, a worker died, or the client has gone.
        """
        try:
            futures = self.batcher.submit(jobs)
        except QueueFull as error:
            raise busy("The queue is full; send this request again later.", "queue full") from error
        try:
            rows = await self._answers(futures, until, gone)
            models = [row.pop("model") for row in rows]
            if all(model == models[0] for model in models):
                return models[0], rows
        except WorkerDied as error:
            raise busy(f"{str(error)[:1].upper()}{str(error)[1:]}.", "worker died") from error
        finally:
            for future in futures:
                future.cancel()
        return await self.rows(jobs, until, gone)  # the model was exchanged between two of them

    async def _answers(
        self, futures: Sequence[Future[Row]], until: float, gone: Callable[[], Awaitable[None]] | None
    ) -> list[Row]:
        answers = asyncio.gather(*map(asyncio.wrap_future, futures))
        answers.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask for it
        tasks: set[asyncio.Future[Any]] = {answers}
        if gone is not None:
            tasks.add(asyncio.ensure_future(gone()))
        left = max(0.0, until - time.monotonic())
        try:
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                return list(answers.result())
            if any(task.done() for task in tasks):
                raise Refused(499, "The client closed the connection.", "client gone")
            raise busy(f"No answer within {self.settings.timeout:g} s; send this request again later.", "timeout")
        finally:
            for task in tasks:
                task.cancel()

    def reload(self) -> None:
        """Load the model again from its file; where that fails, the old one stays and the log says why."""
        try:
            self.workers.reload()
        except (WhichcarError, OSError) as error:
            self.metrics.reloads.labels("failed").inc()
            log.error("the model is not exchanged: %s", error)
            return
        self._describe()
        self.metrics.reloads.labels("done").inc()
        log.warning("now serving %s (sha256 %s)", self.description["name"], self.description["sha256"][:12])

    async def reload_when(self, wanted: asyncio.Event) -> None:
        """Reload the model whenever the event is set; once more at the end where that happens meanwhile."""
        while True:
            await wanted.wait()
            wanted.clear()
            await asyncio.to_thread(self.reload)

    async def watch_model(self, changed: asyncio.Event) -> None:
        """Set an event whenever the model's file has changed and then stays as it is for a moment."""
        loaded = before = self._stamp()
        while True:
            await asyncio.sleep(_POLL)
            now = self._stamp()
            if now is not None and now == before and now != loaded:
                loaded = now
                changed.set()
            before = now

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def close(self) -> None:
        """Answer what waits and end the workers."""
        self.batcher.close()
        self.workers.close()
