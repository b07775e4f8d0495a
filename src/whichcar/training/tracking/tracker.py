"""Experiment tracking for those who have it: what a run leaves in its folder also goes to a service of theirs.

All that is sent is read from what the folder holds, and a service is asked what it has: so nothing has to be kept in
memory while it is down, and a later call sends whatever is missing.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from whichcar.errors import ConfigError, Interrupted, TrackingError, WhichcarError
from whichcar.files import HISTORY, RESOLVED
from whichcar.text import without_password
from whichcar.training.run.folder import Ending
from whichcar.training.run.history import Epoch, read_history
from whichcar.training.tracking.mlflow import Mlflow

log = logging.getLogger(__name__)
# While a service is down it may cost a twentieth of the time, and is not asked more often than once a minute.
PAUSE_SECONDS, SHARE = 60.0, 20


class Service(Protocol):
    """One experiment's run in a tracking service. Every method may raise whatever the service's package does."""

    def check(self, new_run: bool) -> None:
        """Reach the service, and find the run if there is one and it is not to be a new one."""

    def is_down(self, error: Exception) -> bool:
        """True when `error` says that the service cannot be reached now, not that something is set wrongly."""

    def begin(self) -> None:
        """Begin the run with its settings, or take it up again."""

    def log_epochs(self, history: Sequence[Epoch]) -> None:
        """Log those of these epochs that the run does not have; begins it where `begin` has failed."""

    def end(self, status: Ending) -> None:
        """Log the folder's files and close the run."""

    def log_result(self, result: Mapping[str, Any], folder: Path) -> None:
        """Log the content of a result.json and the files next to it; a run that was begun for this is closed."""


SERVICES: Mapping[str, Callable[[Path], Service]] = {"mlflow": Mlflow}


class Tracking:
    """Hands everything to a service, and never lets it disturb the work: what it raises is told once, as a warning."""

    def __init__(self, service: Service | None) -> None:
        """Take the service, or None where nothing is tracked."""
        self._service = service
        self._warned = False
        self._not_before = 0.0

    @contextlib.contextmanager
    def training(self, folder: Path) -> Iterator[None]:
        """Close the service's run when the block ends, after sending what it missed of the epochs in `folder`."""
        status: Ending = "failed"
        try:
            yield
            status = "finished"
        except (Interrupted, KeyboardInterrupt):
            status = "stopped"
            raise
        finally:
            if (folder / RESOLVED).is_file():
                self._last(lambda service: _end(service, folder, status))

    def begin(self, history: Sequence[Epoch]) -> None:
        """Begin the service's run, or take it up again after these epochs."""
        if time.monotonic() >= self._not_before and self._attempt(lambda service: service.begin()):
            self.epochs(history)

    def epochs(self, history: Sequence[Epoch]) -> None:
        """Log the epochs so far, unless the service has just been found to be down."""
        if time.monotonic() >= self._not_before:
            self._attempt(lambda service: service.log_epochs(history))

    def result(self, result: Mapping[str, Any], folder: Path) -> None:
        """Log an evaluation, with the epochs that the service does not have yet.

        Args:
            result: the content of result.json.
            folder: where it lies, with predictions.csv, report.html and plots.
        """
        self._last(lambda service: service.log_result(result, folder))

    def _last(self, send: Callable[[Service], None]) -> None:
        if not self._attempt(send):
            log.warning("tracking: not all has been logged; the same command logs what is missing")

    def _attempt(self, send: Callable[[Service], None]) -> bool:
        if self._service is None:
            return True
        began = time.monotonic()
        try:
            send(self._service)
        except Exception as error:  # whatever it is, hours of training must not end with it
            self.failed(error, time.monotonic() - began)
            return False
        return True

    def failed(self, error: Exception, seconds: float) -> None:
        """Warn, the first time, that the service has failed, and leave it alone for a while.

        Args:
            error: what it raised.
            seconds: how long that took.
        """
        if not self._warned:
            log.warning("tracking: %s; going on, and trying again later", first_line(error))
        self._warned = True
        self._not_before = time.monotonic() + max(PAUSE_SECONDS, SHARE * seconds)


def tracking_of(name: str | None, folder: Path, new_run: bool = False) -> Tracking:
    """Return the tracking of an experiment's folder by a service, which is reached first.

    Args:
        name: a key of `SERVICES`, or None for none.
        folder: the experiment's; the service's own name of the run is kept there.
        new_run: the run that is known there is about to be overwritten.

    Raises:
        ConfigError: there is no such service.
        MissingExtraError: its package is not installed.
        DataError: the file that names the run is damaged.
        TrackingError: it refuses, or does not know the run. One that is down is waited for instead.
    """
    if name is None:
        return Tracking(None)
    if name not in SERVICES:
        raise ConfigError(f"--track: there is no `{name}`; known: {', '.join(sorted(SERVICES))}")
    service = SERVICES[name](folder)
    tracking = Tracking(service)
    began = time.monotonic()
    try:
        service.check(new_run)
    except WhichcarError:
        raise
    except Exception as error:
        if not service.is_down(error):
            raise TrackingError(f"--track {name}: {first_line(error)}; fix its address or its settings") from error
        tracking.failed(error, time.monotonic() - began)
    return tracking


def first_line(error: Exception) -> str:
    """Return what an error says in one line, without a password in an address and without a full stop."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return without_password(lines[0]).strip().rstrip(".")


def _end(service: Service, folder: Path, status: Ending) -> None:
    history = read_history(folder / HISTORY) if (folder / HISTORY).is_file() else ()
    service.log_epochs(history)
    service.end(status)
