"""Ctrl-C while training and searching."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading

import pytest

from whichcar.training.run.signals import graceful_shutdown


def in_a_long_call_interrupted(rounds: int = 200_000) -> None:
    """Compute as a training step does: nothing of Python runs in the main thread meanwhile."""
    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)
    timer.join()  # on a busy machine it may be late, and a signal after the test would end pytest


def test_a_signal_is_announced_once_and_while_the_main_thread_is_in_a_long_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[tuple[str, bool]] = []
    with graceful_shutdown("stopping") as stop:
        monkeypatch.setattr(sys.stderr, "write", lambda text: written.append((text, stop.is_set())))
        in_a_long_call_interrupted(2_000_000)  # half a second: the thread that writes the message may be late
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            in_a_long_call_interrupted()
    assert written == [("stopping\n", False)]
