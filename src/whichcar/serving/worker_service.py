"""A service of one machine: worker processes and a queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from whichcar.errors import ConfigError, WhichcarError
from whichcar.inference.released import find_model
from whichcar.inference.runtimes import BUNDLES
from whichcar.parallel import usable_cores
from whichcar.serving.batching import Batcher, QueueFull
from whichcar.serving.problems import busy
from whichcar.serving.service import Row, Service
from whichcar.serving.settings import Job, ServerSettings, WorkerSetup
from whichcar.serving.workers import WorkerDied, Workers

log = logging.getLogger(__name__)

_POLL = 2.0  # seconds between checks of the model's file


class WorkerService(Service):
    """A model in worker processes.

    Raises:
        WhichcarError: the model or the tokens cannot be loaded.
    """

    def __init__(self, setup: WorkerSetup, settings: ServerSettings) -> None:
        """Load the model."""
        # A request of more images than the queue holds can never be accepted.
        super().__init__(replace(settings, max_images=min(settings.max_images, settings.queue)))
        self._file = find_model(setup.model or None)
        is_bundle = self._file.suffix.lower() in BUNDLES
        if settings.reload_model and not is_bundle:
            raise ConfigError(f"{self._file}: only a bundle's file can be watched; export it, or send SIGHUP")
        # Keras spreads a call over the cores by itself.
        threads = max(1, usable_cores() // settings.workers) if is_bundle else 1
        self._loaded = self._stamp()  # before the workers read it, so that no later change is missed
        self.workers = Workers(setup, settings.workers, threads, settings.hang_timeout, self.reload)
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
        self.describe()

    @property
    def description(self) -> Row:
        """The description of the model."""
        return self.workers.description

    @property
    def is_full(self) -> bool:
        """True if the queue is full."""
        return len(self.batcher) >= self.batcher.capacity

    def started(self) -> list[Coroutine[Any, Any, None]]:
        """Return coroutines that reload the model at SIGHUP and, if requested, when its file changes.

        The SIGHUP of a closed terminal stops the server, unless SIGHUP was ignored, as under `nohup`.
        """
        wanted = asyncio.Event()
        has_terminal = os.isatty(0) and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN

        def hung_up() -> None:
            if not has_terminal or os.isatty(0):
                wanted.set()
            elif not self.draining:  # the kernel and the shell both send one, and a second SIGTERM ends at once
                signal.raise_signal(signal.SIGTERM)

        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not possible in a thread of a test
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)
        watching = [self._watch_model(wanted)] if self.settings.reload_model else []
        return [self._reload_when(wanted), *watching]

    async def rows(
        self, jobs: Sequence[Job], until: float, gone: Callable[[], Awaitable[None]] | None = None
    ) -> tuple[Row, list[Row]]:
        """Queue the images and wait for their answers."""
        try:
            futures = self.batcher.submit(jobs)
        except QueueFull as error:
            raise busy("The queue is full; send this request again later.", "queue full") from error
        try:
            rows = await self.in_time(asyncio.gather(*map(asyncio.wrap_future, futures)), until, gone)
            models = [row.pop("model") for row in rows]
            if all(model == models[0] for model in models):
                return models[0], rows
        except WorkerDied as error:
            raise busy(f"{str(error)[:1].upper()}{str(error)[1:]}.", "worker died") from error
        finally:
            for future in futures:
                future.cancel()
        return await self.rows(jobs, until, gone)  # the model was exchanged between two of the images

    def reload(self) -> None:
        """Reload the model from its file; if that fails, keep the old one and log the reason."""
        try:
            self.workers.reload()
        except (WhichcarError, OSError) as error:
            self.metrics.reloads.labels("failed").inc()
            log.error("the model is not exchanged: %s", error)
            return
        self.describe()
        self.metrics.reloads.labels("done").inc()
        log.warning("now serving %s (sha256 %s)", self.description["name"], self.description["sha256"][:12])

    async def _reload_when(self, wanted: asyncio.Event) -> None:
        """Reload the model whenever the event is set, and once more if it is set during a reload."""
        while True:
            await wanted.wait()
            wanted.clear()
            await asyncio.to_thread(self.reload)

    async def _watch_model(self, changed: asyncio.Event) -> None:
        """Set an event whenever the model's file has changed and then stays unchanged for one poll."""
        loaded = before = self._loaded
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
        """Stop the workers and the queue; jobs that are still unanswered stay unanswered."""
        self.workers.stop()  # first: a thread of the queue may wait for a worker that hangs or cannot be replaced
        self.batcher.close()
        self.workers.close()
