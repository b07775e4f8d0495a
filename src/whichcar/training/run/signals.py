"""Ctrl-C and SIGTERM, announced at once and handled between two training steps."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def graceful_shutdown(message: str = "") -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or SIGTERM sets (in the main thread only); a second signal raises KeyboardInterrupt.

    Args:
        message: written to standard error at the first signal, even while the main thread is in a long call.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        with _announced(message):
            yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _announced(message: str) -> Iterator[None]:
    """Write the message at the first signal, from a thread: `note` only runs once the main thread runs Python again."""

    def announce() -> None:
        while number := os.read(reading, 1):
            if message and number[0] in STOP_SIGNALS:
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write(f"{message}\n")
                    sys.stderr.flush()
                return

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=announce, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        thread.join()
        os.close(reading)
