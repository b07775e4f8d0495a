"""Supervision of a running trial: reports its epochs, prunes it, and restarts its process if it was killed."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from whichcar.config.section import shown
from whichcar.errors import ConfigError, SweepError
from whichcar.files import BEST, CONFIG, DISK_FULL, HISTORY, STATE, read_json, write_text
from whichcar.search.launcher import LOG, Launcher, Process, how_it_ended, killed_from_outside
from whichcar.search.lease import HEARTBEAT_SECONDS, LEASE, Lease
from whichcar.search.live_table import Row
from whichcar.search.space import SweepSpec
from whichcar.search.study import latest
from whichcar.text import one_line, plural, shell_command
from whichcar.training.run.history import Epoch, read_history

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

Outcome = Literal["complete", "pruned", "failed", "running", "lost"]
OUTCOMES: dict[str, Outcome] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "running",
}  # by the name of Optuna's state
REASON, SECONDS, EPOCHS, KILLS, PRUNED = "reason", "seconds", "epochs", "kills", "pruned_at"
_LAST_LINES = 5


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended: `value` of a complete trial, `reason` of a failed one."""

    number: int
    outcome: Outcome
    value: float | None = None
    reason: str = ""


def seconds_of(trial: FrozenTrial) -> float:
    """Return the run time of a trial, summed over all processes that ran it."""
    return float(trial.user_attrs.get(SECONDS, 0.0))


def trial_folder(spec: SweepSpec, number: int) -> Path:
    """Return the experiment folder of a trial."""
    return spec.folder / f"trial_{number:04d}"


