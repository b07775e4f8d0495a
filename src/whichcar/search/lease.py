"""Who runs a trial: a mark in the study that says which process does, and whether that one is still alive.

On the same machine the process table answers. From another machine nothing can be seen but the mark's beat, so a mark
that has not changed for a while is taken for dead. The time is the observer's own: clocks of machines differ.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OWNER = "owner"
BEAT_SECONDS = 20.0
STALE_SECONDS = 90.0


class Owner:
    """This process as an owner of trials."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        self._mark = {
            "token": self.token,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "began": _began(os.getpid()),
        }
        self._seen: dict[int, tuple[str, float]] = {}

    def mark(self) -> dict[str, Any]:
        """What is written to a trial; new at each beat."""
        return {**self._mark, "beat": time.time()}

    def owns(self, mark: Mapping[str, Any] | None) -> bool:
        """True when the mark is this process's."""
        return mark is not None and bool(mark["token"] == self.token)

    def is_free(self, trial: int, mark: Mapping[str, Any] | None) -> bool:
        """True when nobody runs this trial (any more).

        Args:
            trial: its number, by which the beat is remembered.
            mark: what stands at the trial; None where its owner gave it back.
        """
        if mark is None:
            return True
        if self.owns(mark):
            return False
        if mark["machine"] == self._mark["machine"]:
            return bool(_began(mark["pid"]) != mark["began"])
        now, shown = time.monotonic(), f"{mark['token']} {mark['beat']}"
        before, since = self._seen.get(trial, ("", now))
        if before != shown:
            self._seen[trial] = (shown, now)
            return False
        return now - since > STALE_SECONDS


def _machine() -> str:
    """Name this machine since its last start, and the process numbers' realm (a container has its own)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _began(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the machine did; None when it is not there or dead."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in brackets before may hold anything
    return None if fields[0] in "ZX" else int(fields[19])
