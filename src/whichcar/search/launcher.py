"""Trials as processes: starting, polling and stopping them, behind a protocol."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from whichcar.files import LOCK, locked
from whichcar.search import die_with_parent

LOG = "log.txt"
# Signals from outside: from a user, a machine that shuts down, or the kernel when memory runs out.
FROM_OUTSIDE = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
INTERRUPTED = 130  # exit status of `whichcar train` after it saved its state, if SIGINT is blocked, as by Ray
QUIET = {"WHICHCAR_QUIET": "1", "PYTHONUNBUFFERED": "1"}  # added to a trial's environment: no progress bars in its log

Command = Callable[[Path], Sequence[str]]


class Process(Protocol):
    """A started trial, such as a `subprocess.Popen`."""

    def poll(self) -> int | None:
        """Return the exit status once it has ended (negative: the signal that ended it), else None."""

    def terminate(self) -> None:
        """Ask it to save its state and end."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self) -> int:
        """Wait until it has ended and return its exit status."""


class Launcher(Protocol):
    """Starts trials."""

    def launch(self, config: Path, slot: int, slots: int) -> Process:
        """Start the trial of this config.yml.

        Args:
            slot: 0 ... slots - 1; trials that run at the same time have different ones.
        """


def train_command(config: Path) -> list[str]:
    """Return the command of a trial: an ordinary training, resumed if it was started before."""
    return [sys.executable, "-m", "whichcar", "train", str(config), "--resume"]


def tied_command(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """Return the command wrapped so that it runs on these processors and dies with the thread that starts it."""
    return [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), ",".join(map(str, cores)), *command]


def start(
    command: Sequence[str],
    cores: Sequence[int],
    log: IO[bytes],
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a `tied_command` that writes to `log`, in its own session, since a Ctrl-C is meant for this process."""
    tied, null = tied_command(command, cores), subprocess.DEVNULL
    return subprocess.Popen(
        tied, stdin=null, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=cwd, start_new_session=True
    )


def gpu_limits(share: float) -> dict[str, str]:
    """Return the environment of a trial with this share of a GPU; else the first one takes most of the memory."""
    limits = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" in os.environ:  # the deprecated name; JAX refuses both together
        return limits
    return limits | {"XLA_CLIENT_MEM_FRACTION": f"{0.9 * share:.2f}"}


class LocalLauncher:
    """Starts trials on this machine, each with its share of processors and GPU memory; they die with this process."""

    def __init__(self, command: Command = train_command) -> None:
        self._command = command

    def launch(self, config: Path, slot: int, slots: int) -> Process:
        """Start a process."""
        cores = sorted(os.sched_getaffinity(0))
        share = cores[slot::slots] or cores
        with (config.parent / LOG).open("ab") as log:
            limits = gpu_limits(1 / slots) if slots > 1 else {}
            return start(self._command(config), share, log, {**limits, **os.environ, **QUIET})


def trains(folder: Path) -> bool:
    """Return True if a process holds the folder's lock, as `whichcar train` does."""
    lock = folder / LOCK
    if not lock.exists():
        return False
    try:
        with locked(lock):
            return False
    except BlockingIOError:
        return True


def killed_from_outside(status: int) -> bool:
    """Return True if the trial was killed; a crash (such as a segmentation fault) counts as a failure."""
    return status == INTERRUPTED or -status in FROM_OUTSIDE


def how_it_ended(status: int) -> str:
    """Return the exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"{name} (often sent by the kernel when memory runs out)" if -status == signal.SIGKILL else name
