from __future__ import annotations

import html.parser
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from whichcar.cli.sweep import render_swept
from whichcar.config.load import read_experiment
from whichcar.errors import CheckpointError, ConfigError, DataError, Interrupted, MissingExtraError, SweepError
from whichcar.search import driver, lease
from whichcar.search.driver import Swept
from whichcar.search.lease import LEASE, Lease
from whichcar.search.space import read_spec
from whichcar.search.study import close_study, new_trial, open_study

from ..waiting import until
from .conftest import Sweeps, trial_processes


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Swept]:
    """A search of three trials that is finished, in a folder that is not to be written to."""
    folder = tmp_path_factory.mktemp("searched")
    return folder, Sweeps(folder).run()


@pytest.fixture(autouse=True)
def _few_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the plots, which take longer than the trials, to the tests of the page and to the page of `searched`."""
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr("whichcar.search.page._plots", lambda *_: ())


@pytest.fixture
def finished(searched: tuple[Path, Swept], sweeps: Sweeps) -> Sweeps:
    """That search, in a folder of the test's own."""
    shutil.copytree(searched[0], sweeps.file.parent, dirs_exist_ok=True)
    return sweeps


def test_every_trial_is_an_experiment_folder_and_a_row(searched: tuple[Path, Swept], finished: Sweeps) -> None:
    sweeps, swept = finished, searched[1]
    assert swept.counts == {"complete": 3}
    assert [row["trial"] for row in sweeps.rows] == ["0", "1", "2"]
    for row in sweeps.rows:
        folder = sweeps.folder / f"trial_{int(row['trial']):04d}"
        experiment = read_experiment(folder / "config.yml")
        assert experiment.model.dropout_rate == pytest.approx(float(row["model.dropout_rate"]))
        assert experiment.data.batch_size == int(row["data.batch_size"])
        assert float(row["value"]) == pytest.approx(0.75 * (1 - experiment.model.dropout_rate), rel=1e-4)
        assert row["epochs"] == "3"


def test_the_best_settings_are_written_ready_for_training(searched: tuple[Path, Swept], finished: Sweeps) -> None:
    folder, swept = searched
    best = max(finished.rows, key=lambda row: float(row["value"]))
    assert (swept.best, swept.config) == (int(best["trial"]), folder / "few" / "best" / "config.yml")
    rate = read_experiment(finished.folder / "best" / "config.yml").model.dropout_rate
    assert rate == pytest.approx(float(best["model.dropout_rate"]))


def test_settings_already_trained_under_best_are_not_overwritten(sweeps: Sweeps) -> None:
    (sweeps.folder / "best").mkdir(parents=True)
    (sweeps.folder / "best" / "config.yml").write_text("trained\n")
    (sweeps.folder / "best" / "resolved.json").write_text("{}")
    sweeps.write(budget={"trials": 1})
    swept = sweeps.run()
    assert (sweeps.folder / "best" / "config.yml").read_text() == "trained\n"
    assert swept.config == sweeps.folder / "best_0000" / "config.yml" and swept.config.exists()
    assert swept.report is not None and f"whichcar train {swept.config}" in swept.report.read_text()


def test_best_settings_that_were_trained_stay_under_best(finished: Sweeps) -> None:
    (finished.folder / "best" / "resolved.json").write_text("{}")
    assert finished.run().config == finished.folder / "best" / "config.yml"


