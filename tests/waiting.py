"""Waiting for another thread or process, and letting a process wait."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def until(condition: Callable[[], Result], seconds: float = 60.0) -> Result:
    """Wait until something is true (or not empty) and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {condition}")


def stop(pid: int) -> None:
    """Stop a process until it gets SIGCONT, and wait for its threads, which may work on for a while."""

    def stands(thread: Path) -> bool:
        try:
            return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:  # it has ended
            return True

    os.kill(pid, signal.SIGSTOP)
    until(lambda: all(stands(thread) for thread in Path(f"/proc/{pid}/task").iterdir()))
