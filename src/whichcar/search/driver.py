"""The search: starts trials within the budget, polls them, takes over trials of dead processes, writes the results."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.data.split.tree import check_outside
from whichcar.environment import expanded
from whichcar.errors import Interrupted, MissingExtraError, SweepError
from whichcar.files import locked
from whichcar.ray_cluster import check_address
from whichcar.search.launcher import Launcher, LocalLauncher, trains
from whichcar.search.lease import LEASE, Lease
from whichcar.search.live_table import LiveTable, Status
from whichcar.search.ray_launcher import WHICHCAR, RayDriver, Slots
from whichcar.search.results import Results
from whichcar.search.space import SweepSpec, combinations, read_spec
from whichcar.search.study import (
    SURPLUS,
    close_study,
    draw,
    new_trial,
    open_study,
    open_trial,
    running,
    storage_errors,
)
from whichcar.search.trial import Ended, RunningTrial, seconds_of, trial_folder
from whichcar.text import plural
from whichcar.training.run.signals import graceful_shutdown
from whichcar.training.weights import check_weights

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

SWEEP_LOCK = "lock"  # in the sweep's folder, shared by all processes on this disk
POLL_SECONDS = 0.1
SCAN_SECONDS = 2.0  # between two scans of the trials of other processes
STOP_SECONDS = 90.0  # for a trial to save its state
STOPPING = "stopping: running trials save their state; Ctrl-C again stops at once"
SAME_FAILURES = 3  # the search stops if this many first trials fail with the same error


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of a search.

    `counts` has the number of trials by outcome, `new` the number that ended in this call; `best`, `value` and `config`
    are the number, value and config of the best trial, None if no trial is complete. `exhausted` is true if a grid has
    no combination left.
    """

    folder: Path
    counts: dict[str, int]
    new: int
    metric: str
    best: int | None
    value: float | None
    config: Path | None
    report: Path | None
    exhausted: bool


def sweep(
    path: str | Path,
    overrides: Sequence[str] = (),
    storage: str | None = None,
    launcher: Launcher | None = None,
    limits: Mapping[str, Any] | None = None,
    ray: str | None = None,
) -> Swept:
    """Run the search described by a sweep file, or resume it if it was started before.

    Args:
        path: the sweep file; everything is written to a folder of the same name next to it.
        overrides: settings that override the base in all trials.
        storage: where the study is stored (default: `study.db` in that folder), see `open_study`.
        launcher: starts the trials (default: as processes on this machine).
        limits: values that replace the file's own, such as `{"budget.trials": 50}`.
        ray: address of a Ray cluster to run on, see `check_address`; `launcher` is then ignored.

    Raises:
        MissingExtraError: Optuna, plotly or Ray is needed and not installed.
        ConfigError, CheckpointError: the sweep file, or a value it may try, is invalid.
        DataError: the trials would lie among the classes of the images.
        SweepError: the study cannot be used, the disk is full, or the first trials all fail with the same error.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the next call resumes the running trials.
    """
    if importlib.util.find_spec("plotly") is None:
        raise MissingExtraError("plotly, which draws the charts,", "sweep")
    address = check_address(ray) if ray is not None else None
    spec = read_spec(path, overrides, limits)
    check_outside(spec.folder, expanded(spec.settings["data"]["directory"]))
    for weights in _weights(spec):
        check_weights(weights)
    with storage_errors(storage or str(spec.folder)):
        with locked(spec.folder / SWEEP_LOCK, wait=True):
            study = open_study(spec, storage)
            try:
                _refuse_other_trials(spec, len(study.get_trials(deepcopy=False)))
            except SweepError:
                close_study(study)
                raise
        results = Results(spec, study)
        live_table = LiveTable(spec)
        driver: Driver | RayDriver
        if address is None:
            driver = Driver(spec, study, launcher or LocalLauncher(), live_table, results)
        else:
            words = [*WHICHCAR, *command_words(path, overrides, storage, {**(limits or {}), "parallel": 1})]
            sqlite = not storage or storage.endswith(".db")
            slots = Slots(address, spec.sweep.parallel, spec.sweep.restarts, str(spec.folder), sqlite, words)
            driver = RayDriver(slots, results, live_table)
        try:
            try:
                with graceful_shutdown(STOPPING) as stop:
                    driver.run(stop)
            except BaseException:
                driver.kill()
                with contextlib.suppress(Exception):  # it would hide the error of the search
                    results.write_page(changed=driver.ended > 0)
                raise
            page = results.write_page(changed=driver.ended > 0)
            counts, best = results.counts(), results.best()
        finally:
            close_study(study)
    exhausted = spec.sweep.sampler.name == "grid" and sum(counts.values()) >= combinations(spec.space)
    return Swept(spec.folder, counts, driver.ended, spec.sweep.objective.metric, *best, page, exhausted)


def command_words(
    path: str | Path, overrides: Sequence[str], storage: str | None, limits: Mapping[str, Any]
) -> list[str]:
    """Return the arguments of `whichcar` that run this search."""
    options = [(f"--{name.rpartition('.')[2]}", str(value).removesuffix(".0")) for name, value in limits.items()]
    options += [("--storage", storage)] if storage else []
    options += [("--set", override) for override in overrides]
    return ["sweep", str(path), *(word for option in options for word in option)]


def _weights(spec: SweepSpec) -> list[Any]:
    """Return every value that `model.weights` has in a trial."""
    if varied := spec.space.get("model.weights"):
        return [varied.value_of(label) for label in varied.labels]
    return [(spec.settings.get("model") or {}).get("weights")]


