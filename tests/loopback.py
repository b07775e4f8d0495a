"""Web servers on the loopback interface."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class Silent(BaseHTTPRequestHandler):
    """Keeps the log out of the tests' output."""

    def log_message(self, *_: object) -> None:
        pass


class _Files(Silent, SimpleHTTPRequestHandler):
    pass


@contextlib.contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server, which is asked without a proxy."""
    with pytest.MonkeyPatch.context() as patch, ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def served_folder(folder: Path) -> contextlib.AbstractContextManager[str]:
    """The address of a folder, served as `python -m http.server` does, which knows no parts of files."""
    return served(partial(_Files, directory=folder))