class RunningTrial:
    """A trial that this process runs, from its start or takeover to its end."""

    def __init__(
        self, trial: optuna.Trial, values: dict[str, Any], spec: SweepSpec, lease: Lease, launcher: Launcher, slot: int
    ) -> None:
        self.number, self.values, self.slot = trial.number, values, slot
        self.folder = trial_folder(spec, trial.number)
        self.config = self.folder / CONFIG
        self._trial, self._spec, self._lease, self._launcher = trial, spec, lease, launcher
        attributes = trial.user_attrs
        self._kills, self._before = int(attributes.get(KILLS, 0)), float(attributes.get(SECONDS, 0.0))
        self._pruned = PRUNED in attributes
        self._history: tuple[Epoch, ...] = ()
        self._read: tuple[int, int] | None = None
        self._reported = self._already_reported()
        self._started = self._renewed = time.monotonic()
        self._process: Process | None = None
        self.epochs = 0

    @property
    def seconds(self) -> float:
        """Run time of the trial, summed over all processes that ran it."""
        return self._before + time.monotonic() - self._started

    def row(self) -> Row:
        """Return what the live table shows."""
        last = self._history[-1] if self._history else None
        value = getattr(last, self._spec.sweep.objective.metric) if last else None
        return Row(self.number, last.epoch if last else 0, self.epochs, value, self.seconds, self.values)

    def start(self) -> Ended | None:
        """Write config.yml and start the process; return the outcome at once if there is nothing to run."""
        if self._pruned:
            return self._end("pruned")
        try:
            self.epochs = self._spec.experiment_of(self.values).fit.last_epoch
        except ConfigError as error:
            return self._end("failed", reason=str(error))
        if not self.config.exists():
            write_text(self.config, self._head() + yaml.safe_dump(self._spec.settings_of(self.values), sort_keys=False))
        self._launch()
        return None

    def poll(self) -> Ended | None:
        """Report new epochs; return the outcome once the trial has ended.

        Raises:
            SweepError: it ended because the disk is full; it can be resumed.
        """
        assert self._process is not None  # noqa: S101  (started)
        # First, since after a pause of this process another may own the trial, and then nothing may be written to it.
        if time.monotonic() - self._renewed > HEARTBEAT_SECONDS and not self._renew_lease():
            self.kill()
            return self._lost()
        status = self._process.poll()
        if status is not None:
            return self._ended(status)
        if self._report():
            self._trial.set_user_attr(PRUNED, self._history[-1].epoch)
            self.kill()
            return self._end("pruned")
        return None

    def ask_to_stop(self) -> None:
        """Ask the process to save its state and end."""
        if self._process is not None:
            self._process.terminate()

    def has_stopped(self) -> bool:
        """Return True once the process has ended."""
        return self._process is None or self._process.poll() is not None

    def release(self) -> None:
        """End the process and release the lease if it is still held, so that any process may resume the trial."""
        self.kill()
        if self._renew_lease():
            self._trial.set_user_attr(LEASE, None)

    def kill(self) -> None:
        """End the process at once and wait until it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _launch(self) -> None:
        log = self.folder / LOG
        self._log_start = log.stat().st_size if log.exists() else 0
        self._process = self._launcher.launch(self.config, self.slot, self._spec.sweep.parallel)

    def _head(self) -> str:
        values = "".join(f"#   {name}: {shown(value)}\n" for name, value in self.values.items())
        command = shell_command(["whichcar", "train", self.config])
        return f"# Trial {self.number} of {one_line(self._spec.path)}; to train it alone: {command}\n{values}"

    def _already_reported(self) -> int:
        return max(latest(self._trial).intermediate_values, default=0)

    def _report(self) -> bool:
        """Report new epochs to the study; return True if it prunes the trial."""
        path = self.folder / HISTORY
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        if self._read == (status.st_mtime_ns, status.st_ino):
            return False
        self._read = (status.st_mtime_ns, status.st_ino)
        self._history = read_history(path)
        metric = self._spec.sweep.objective.metric
        for epoch in self._history:
            if epoch.epoch > self._reported:
                self._trial.report(getattr(epoch, metric), epoch.epoch)
                self._reported = epoch.epoch
        done = self._history[-1].epoch if self._history else 0
        # After its last epoch, pruning a trial saves nothing.
        return 0 < done < self.epochs and done >= self._reported and self._trial.should_prune()

    def _value(self) -> float:
        """Return the objective's value; a validation metric is that of the kept checkpoint at its prediction size."""
        objective = self._spec.sweep.objective
        if objective.metric.startswith("val_"):
            return float(read_json(self.folder / BEST)[objective.metric])
        return objective.of([getattr(epoch, objective.metric) for epoch in self._history])

    def _ended(self, status: int) -> Ended | None:
        self._report()
        if status == 0:
            if not self._history:
                return self._end("failed", reason="no epoch was completed")
            value = self._value()
            if not math.isfinite(value):
                return self._end("failed", reason=f"{self._spec.sweep.objective.metric} is {value}")
            return self._end("complete", value)
        if not killed_from_outside(status):
            reason = self._last_lines() or how_it_ended(status)
            if DISK_FULL in reason:  # says nothing about the values; the trial resumes from its saved state
                raise SweepError(f"{self.folder}: {DISK_FULL}; make room and run the command again")
            return self._end("failed", reason=reason)
        self._kills += 1
        self._trial.set_user_attr(KILLS, self._kills)
        if self._kills > self._spec.sweep.restarts:
            return self._end("failed", reason=f"killed {plural(self._kills, 'time')}, last: {how_it_ended(status)}")
        self._launch()
        return None

    def _end(
        self, outcome: Literal["complete", "pruned", "failed"], value: float | None = None, reason: str = ""
    ) -> Ended:
        from optuna.trial import TrialState

        trial = self._trial
        if not self._renew_lease():
            return self._lost()
        trial.set_user_attr(EPOCHS, self._reported)
        if reason:
            trial.set_user_attr(REASON, reason)
        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[outcome]
        trial.study.tell(trial, value, state)
        tidy(self.folder)
        return Ended(self.number, outcome, value, reason)

    def _lost(self) -> Ended:
        return Ended(self.number, "lost", reason="another process took it over")

    def _renew_lease(self) -> bool:
        """Renew the lease; return False if another process has taken over the trial or it has ended."""
        self._renewed = time.monotonic()
        current = latest(self._trial)
        if current.state.is_finished() or not self._lease.holds(current.user_attrs.get(LEASE)):
            return False
        self._trial.set_user_attr(LEASE, self._lease.record())
        self._trial.set_user_attr(SECONDS, self.seconds)
        return True

    def _last_lines(self) -> str:
        """Return the last lines of the log since the last start; only the error if whichcar reported one."""
        log = self.folder / LOG
        with log.open("rb") as file:
            file.seek(max(self._log_start, log.stat().st_size - 20_000))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        first = next((number for number, line in enumerate(lines) if line.startswith("error: ")), None)
        if first is not None:
            return "\n".join(lines[first:]).removeprefix("error: ")
        return "\n".join(lines[-_LAST_LINES:])


def tidy(folder: Path) -> None:
    """Remove what an ended trial no longer needs: the saved state, which is large, and half-written files."""
    (folder / STATE).unlink(missing_ok=True)
    for path in (*folder.glob(".*"), *(folder / STATE).parent.glob(".*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