@pytest.mark.slow
def test_the_page_has_all_plots_and_needs_no_network(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.01)
    sweeps.write(budget={"trials": 5})
    page = sweeps.run().report
    assert page is not None
    text = page.read_text()
    for title in ("History", "Epochs", "Importance", "Slices", "Parallel coordinates"):
        assert f"<h2>{title}</h2>" in text
    assert text.count("Plotly.newPlot(") >= 5
    figures = text.partition("<h2>History")[2]
    assert '"plot_bgcolor":"white"' not in figures and "rgb(8,48,107)" not in figures  # Optuna's, unseen in the dark
    assert '"ticktext":["val_accuracy","batch_size","dropout_rate"]' in text
    assert "Intermediate Value" not in text and "Best Value" not in text
    assert "prefers-color-scheme: dark" in text and "default-src 'none'" in text  # the look and the guard of all pages
    sources: list[str] = []

    class Finder(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            sources.extend(value or "" for name, value in attrs if name in ("src", "href"))

    Finder().feed(text)
    assert sources == []


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_the_first_trial_has_the_values_of_the_base(sweeps: Sweeps, name: str) -> None:
    sweeps.write_base(seconds=0.01)
    sweeps.write(sampler={"name": name})
    sweeps.run()
    own, *others = [(float(row["model.dropout_rate"]), row["data.batch_size"]) for row in sweeps.rows]
    assert own == (0.0, "32")
    assert own not in others


def test_the_first_trial_is_sampled_when_base_first_is_off(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.01)
    sweeps.write(sampler={"base_first": False}, budget={"trials": 1})
    sweeps.run()
    assert float(sweeps.rows[0]["model.dropout_rate"]) > 0


@pytest.mark.slow
def test_stepped_values_have_no_rounding_noise(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.01)
    sweeps.write(
        space={"model.dropout_rate": {"low": 0.0, "high": 0.3, "step": 0.1}},
        sampler={"name": "grid"},
        budget={"trials": 4},
    )
    assert sweeps.run().counts == {"complete": 4}
    assert sorted(row["model.dropout_rate"] for row in sweeps.rows) == [f"{number / 10}" for number in range(4)]
    for row in sweeps.rows:
        config = yaml.safe_load((sweeps.folder / f"trial_{int(row['trial']):04d}" / "config.yml").read_text())
        assert str(config["model"]["dropout_rate"]) == row["model.dropout_rate"]


def test_a_second_call_does_nothing_until_the_budget_is_raised(finished: Sweeps) -> None:
    before = finished.rows
    assert any("the budget is spent; raise it in the file" in line for line in render_swept(finished.run()))
    finished.write(budget={"trials": 4})
    swept = finished.run()
    assert (swept.new, swept.counts) == (1, {"complete": 4})
    assert finished.rows[:3] == before


def test_a_page_that_is_older_than_the_last_trial_is_written_again(finished: Sweeps) -> None:
    page = finished.folder / "report.html"
    page.write_text("of fewer trials")
    os.utime(page, (0, 0))
    assert finished.run().report == page
    assert page.read_text() != "of fewer trials"


@pytest.mark.slow
def test_a_new_process_does_not_repeat_sampled_values(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.01)
    for trials in (1, 2, 3):
        sweeps.write(budget={"trials": trials})
        sweeps.run()
    assert len({row["model.dropout_rate"] for row in sweeps.rows}) == 3


@pytest.mark.slow
def test_a_bad_trial_is_pruned_after_its_epoch_and_its_process_ended(sweeps: Sweeps) -> None:
    sweeps.write_base(epochs=9)
    sweeps.write(
        space={"model.dropout_rate": [0.0, 0.9]},
        sampler={"name": "grid", "seed": 2},
        pruner={"name": "successive_halving"},
    )
    sweeps.run()
    good, bad = sorted(sweeps.rows, key=lambda row: float(row["model.dropout_rate"]))
    assert good["outcome"] == "complete"
    if bad["trial"] == "1":  # with the good one before it
        assert bad["outcome"] == "pruned"
        assert int(bad["epochs"]) < 9  # on a busy machine some epochs may pass before the process is ended
    else:
        pytest.fail("the seed draws the bad one first; choose another")


def test_a_grid_tries_every_combination_once_and_says_when_none_is_left(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.01, epochs=1)
    sweeps.write(
        space={"model.dropout_rate": {"low": 0, "high": 0.2, "step": 0.1}, "data.batch_size": [8, 16]},
        sampler={"name": "grid"},
        budget={"trials": 100},
        parallel=2,
    )
    sweeps.run()
    drawn = sorted((float(row["model.dropout_rate"]), int(row["data.batch_size"])) for row in sweeps.rows)
    assert drawn == [(rate, size) for rate in (0.0, 0.1, 0.2) for size in (8, 16)]
    assert "  nothing to do: every combination of the grid has been tried" in render_swept(sweeps.run())


def test_a_failed_trial_is_a_row_with_its_error_and_the_search_continues(sweeps: Sweeps) -> None:
    sweeps.write_base("crash")
    sweeps.write(space={"model.dropout_rate": [0.1, 0.2, 0.4]}, sampler={"name": "grid"}, budget={"trials": 3})
    swept = sweeps.run()
    assert swept.counts == {"failed": 2, "complete": 1}
    reasons = [row["reason"] for row in sweeps.rows if row["outcome"] == "failed"]
    assert all(re.search(r"the loss became nan in epoch 1, batch \d0$", reason) for reason in reasons)


def test_a_trial_whose_value_is_nan_has_failed(sweeps: Sweeps) -> None:
    sweeps.write_base("nan")
    sweeps.write(budget={"trials": 1})
    sweeps.run()
    assert [(row["outcome"], row["reason"]) for row in sweeps.rows] == [("failed", "val_accuracy is nan")]


def test_a_full_disk_stops_the_search_and_its_trial_resumes_from_the_saved_state(sweeps: Sweeps) -> None:
    sweeps.write_base("full")
    sweeps.write(budget={"trials": 1})
    with pytest.raises(SweepError, match=r"trial_0000: the disk is full; make room and run the command again$"):
        sweeps.run()
    assert (sweeps.folder / "trial_0000" / "state" / "state.npz").exists()
    assert sweeps.run().counts == {"complete": 1}
    assert (sweeps.folder / "trial_0000" / "starts.txt").read_text() == "0\n1\n"


def test_a_crash_is_a_failure_and_not_a_kill(sweeps: Sweeps) -> None:
    sweeps.write_base("abort")
    sweeps.write(budget={"trials": 1})
    sweeps.run()
    assert (sweeps.rows[0]["outcome"], sweeps.rows[0]["kills"]) == ("failed", "0")
    assert (sweeps.folder / "trial_0000" / "starts.txt").read_text() == "0\n"


def test_the_search_stops_when_the_first_trials_fail_with_the_same_error(sweeps: Sweeps) -> None:
    sweeps.write_base("crash")
    sweeps.write(space={"model.dropout_rate": {"low": 0.0, "high": 0.2}}, budget={"trials": 50})
    with pytest.raises(SweepError, match=r"first 3 trials failed with the same error: .*the loss became nan") as error:
        sweeps.run()
    assert sweeps.outcomes() == ["failed"] * 3
    again = "fix it and run the command again (failed trials count; raise --trials), or give the sweep another name"
    assert str(error.value).endswith(f"{again} to start over")


def test_a_grid_whose_first_trials_fail_is_not_advised_to_raise_its_trials(sweeps: Sweeps) -> None:
    sweeps.write_base("crash")
    sweeps.write(space={"model.dropout_rate": [0.0, 0.1, 0.2]}, sampler={"name": "grid"})
    with pytest.raises(SweepError, match=r"\); fix it and give the sweep another name to start over$"):
        sweeps.run()


def test_a_search_that_was_ended_at_once_can_be_resumed_in_the_same_process(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    sweeps.write(budget={"trials": 1})
    with monkeypatch.context() as patch:
        patch.setattr(driver.LiveTable, "show", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweeps.run()
    (trial,) = open_study(read_spec(sweeps.file)).trials
    assert trial.user_attrs[LEASE] is None  # or the next call would wait for it for ever
    assert sweeps.run().counts == {"complete": 1}


@pytest.mark.parametrize(("seconds", "message"), [(0.0, "resume from what they saved last"), (60.0, "are saved")])
def test_ctrl_c_says_whether_running_trials_are_saved(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch, seconds: float, message: str
) -> None:
    show, started, raised = driver.LiveTable.show, sweeps.folder / "trial_0000" / "starts.txt", []

    def interrupt(*arguments: Any) -> None:  # noqa: ANN401
        show(*arguments)
        if started.exists() and not raised:  # a second one would stop this process at once
            raised.append(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    sweeps.write_base(seconds=1.0 if seconds else 60.0)
    sweeps.write(budget={"trials": 1})
    monkeypatch.setattr(driver, "STOP_SECONDS", seconds)
    monkeypatch.setattr(driver.LiveTable, "show", interrupt)
    with pytest.raises(Interrupted, match=f"stopped; running trials {message}$"):
        sweeps.run()


def test_a_trial_that_is_killed_too_often_has_failed(sweeps: Sweeps) -> None:
    sweeps.write_base("memory")
    sweeps.write(budget={"trials": 1}, restarts=2)
    sweeps.run()
    (row,) = sweeps.rows
    assert (row["outcome"], row["kills"]) == ("failed", "3")
    assert "killed 3 times, last: SIGKILL" in row["reason"]


@pytest.mark.slow
def test_no_trial_starts_after_the_minutes_of_the_budget(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.3)
    sweeps.write(budget={"trials": 50, "minutes": 1.5 / 60})
    swept = sweeps.run()
    assert 1 <= swept.counts["complete"] <= 3  # one where the machine is busy: a trial's start counts, too
    assert sweeps.run().new == 0


def test_a_refused_storage_leaves_the_results_as_they_are(finished: Sweeps, tmp_path: Path) -> None:
    before = {name: (finished.folder / name).read_bytes() for name in ("trials.csv", "sweep.json", "report.html")}
    with pytest.raises(SweepError, match="exists, but is not in the study"):
        finished.run(str(tmp_path / "other.db"))
    assert {name: (finished.folder / name).read_bytes() for name in before} == before
    with pytest.raises(SweepError, match="no such folder"):
        finished.run(str(tmp_path / "mistyped" / "study.journal"))
    assert not (tmp_path / "mistyped").exists()


def test_only_the_best_trials_keep_their_checkpoints(finished: Sweeps) -> None:
    assert len(list(finished.folder.glob("trial_*/model.h5"))) == 3
    finished.write(keep=1, budget={"trials": 4})
    best = finished.run().best
    assert [path.parent.name for path in finished.folder.glob("trial_*/model.h5")] == [f"trial_{best:04d}"]


@pytest.mark.slow
def test_options_override_budget_and_parallel(finished: Sweeps) -> None:
    with finished.start("--trials", "5", "--parallel", "2") as process:
        until(lambda: len(set(trial_processes(finished.folder).values())) == 2)
        assert process.wait(120) == 0
    assert finished.outcomes() == ["complete"] * 5


def test_a_budget_that_is_not_a_section_is_an_error(sweeps: Sweeps) -> None:
    sweeps.write(budget=5)
    with pytest.raises(ConfigError, match=r"budget: .*5"):
        driver.sweep(sweeps.file, limits={"budget.trials": 4})


def test_options_are_repeated_exactly() -> None:
    words = driver.command_words("few.yml", (), None, {"budget.trials": 1234567, "budget.minutes": 600.0})
    assert words == ["sweep", "few.yml", "--trials", "1234567", "--minutes", "600"]


def test_without_plotly_no_trial_starts(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"plotly.*\[sweep\]"):
        sweeps.run()
    assert not sweeps.folder.exists()


@pytest.mark.slow
def test_an_error_of_the_page_does_not_hide_that_of_the_search(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("page")

    sweeps.write_base("crash")
    sweeps.write(space={"model.dropout_rate": {"low": 0.0, "high": 0.2}}, budget={"trials": 50})
    monkeypatch.setattr(driver.Results, "write_page", fail)
    with pytest.raises(SweepError, match="the same error"):
        sweeps.run()


def test_trials_of_other_settings_are_refused(finished: Sweeps) -> None:
    finished.write(space={"model.dropout_rate": {"low": 0.0, "high": 0.4}})
    advice = f"give the sweep another name, or remove {finished.folder} to start over"
    with pytest.raises(SweepError, match=rf"few.yml: .*study.db holds trials of other settings \(space\..*{advice}$"):
        finished.run()


def test_other_settings_in_a_storage_elsewhere_need_another_name(sweeps: Sweeps, tmp_path: Path) -> None:
    storage = str(tmp_path / "shared.db")
    close_study(open_study(read_spec(sweeps.file), storage))
    sweeps.write(space={"model.dropout_rate": {"low": 0.0, "high": 0.4}})
    with pytest.raises(SweepError, match=r"\); give the sweep another name to start over$"):  # its folder is not there
        sweeps.run(storage)


def test_a_trial_folder_of_another_study_is_not_overwritten(finished: Sweeps) -> None:
    (finished.folder / "study.db").unlink()
    with pytest.raises(SweepError, match="trial_0000: exists, but is not in the study"):
        finished.run()


@pytest.mark.parametrize(
    "storage",
    [
        *("study.txt", "few.yml", "mysql://me:secret@host/cars", "sqlite:///study.db", "redis://host", "://"),
        "postgresql://me:secret@host:port/cars",
    ],
)
def test_a_storage_of_an_unknown_kind_is_refused_with_the_kinds_that_can_be_used(sweeps: Sweeps, storage: str) -> None:
    usable = r"must be FILE\.db, FILE\.journal \(on a shared disk\) or postgresql://user@host/name$"
    with pytest.raises(SweepError, match=usable) as error:
        sweeps.run(storage)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["broken.db", "broken.journal"])
def test_a_file_that_is_not_a_study_is_refused(sweeps: Sweeps, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello\nhello\n")
    with pytest.raises(SweepError, match=rf"{name}: cannot be used as a study"):
        sweeps.run(str(tmp_path / name))


def test_the_error_of_an_unreachable_database_hides_the_password(sweeps: Sweeps) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SweepError, match="cannot be used") as error:
        sweeps.run(f"postgresql://me:secret@127.0.0.1:{port}/no")
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_journal_is_usable_after_an_incomplete_last_line(sweeps: Sweeps, tmp_path: Path) -> None:
    journal = tmp_path / "shared.journal"
    sweeps.run(str(journal))
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    sweeps.write(budget={"trials": 4})
    assert sweeps.run(str(journal)).counts == {"complete": 4}


@pytest.mark.slow
def test_the_driver_loads_no_framework_and_its_memory_does_not_grow(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.001, epochs=1)
    sweeps.write(budget={"trials": 10})
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from whichcar.search.driver import Driver, sweep
from whichcar.search.launcher import LocalLauncher
used, settle = [], Driver._settle
def measured(*arguments):
    settle(*arguments)
    used.append(int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6)
Driver._settle = measured
sweep({str(sweeps.file)!r}, launcher=LocalLauncher(lambda c: [sys.executable, {str(Path(__file__).with_name("trial_program.py"))!r}, str(c)]))
print(used[3], used[-1], sorted({{"keras", "tensorflow", "jax", "torch"}} & sys.modules.keys()))
"""  # noqa: E501
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    early, late, loaded = out.split(maxsplit=2)
    assert loaded.strip() == "[]"
    assert float(late) - float(early) < 10, out


@pytest.mark.slow
def test_a_killed_trial_resumes(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.5)
    sweeps.write(budget={"trials": 1})
    with sweeps.start() as process:
        until((sweeps.folder / "trial_0000" / "history.csv").exists)
        for pid in trial_processes(sweeps.folder):
            os.kill(pid, signal.SIGKILL)
        assert process.wait(120) == 0
    (row,) = sweeps.rows
    assert (row["outcome"], row["kills"], row["epochs"]) == ("complete", "1", "3")
    assert (sweeps.folder / "trial_0000" / "starts.txt").read_text().split() in (["0", "1"], ["0", "2"])


@pytest.mark.slow
def test_a_trial_dies_with_its_driver_and_resumes_without_counting_as_killed(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.5)
    sweeps.write(budget={"trials": 2})
    with sweeps.start() as process:
        until((sweeps.folder / "trial_0000" / "history.csv").exists)
        assert trial_processes(sweeps.folder)
        process.kill()
        process.wait()
    until(lambda: not trial_processes(sweeps.folder), 2)
    assert sweeps.run().counts == {"complete": 2}
    assert [row["kills"] for row in sweeps.rows] == ["0", "0"]
    assert (sweeps.folder / "trial_0000" / "starts.txt").read_text().split() in (["0", "1"], ["0", "2"])


@pytest.mark.slow
def test_three_trials_complete_when_every_trial_and_driver_is_killed_once(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.2)
    for number in range(3):
        with sweeps.start() as process:
            until((sweeps.folder / f"trial_{number:04d}" / "history.csv").exists)
            for pid in trial_processes(sweeps.folder):
                os.kill(pid, signal.SIGKILL)
            started = sweeps.folder / f"trial_{number:04d}" / "starts.txt"
            until(lambda file=started: len(file.read_text().split()) > 1)
            process.kill()
    assert sweeps.run().counts == {"complete": 3}
    assert [row["trial"] for row in sweeps.rows] == ["0", "1", "2"]
    assert [row["epochs"] for row in sweeps.rows] == ["3", "3", "3"]


@pytest.mark.slow
def test_two_drivers_share_the_trials(sweeps: Sweeps) -> None:
    sweeps.write(budget={"trials": 8})
    processes = [sweeps.start() for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sweeps.outcomes() == ["complete"] * 8
    ran = [set(re.findall(r"trial (\d+): val", err)) for _, err in outputs]
    assert ran[0] | ran[1] == set(map(str, range(8)))
    assert not ran[0] & ran[1]
    assert all(ran), "one driver did everything"
    assert all(path.read_text() == "0\n" for path in sweeps.folder.glob("trial_*/starts.txt"))


@pytest.mark.slow
def test_ctrl_c_saves_and_prints_the_command_that_resumes(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.5)
    sweeps.write(budget={"trials": 1})
    with sweeps.start("--set", "data.balanced=true") as process:
        until((sweeps.folder / "trial_0000" / "history.csv").exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.count("stopping: running trials save their state; Ctrl-C again stops at once\n") == 1
    assert f"resume with: whichcar sweep {sweeps.file} --set data.balanced=true\n" in err
    (trial,) = open_study(read_spec(sweeps.file, ("data.balanced=true",))).trials
    assert trial.user_attrs[LEASE] is None  # another machine may go on at once
    with sweeps.start("--set", "data.balanced=true") as process:
        assert process.wait(120) == 0
    (row,) = sweeps.rows
    assert (row["outcome"], row["kills"]) == ("complete", "0")
    assert (sweeps.folder / "trial_0000" / "starts.txt").read_text().split() != ["0"]


@pytest.mark.slow
def test_a_trial_on_another_machine_is_taken_over_once_its_heartbeat_stops(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_spec(sweeps.file)
    study = open_study(spec)
    far = Lease()
    far._identity["machine"] = "far away"
    trial = new_trial(study, spec, far)
    near = Lease()
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.2)
    assert not near.is_free(trial.number, trial.user_attrs[LEASE])
    trial.set_user_attr(LEASE, far.record())
    assert not near.is_free(trial.number, trial.user_attrs[LEASE])
    until(lambda: near.is_free(trial.number, trial.user_attrs[LEASE]), 2)
    monkeypatch.setattr(driver, "SCAN_SECONDS", 0.1)
    assert sweeps.run().counts == {"complete": 3}


@pytest.mark.slow
def test_a_driver_whose_trial_was_taken_over_lets_it_go(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    from whichcar.search import trial

    sweeps.write_base(seconds=0.4)
    sweeps.write(budget={"trials": 1})
    monkeypatch.setattr(trial, "HEARTBEAT_SECONDS", 0.1)
    taken: list[int] = []
    show = driver.LiveTable.show

    def take(live_table: driver.LiveTable, status: driver.Status, last: bool = False) -> None:
        show(live_table, status, last)
        if status.rows and status.rows[0].epoch and not taken:
            study = open_study(read_spec(sweeps.file))
            thief = Lease()
            study._storage.set_trial_user_attr(study.trials[0]._trial_id, LEASE, thief.record())
            taken.append(0)
            monkeypatch.setattr(Lease, "is_free", lambda *_: True)

    monkeypatch.setattr(driver.LiveTable, "show", take)
    messages: list[str] = []
    monkeypatch.setattr(driver.LiveTable, "say", lambda _, line: messages.append(line))
    assert sweeps.run().counts == {"complete": 1}
    assert "trial 0: another process took it over" in messages
    assert len(sweeps.rows) == 1


def test_all_trials_have_the_same_size_in_the_decoded_cache(sweeps: Sweeps) -> None:
    sweeps.write(space={"data.image_size": [[32, 32], [48, 64]]}, sampler={"name": "grid"})
    sweeps.run()
    sizes = [
        yaml.safe_load(path.read_text())["data"]["cache_size"] for path in sweeps.folder.glob("trial_*/config.yml")
    ]
    assert sizes == [[48, 64], [48, 64]]


@pytest.mark.parametrize("space", [{}, {"model.weights": ["imagenet", "nowhere.h5"]}])
def test_a_wrong_path_of_weights_is_an_error_before_the_first_trial(sweeps: Sweeps, space: dict) -> None:
    if not space:
        base = yaml.safe_load((sweeps.file.parent / "base.yml").read_text())
        (sweeps.file.parent / "base.yml").write_text(yaml.safe_dump({**base, "model": {"weights": "nowhere.h5"}}))
    sweeps.write(space={"data.batch_size": [16, 32], **space})
    with pytest.raises(CheckpointError, match=r"model\.weights: no file nowhere.h5; give imagenet, null, or the path"):
        sweeps.run()
    assert not sweeps.folder.exists()


def test_a_search_among_the_classes_of_its_images_is_an_error_before_the_first_trial(sweeps: Sweeps) -> None:
    sweeps.write_base(str(sweeps.file.parent))
    with pytest.raises(DataError, match=r"few: lies in .*, where it would be taken for a class"):
        sweeps.run()
    assert not sweeps.folder.exists()


def test_a_line_break_in_the_path_of_the_file_ends_no_comment_of_a_config(tmp_path: Path) -> None:
    (tmp_path / "a\nline: odd").mkdir()
    sweeps = Sweeps(tmp_path / "a\nline: odd")
    sweeps.write(budget={"trials": 1})
    assert sweeps.run().counts == {"complete": 1}
    assert read_experiment(sweeps.folder / "best").seed == 1
