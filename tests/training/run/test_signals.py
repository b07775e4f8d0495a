"""Ctrl-C while training and searching."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import threading

import pytest

from whichcar.training.run.signals import STOP_SIGNALS, graceful_shutdown, interrupts_kept


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_only_ctrl_c_stops_at_once_after_another_signal(number: signal.Signals) -> None:
    with graceful_shutdown() as stop:
        signal.raise_signal(number)
        assert stop.is_set()
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_an_ignored_signal_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with graceful_shutdown() as stop:
            signal.raise_signal(number)
            assert not stop.is_set()
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def swallowing() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_that_a_library_swallows_ends_the_work_after_its_call() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        swallowing()
        done.append(1)
    assert done
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        swallowing()
        raise RuntimeError("half-done")
    with pytest.raises(RuntimeError, match="its own"), interrupts_kept():
        raise RuntimeError("its own")
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
