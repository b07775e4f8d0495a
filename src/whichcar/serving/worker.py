"""A worker process: `python -m whichcar.serving.worker FD...`, with one connection to the server per thread.

It ends when the server closes the connections or exits. Jobs come pickled from the server, which is trusted. Answers
are sent as JSON, so that an image that took over a worker could not take over the server too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from whichcar.errors import WhichcarError


def main(numbers: Sequence[str]) -> None:
    """Serve the connections of these file descriptors until all are closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the server ends its workers once their requests are answered
    first, *others = (Connection(int(number)) for number in numbers)
    from whichcar.serving.handler import Handler

    try:
        handler = Handler(first.recv())
        description = handler.description()
    except EOFError:
        return
    except WhichcarError as error:
        _send(first, {"error": str(error)})
        return
    _send(first, {"description": description, "process": os.getpid()})
    threads = [threading.Thread(target=_serve, args=(handler, one), daemon=True) for one in (first, *others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve(handler: Any, connection: Connection) -> None:  # noqa: ANN401  (imported once the signals are ignored)
    while True:
        try:
            jobs = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = {"rows": handler.rows(jobs)}
        except Exception as error:  # a worker must outlive any image
            answer = {"failure": f"{type(error).__name__}: {error}"}
        _send(connection, answer)


def _send(connection: Connection, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the server is gone; the next read from the connection shows that
        connection.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
