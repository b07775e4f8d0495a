"""A uvicorn connection with a timeout, so that clients cannot hold it open.

uvicorn itself waits without a limit for the head of a request, and for a client to read its response.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def connection_type(timeout: float) -> type[asyncio.Protocol]:
    """Return a subclass of uvicorn's connection that is closed after a timeout.

    Args:
        timeout: seconds for the head of a request, counted from the start of the connection or the response before; for
            the server's response; and for the client to read it.
    """

    class Connection(H11Protocol):
        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401  (of uvicorn)
            super().connection_made(transport)
            self._allow(timeout)

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._allow(2 * timeout)

        def on_response_complete(self) -> None:
            self._allow(timeout)
            super().on_response_complete()  # which starts the next request, if that was sent already

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _allow(self, seconds: float) -> None:
            self._stop()
            self._clock = self.loop.call_later(seconds, self.transport.abort)

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()

    return Connection
