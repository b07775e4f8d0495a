"""A connection that cannot be held open: uvicorn's own, and a clock.

uvicorn waits for the head of a request as long as it takes, and for a client to take its answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def connection_type(timeout: float) -> type[asyncio.Protocol]:
    """Return uvicorn's connection, which is closed when it has taken too long.

    Args:
        timeout: seconds for the head of a request, from the connection's beginning or the answer before; for the
            server's answer; and for the client to take it.
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
            super().on_response_complete()  # which begins with the next request, if that was sent already

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
