"""The results of a search: trials.csv, the best settings, report.html; checkpoints of other trials are deleted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from whichcar.files import CONFIG, RESOLVED, SWEEP, TRIALS, write_csv, write_json, write_text
from whichcar.search.live_table import Row, Status
from whichcar.search.page import PAGE, write_page
from whichcar.search.space import SweepSpec
from whichcar.search.study import SURPLUS
from whichcar.search.sweep_file import Parameter
from whichcar.search.trial import EPOCHS, KILLS, OUTCOMES, REASON, Ended, seconds_of, trial_folder
from whichcar.text import command_line, one_line, plural, shell_command
from whichcar.training.run.folder import versions

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

COLUMNS = ("trial", "outcome", "value", "epochs", "seconds", "kills", "started", "reason")
FRESH_SECONDS = 1.0


class Results:
    """The current trials of a study, and the files written from them."""

    def __init__(self, spec: SweepSpec, study: optuna.Study) -> None:
        self._spec, self._study = spec, study
        self._trials: list[FrozenTrial] = []
        self._read = -FRESH_SECONDS

    def trials(self) -> list[FrozenTrial]:
        """Return the trials that count, at most a second old."""
        if time.monotonic() - self._read >= FRESH_SECONDS:
            trials = self._study.get_trials(deepcopy=False)
            self._trials = [trial for trial in trials if SURPLUS not in trial.user_attrs]
            self._read = time.monotonic()
        return self._trials

    def counts(self) -> dict[str, int]:
        """Return the number of trials that are `complete`, `pruned`, `failed` and `running`."""
        return dict(Counter(OUTCOMES[trial.state.name] for trial in self.trials()))

    def ranked(self) -> list[FrozenTrial]:
        """Return the complete trials, best first; ties by number."""
        complete = [trial for trial in self.trials() if trial.value is not None and trial.state.name == "COMPLETE"]
        sign = -1 if self._spec.sweep.objective.maximize else 1
        return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    def best(self) -> tuple[int | None, float | None, Path | None]:
        """Return number, value and config of the best trial; None if no trial is complete."""
        ranked = self.ranked()
        if not ranked:
            return None, None, None
        return ranked[0].number, ranked[0].value, self._config_of(ranked[0])

    def mean_seconds(self) -> float | None:
        """Return the mean run time of the ended trials."""
        ended = [trial for trial in self.trials() if trial.state.is_finished()]
        return sum(seconds_of(trial) for trial in ended) / len(ended) if ended else None

    def status(self, rows: Sequence[Row]) -> Status:
        """Return the state of the whole search for the live table; `rows` are the trials that it shows as running."""
        number, value = next(((trial.number, trial.value) for trial in self.ranked()), (None, None))
        return Status(Counter(self.counts()), self._spec.trials, number, value, tuple(rows), self.mean_seconds())

    def running(self) -> list[Row]:
        """Return the running trials of all processes that share the study."""
        return [self._row(trial) for trial in self.trials() if not trial.state.is_finished()]

    def ended(self) -> list[tuple[Ended, Row]]:
        """Return how each ended trial ended."""
        return [(_ended(trial), self._row(trial)) for trial in self.trials() if trial.state.is_finished()]

    def _row(self, trial: FrozenTrial) -> Row:
        epoch = max(trial.intermediate_values, default=0)
        value = trial.intermediate_values.get(epoch)
        return Row(trial.number, epoch, self._spec.epochs, value, seconds_of(trial), trial.params)

    def write_settings(self) -> None:
        """Write sweep.json: what a comparison of searches shows besides the trials."""
        sweep = self._spec.sweep
        about = {
            "command": command_line(),
            "metric": sweep.objective.metric,
            "maximize": sweep.objective.maximize,
            "sampler": sweep.sampler.name,
            "pruner": sweep.pruner.name,
            "versions": versions(),
        }
        write_json(self._spec.folder / SWEEP, about)

    def settle(self) -> None:
        """Update the files after a trial has ended."""
        self._read = -FRESH_SECONDS
        self.write_table()
        self._write_best()
        self._delete_checkpoints()

    def write_table(self) -> None:
        """Write trials.csv: one row per trial, with all its values."""
        space = self._spec.space
        rows = ([*_cells(trial), *(_cell(trial, *one) for one in space.items())] for trial in self.trials())
        write_csv(self._spec.folder / TRIALS, [*COLUMNS, *space], rows)

    def write_page(self, changed: bool) -> Path | None:
        """Write report.html if changed, missing or older than a trial; return its path, None if no trial has ended."""
        self._read = -FRESH_SECONDS
        page = self._spec.folder / PAGE
        ended = [trial.datetime_complete.timestamp() for trial in self.trials() if trial.datetime_complete]
        if not changed and page.exists() and page.stat().st_mtime >= max(ended, default=0):
            return page
        if not ended:
            return None
        self.write_table()
        return write_page(self._spec, self._study, self.trials(), self.ranked(), self.best()[2])

    def _write_best(self) -> None:
        if not (ranked := self.ranked()):
            return
        best, config = ranked[0], self._config_of(ranked[0])
        if (config.parent / RESOLVED).exists():  # it was trained, so its config is kept
            return
        head = (
            f"# The best of {plural(len(self.trials()), 'trial')} of {one_line(self._spec.path)}: {self._title(best)}\n"
            f"# Command:  {shell_command(['whichcar', 'train', config])}\n"
        )
        content = head + yaml.safe_dump(self._spec.settings_of(best.params), sort_keys=False)
        if not config.exists() or config.read_text(encoding="utf-8") != content:
            write_text(config, content)

    def _config_of(self, best: FrozenTrial) -> Path:
        """Return best/config.yml, or that of a folder named after the trial if another one was trained in best/."""
        config = self._spec.folder / "best" / CONFIG
        is_trained = (config.parent / RESOLVED).exists()
        if is_trained and not (config.exists() and self._title(best) in config.read_text(encoding="utf-8")):
            return self._spec.folder / f"best_{best.number:04d}" / CONFIG
        return config

    def _title(self, best: FrozenTrial) -> str:
        return f"trial {best.number}, {self._spec.sweep.objective.metric} {best.value:.4f}."

    def _delete_checkpoints(self) -> None:
        """Delete the checkpoints of all trials but the best `keep`."""
        keep = self._spec.sweep.keep
        if keep is None:
            return
        trials = self.trials()  # read before the ranking, so that a trial that completes in between is kept
        kept = {trial.number for trial in self.ranked()[:keep]}
        for trial in trials:
            if trial.state.is_finished() and trial.number not in kept:
                folder = trial_folder(self._spec, trial.number)
                for checkpoint in (*folder.glob("*.h5"), *folder.glob("*.keras")):
                    checkpoint.unlink(missing_ok=True)


def _cells(trial: FrozenTrial) -> list[Any]:
    """Return the cells of `COLUMNS`."""
    attributes, started = trial.user_attrs, trial.datetime_start
    return [
        trial.number,
        OUTCOMES[trial.state.name],
        "" if trial.value is None else f"{trial.value:.6g}",
        attributes.get(EPOCHS, ""),
        f"{seconds_of(trial):.1f}",
        attributes.get(KILLS, 0),
        started.isoformat(timespec="seconds") if started else "",
        " ".join(attributes.get(REASON, "").split()),
    ]


def _cell(trial: FrozenTrial, name: str, parameter: Parameter) -> Any:  # noqa: ANN401
    """Return the value, empty if the parameter was not active."""
    if name not in trial.params:
        return ""
    return "null" if trial.params[name] is None else parameter.plain(trial.params[name])


def _ended(trial: FrozenTrial) -> Ended:
    return Ended(trial.number, OUTCOMES[trial.state.name], trial.value, trial.user_attrs.get(REASON, ""))
