"""`serve`: a model behind a port, until a signal stops it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from whichcar.errors import ConfigError, MissingExtraError
from whichcar.serving.settings import ServerSettings, WorkerSetup

log = logging.getLogger(__name__)

_BACKLOG = 2048
_GRACE = 25  # seconds for the accepted requests; the workers then have at most 5 more


def serve(
    model: str | Path | None = None,
    settings: ServerSettings | None = None,
    crop: bool | None = None,
    detector: str | Path | None = None,
    family: str | None = None,
    started: Callable[[str, str], None] | None = None,
) -> None:
    """Classify uploaded images over HTTP until SIGTERM or Ctrl-C; requests accepted by then are answered.

    Args:
        model: as for `Classifier`; a bundle's workers need no Keras.
        settings: address, workers and limits.
        crop: as for `Classifier`; None crops if the network was trained on cropped images.
        detector: as for `Classifier`.
        family: as for `Classifier`.
        started: called with the address and the model's name once requests are accepted.

    Raises:
        ConfigError: the address cannot be used.
        WhichcarError: the model cannot be loaded.
    """
    settings = settings or ServerSettings()
    try:
        import uvicorn

        from whichcar.serving.app import create_app
        from whichcar.serving.connection import connection_type
        from whichcar.serving.worker_service import WorkerService
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name or 'a package'} of the server", "serve") from error

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            service.draining = True
            self.force_exit, self.should_exit = self.should_exit, True  # a second signal ends it at once
            for connection in self.server_state.connections if self.force_exit else ():
                # Since Python 3.12, asyncio's server waits until its connections are closed.
                connection.loop.call_soon_threadsafe(connection.transport.abort)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if started is not None:
                host, port = listening.getsockname()[:2]
                started(f"http://{f'[{host}]' if ':' in host else host}:{port}", service.description["name"])

    with _listening(settings.host, settings.port) as listening:
        name = None if detector is None else str(detector)
        setup = WorkerSetup("" if model is None else str(model), crop, name, family, settings.max_pixels)
        service = WorkerService(setup, settings)
        config = uvicorn.Config(
            create_app(service),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http=connection_type(settings.timeout),
            ws="none",
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_GRACE,
        )
        try:
            Server(config).run([listening])
        finally:
            service.close()


def _listening(host: str, port: int) -> socket.socket:
    """Return a bound socket, so that a port in use is reported before a model is loaded.

    Raises:
        ConfigError: the address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # `::` accepts IPv4 addresses, too
        return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while ")[0]  # Python appends the address
        raise ConfigError(
            f"{host}:{port}: cannot be listened at ({reason}); choose another --host or --port"
        ) from error
