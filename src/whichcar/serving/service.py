"""What the routes need: who may ask, the counters, the limits, and what classifies."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from whichcar.serving.access import Access
from whichcar.serving.metrics import Metrics
from whichcar.serving.problems import Refused, busy
from whichcar.serving.settings import Job, ServerSettings
from whichcar.serving.uploads import Buffered

Row = dict[str, Any]


class Service(ABC):
    """A model that answers requests.

    Raises:
        ConfigError: the tokens cannot be loaded.
    """

    def __init__(self, settings: ServerSettings) -> None:
        """Read the tokens and start to count."""
        self.settings, self.draining = settings, False
        self.access, self.metrics = Access(settings.tokens, settings.rate), Metrics()
        self.buffered = Buffered(settings.max_buffered)
        self.metrics.watch("whichcar_upload_bytes", "Uploads in memory", lambda: self.buffered.used)

    @property
    @abstractmethod
    def description(self) -> Row:
        """What there is to say of the model."""

    @property
    def is_full(self) -> bool:
        """True where a request would be refused; its body is then not read."""
        return False

    @abstractmethod
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

    async def in_time(
        self, answers: asyncio.Future[list[Row]], until: float, gone: Callable[[], Awaitable[None]] | None
    ) -> list[Row]:
        """Return the answers, unless the time is over or the client has gone; they are cancelled then.

        Raises:
            Refused: that is so.
        """
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

    def started(self) -> list[Coroutine[Any, Any, None]]:
        """Return what is to run alongside the requests; called once the event loop runs."""
        return []

    @abstractmethod
    def close(self) -> None:
        """End; called once no request waits for an answer."""

    def describe(self) -> None:
        """Put the model's name and checksum into the metrics."""
        self.metrics.model.clear()
        self.metrics.model.labels(self.description["name"], self.description["sha256"]).set(1)
