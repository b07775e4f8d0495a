"""Leases on trials: the study records which process runs a trial, so that others can tell whether it is still alive.

On the same machine the process table answers. From another machine only the heartbeat in the lease is visible, so a
lease expires if its heartbeat has not changed for a while. Its age is measured by the observer's own clock, since the
clocks of machines differ.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LEASE = "lease"
HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 90.0


class Lease:
    """The lease that this process writes to the trials it runs."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        self._identity = {
            "token": self.token,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started": _started_at(os.getpid()),
        }
        self._seen: dict[int, tuple[str, float]] = {}

    def record(self) -> dict[str, Any]:
        """Return the record to write to a trial, with a new heartbeat at every call."""
        return {**self._identity, "heartbeat": time.time()}

    def holds(self, record: Mapping[str, Any] | None) -> bool:
        """Return True if the record was written by this process."""
        return record is not None and bool(record["token"] == self.token)

    def is_free(self, trial: int, record: Mapping[str, Any] | None) -> bool:
        """Return True if no process runs this trial (any more).

        Args:
            trial: number of the trial, under which its last heartbeat is remembered.
            record: the lease written to the trial; None if its holder released it.
        """
        if record is None:
            return True
        if self.holds(record):
            return False
        if record["machine"] == self._identity["machine"]:
            return bool(_started_at(record["pid"]) != record["started"])
        now, heartbeat = time.monotonic(), f"{record['token']} {record['heartbeat']}"
        before, since = self._seen.get(trial, ("", now))
        if before != heartbeat:
            self._seen[trial] = (heartbeat, now)
            return False
        return now - since > STALE_SECONDS


def _machine() -> str:
    """Return an identifier of this machine's boot and its PID namespace (a container has its own)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _started_at(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if there is no such process or it is dead."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses before may contain anything
    return None if fields[0] in "ZX" else int(fields[19])
