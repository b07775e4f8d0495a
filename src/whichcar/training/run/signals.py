"""Ctrl-C, SIGTERM and SIGHUP, announced at once and handled between two training steps, or after a library's call."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def graceful_shutdown(message: str = "") -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C, SIGTERM or SIGHUP sets (in the main thread only).

    A Ctrl-C after that raises KeyboardInterrupt. Ignored signals stay ignored: SIGHUP under `nohup`, and Ctrl-C for a
    job in the background of a script.

    Args:
        message: written to standard error at the first signal, even while the main thread is in a long call.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: FrameType | None) -> None:
        if event.is_set() and number == signal.SIGINT:  # `timeout` and a closed terminal send their signal twice
            raise KeyboardInterrupt
        event.set()

    handled = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in handled}
    try:
        with _announced(message):
            yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end if a library in the block swallowed it, or took it for an error of its own.

    This is limited to the KeyboardInterrupt of a signal (in the main thread only).
    """
    is_raised = False

    def noted(handler: Handler) -> Handler:
        def note(number: int, frame: FrameType | None) -> None:
            nonlocal is_raised
            try:
                handler(number, frame)
            except KeyboardInterrupt:
                is_raised = True
                raise

        return note

    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS if in_main_thread}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number, handler in before.items():
        signal.signal(number, noted(handler))
    try:
        yield
    except Exception:
        if is_raised:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if is_raised:
        raise KeyboardInterrupt


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