class Driver:
    """Runs trials of a study in this process; several processes may share a study."""

    def __init__(
        self, spec: SweepSpec, study: optuna.Study, launcher: Launcher, live_table: LiveTable, results: Results
    ) -> None:
        self._spec, self._study, self._launcher = spec, study, launcher
        self._live_table, self._results = live_table, results
        self._lease = Lease()
        self._running: list[RunningTrial] = []
        self._failures: list[str] | None = []  # in this call; None once any trial has not failed
        self._scanned = -SCAN_SECONDS
        self.ended = 0

    def run(self, stop: threading.Event) -> None:
        """Run trials until the budget is spent and no process runs a trial, or a stop is requested."""
        with self._live_table:
            self._results.write_settings()
            self._results.write_table()
            while True:
                for trial in list(self._running):
                    if ended := trial.poll():
                        self._settle(trial, ended)
                if stop.is_set():
                    saved = "are saved" if self._stop() else "resume from what they saved last"
                    raise Interrupted(f"{self._spec.folder}: stopped; running trials {saved}")
                if not self._fill() and not self._running and not running(self._study):
                    self._results.settle()  # trials of other processes may have ended since
                    self._live_table.show(self._status(), last=True)
                    return
                self._live_table.show(self._status())
                stop.wait(POLL_SECONDS)

    def kill(self) -> None:
        """Kill and release running trials, as after an error; a later search of this process may then resume them."""
        for trial in self._running:
            trial.kill()
        for trial in self._running:
            with contextlib.suppress(Exception):  # the study may be what failed
                trial.release()

    def _fill(self) -> bool:
        """Start or take over a trial if a slot is free; False once there is nothing left to start."""
        if len(self._running) >= self._spec.sweep.parallel:
            return True
        now = time.monotonic()
        if now - self._scanned < SCAN_SECONDS:
            return True
        self._scanned = now
        with locked(self._spec.folder / SWEEP_LOCK, wait=True):
            trial = self._orphan() or self._next()
        if trial is None:
            return False
        slot = min(set(range(self._spec.sweep.parallel)) - {other.slot for other in self._running})
        started = RunningTrial(trial, draw(trial, self._spec), self._spec, self._lease, self._launcher, slot)
        self._running.append(started)
        if ended := started.start():
            self._settle(started, ended)
        self._scanned = -SCAN_SECONDS  # another slot may be free
        return True

    def _orphan(self) -> optuna.Trial | None:
        """Take over a trial whose process has died."""
        own = {trial.number for trial in self._running}
        for trial in running(self._study):
            if trial.number in own or not self._lease.is_free(trial.number, trial.user_attrs.get(LEASE)):
                continue
            if trains(trial_folder(self._spec, trial.number)):
                continue
            self._study._storage.set_trial_user_attr(trial._trial_id, LEASE, self._lease.record())
            return open_trial(self._study, self._spec, trial)
        return None

    def _next(self) -> optuna.Trial | None:
        """Start a new trial if the budget allows one."""
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        minutes = self._spec.sweep.budget.minutes
        if _counted(trials) >= self._spec.trials or (minutes and sum(map(seconds_of, trials)) >= 60 * minutes):
            return None
        _refuse_other_trials(self._spec, len(trials))
        trial = new_trial(self._study, self._spec, self._lease)
        if _counted(self._study.get_trials(deepcopy=False)[: trial.number]) >= self._spec.trials:
            # A process on another disk, which does not share the lock, was faster.
            trial.set_user_attr(SURPLUS, True)
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        return trial

    def _settle(self, trial: RunningTrial, ended: Ended) -> None:
        """Remove an ended trial from the running ones and update the results."""
        self._running.remove(trial)
        self._scanned = -SCAN_SECONDS
        if ended.outcome == "lost":
            self._live_table.say(f"trial {ended.number}: {ended.reason}")
            return
        self.ended += 1
        self._results.settle()
        self._live_table.ended(ended, trial.row(), self._status())
        if ended.outcome != "failed":
            self._failures = None
        elif self._failures is not None:
            self._failures.append(ended.reason)
            self._stop_if_hopeless(trial)

    def _stop_if_hopeless(self, trial: RunningTrial) -> None:
        failures = self._failures or []
        if len(failures) >= SAME_FAILURES and len({_shape(reason) for reason in failures}) == 1:
            last = failures[-1].strip().splitlines()[-1]
            is_grid = self._spec.sweep.sampler.name == "grid"  # which tries no combination twice
            again = "" if is_grid else "run the command again (failed trials count; raise --trials), or "
            raise SweepError(
                f"{self._spec.folder}: the first {plural(len(failures), 'trial')} failed with the same error: {last} "
                f"(details: {trial.folder / 'log.txt'}); fix it and {again}give the sweep another name to start over"
            )

    def _stop(self) -> bool:
        """Let running trials save their state, and release their leases; return whether all ended in time."""
        for trial in self._running:
            trial.ask_to_stop()
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until and not all(trial.has_stopped() for trial in self._running):
            time.sleep(POLL_SECONDS)
        ended = all(trial.has_stopped() for trial in self._running)
        for trial in self._running:
            trial.release()
        self._running.clear()
        return ended

    def _status(self) -> Status:
        return self._results.status([trial.row() for trial in self._running])


def _refuse_other_trials(spec: SweepSpec, number: int) -> None:
    """Raise if the folder of the next trial exists already: it belongs to another study."""
    folder = trial_folder(spec, number)
    if folder.exists():
        raise SweepError(
            f"{folder}: exists, but is not in the study; name its study with --storage, "
            f"or remove {spec.folder} to start over"
        )


def _counted(trials: Sequence[FrozenTrial]) -> int:
    return sum(SURPLUS not in trial.user_attrs for trial in trials)


def _shape(reason: str) -> str:
    """Return the reason without numbers, which differ between trials."""
    return re.sub(r"\d[\d.e+-]*", "#", reason)
