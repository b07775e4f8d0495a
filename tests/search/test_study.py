from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from whichcar.errors import MissingExtraError
from whichcar.search.driver import Driver
from whichcar.search.lease import LEASE, Lease
from whichcar.search.space import read_spec
from whichcar.search.study import close_study, make_pruner, make_sampler, new_trial, open_study
from whichcar.search.sweep_file import Pruner, Sampler

from .conftest import Sweeps


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("none", "median", "successive_halving")] + ["hyperband"],
)
def test_every_pruner_runs(sweeps: Sweeps, name: str) -> None:
    sweeps.write_base(seconds=0.01)
    sweeps.write(pruner={"name": name, "startup_trials": 1}, budget={"trials": 4}, sampler={"name": "random"})
    counts = sweeps.run().counts
    assert sum(counts.values()) == 4
    assert counts["complete"] >= 1
    assert set(counts) <= {"complete", "pruned"}


def test_successive_halving_keeps_one_in_n_trials() -> None:
    """Of nine trials at the first rung the best third may pass (Li et al. 2020); the first passes unseen."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner(Pruner(name="successive_halving"), 9))
    passed = 0
    for value in range(9):
        trial = study.ask()
        trial.report(9 - value, 1)  # each worse than all before
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            passed += 1
            study.tell(trial, 9 - value)
    assert passed == 1  # the first; all after it are below the best third of those before


def test_seed_and_trial_number_determine_the_sampled_values() -> None:
    def drawn(number: int, seed: int = 1) -> float:
        study = optuna.create_study(sampler=make_sampler(Sampler(seed=seed), number))
        return study.ask().suggest_float("x", 0, 1)

    assert drawn(3) == drawn(3)
    assert len({drawn(3), drawn(4), drawn(3, seed=2)}) == 3


@pytest.mark.slow
def test_a_trial_whose_driver_died_while_sampling_keeps_its_first_value(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_spec(sweeps.file)
    study, dead = open_study(spec), Lease()
    dead._identity["pid"], dead._identity["started"] = 2**22 + 1, 1  # no such process
    with monkeypatch.context() as patch:
        patch.setattr("whichcar.search.study.draw", lambda trial, _: trial.suggest_float("model.dropout_rate", 0, 0.5))
        first = new_trial(study, spec, dead)
    value = first.params["model.dropout_rate"]
    assert sweeps.run().counts == {"complete": 3}
    assert float(sweeps.rows[0]["model.dropout_rate"]) == value
    assert sweeps.rows[0]["data.batch_size"] in ("16", "32")


@pytest.mark.slow
def test_a_surplus_trial_started_on_another_disk_does_not_count(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps.write_base(seconds=0.01)
    begun: list[int] = []
    next_trial = Driver._next

    def too_late(self: Driver) -> optuna.Trial | None:
        """Another machine begins the last trial between our look at the budget and our trial."""
        if len(self._study.trials) == 2 and not begun:
            far = Lease()
            far._identity["machine"] = "far away"

            def first_far(study: optuna.Study, *arguments: object) -> optuna.Trial:
                begun.append(new_trial(study, self._spec, far).number)
                return new_trial(study, self._spec, self._lease)

            with monkeypatch.context() as patch:
                patch.setattr("whichcar.search.driver.new_trial", first_far)
                surplus = next_trial(self)
            assert surplus is None
            self._study.tell(begun[0], 0.1)
            return None
        return next_trial(self)

    monkeypatch.setattr(Driver, "_next", too_late)
    assert sweeps.run().counts == {"complete": 3}
    assert [row["trial"] for row in sweeps.rows] == ["0", "1", "2"]
    assert len(open_study(read_spec(sweeps.file)).trials) == 4
    sweeps.write(budget={"trials": 4})
    assert sweeps.run().counts == {"complete": 4}
    assert [row["trial"] for row in sweeps.rows] == ["0", "1", "2", "4"]


def test_without_optuna_the_error_has_the_install_command(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"optuna is not installed; .*pip install .*\[sweep\]"):
        sweeps.run()


def test_a_new_trial_carries_a_lease_at_once(sweeps: Sweeps) -> None:
    spec, lease = read_spec(sweeps.file), Lease()
    study = open_study(spec)
    trial = new_trial(study, spec, lease)
    assert lease.holds(trial.user_attrs[LEASE])
    assert trial.number == 0


def test_the_journal_of_a_driver_killed_while_it_wrote_is_taken_over(
    sweeps: Sweeps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_spec(sweeps.file)
    monkeypatch.chdir(tmp_path)
    Path("shared").mkdir()
    open_study(spec, "shared/study.journal")._storage._backend._lock.acquire()  # type: ignore[attr-defined]
    seconds = iter(range(0, 1000, 10))
    clock = SimpleNamespace(monotonic=seconds.__next__, sleep=lambda _: None)
    monkeypatch.setattr("optuna.storages.journal._file.time", clock)
    assert open_study(spec, "shared/study.journal").study_name == spec.name


@pytest.mark.parametrize("name", ["a?b#c%20d", "a b'\"$x", "a\nb", "{x}"])
def test_the_path_of_a_study_may_contain_any_characters(sweeps: Sweeps, tmp_path: Path, name: str) -> None:
    spec, path = read_spec(sweeps.file), tmp_path / name / "study.db"
    path.parent.mkdir()
    close_study(open_study(spec, str(path)))
    assert path.stat().st_size > 0
    assert [entry.name for entry in path.parent.iterdir()] == ["study.db"]
