"""What the routes need: access control, counters, limits, and the classifier."""

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
        """Read the tokens and create the counters."""
        self.settings, self.draining = settings, False
        self.access, self.metrics = Access(settings.tokens, settings.rate), Metrics()
        self.buffered = Buffered(settings.max_buffered)
        self.metrics.watch("whichcar_upload_bytes", "Uploads in memory", lambda: self.buffered.used)

    @property
    @abstractmethod
    def description(self) -> Row:
        """The description of the model."""

    @property
    def is_full(self) -> bool:
        """True if a request would be refused; its body is then not read."""
        return False

    @abstractmethod
    async def rows(
        self, jobs: Sequence[Job], until: float, gone: Callable[[], Awaitable[None]] | None = None
    ) -> tuple[Row, list[Row]]:
        """Return the name and checksum of the model that answered, and one row per job.

        Args:
            jobs: the images of a request.
            until: deadline of the request, on the monotonic clock.
            gone: returns when the client has closed its connection.

        Raises:
            Refused: the queue is full, the deadline has passed, a worker died, or the client has disconnected.
        """

    async def in_time(
        self, answers: asyncio.Future[list[Row]], until: float, gone: Callable[[], Awaitable[None]] | None
    ) -> list[Row]:
        """Return the answers, or cancel them if the deadline passes or the client disconnects first.

        Raises:
            Refused: the deadline has passed, or the client has disconnected.
        """
        answers.add_done_callback(lambda done: done.cancelled() or done.exception())  # marks an error as retrieved
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
        """Return coroutines to run alongside the requests; called once the event loop runs."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Shut down; called once no request waits for an answer."""

    def describe(self) -> None:
        """Put the model's name and checksum into the metrics."""
        self.metrics.model.clear()
        self.metrics.model.labels(self.description["name"], self.description["sha256"]).set(1)
