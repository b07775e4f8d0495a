from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from whichcar.config.load import config_in, read_experiment
from whichcar.errors import CheckpointError, ConfigError, TrainingError
from whichcar.training.hardware import Hardware
from whichcar.training.run.checkpoint import find_checkpoint
from whichcar.training.run.folder import ExperimentFolder, environment, folder_of, versions
from whichcar.training.run.overwriting import recover
from whichcar.training.run.test_uses import read_uses

from .kills import Countdown, Killed

HARDWARE = Hardware("tensorflow", "float32", "a processor", 2)


SETTINGS: dict[str, Any] = {"seed": 1, "data": {"directory": "cars"}, "model": {"weights": None}}


def write(path: Path, **sections: Any) -> Path:  # noqa: ANN401
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(SETTINGS | sections))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path / "exp_1" / "config.yml")


def opened(config: Path, resume: bool = False, overwrite: bool = False) -> ExperimentFolder:
    folder = ExperimentFolder(config, read_experiment(config))
    try:
        folder.open(resume, overwrite)
        if overwrite:
            folder.set_aside()
    except TrainingError:
        folder.close()
        raise
    return folder


def ran(config: Path, finished: bool) -> None:
    """Leave what a run leaves."""
    folder = opened(config)
    folder.describe(HARDWARE, {"class_names": ["a", "b"]}, finished=False)
    if finished:
        folder.describe(HARDWARE, {"class_names": ["a", "b"]}, finished=True)
    folder.write_best({"checkpoint": "model.01-0.5000.keras"})
    folder.state.write_bytes(b"state")
    folder.logs.mkdir()
    tables = ("history.csv", "curves.png", "tracking.json", "result.json", "report.html")
    (folder.path / "plots").mkdir()
    (folder.path / "evaluations" / "other").mkdir(parents=True)
    names = ("best-model.02-0.5000.keras", "plots/classes.png", "evaluations/other/report.html")
    for name in ("model.01-0.5000.keras", *tables, "logs/events", *names):
        (folder.path / name).write_text("{}" if name == "result.json" else name)
    folder.close()


def first_checkpoint(folder: ExperimentFolder) -> list[Path]:
    """Do what a new run does up to its first checkpoint; gives what it leaves."""
    folder.describe(HARDWARE, {"class_names": ["a", "b"]}, finished=False)
    folder.write_best({"checkpoint": "model.h5"})
    return [folder.path / name for name in ("resolved.json", "environment.json", "best.json")]


def content(folder: Path) -> dict[str, str]:
    """Every file with what it holds, but for locks and what a kill has cut short."""
    files = (path for path in folder.rglob("[!.]*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_a_config_belongs_to_its_folder_or_to_one_of_its_name(tmp_path: Path) -> None:
    assert folder_of(write(tmp_path / "exp_1" / "config.yml")) == tmp_path / "exp_1"
    assert folder_of(write(tmp_path / "exp_1" / "config.yaml")) == tmp_path / "exp_1"
    assert folder_of(write(tmp_path / "small.yml")) == tmp_path / "small"
    with pytest.raises(ConfigError, match=r"no such file; give an experiment's config\.yml"):
        folder_of(tmp_path / "nothing.yml")


def test_a_new_folder_has_nothing_to_resume(config: Path) -> None:
    folder = ExperimentFolder(config, read_experiment(config))
    assert folder.open(resume=False, overwrite=False) is False
    assert not folder.finished
    folder.close()


def test_what_a_run_is_gets_written_down(config: Path) -> None:
    ran(config, finished=True)
    resolved = json.loads((config.parent / "resolved.json").read_text())
    assert resolved["finished"] is True
    assert resolved["settings"]["data"]["batch_size"] == 32
    assert resolved["class_names"] == ["a", "b"]
    assert "hardware" not in resolved["settings"], "another machine may resume"
    about = json.loads((config.parent / "environment.json").read_text())
    assert (about["backend"], about["precision"], about["device"], about["cores"]) == (
        *("tensorflow", "float32", "a processor"),
        2,
    )
    assert about["versions"]["numpy"]
    assert json.loads((config.parent / "best.json").read_text()) == {"checkpoint": "model.01-0.5000.keras"}


def test_a_config_from_elsewhere_is_kept_as_given_and_stays_as_it_was(tmp_path: Path) -> None:
    config = write(tmp_path / "small.yml")
    ran(config, finished=True)
    assert (tmp_path / "small" / "config.yml").read_text() == config.read_text()
    write(config, seed=2)
    folder = opened(config, overwrite=True)
    folder.describe(HARDWARE, {}, finished=False)
    kept = (tmp_path / "small" / "config.yml").read_text()
    assert kept == config.read_text(), "the run again brings its own config"
    config.write_text("changed while it trains")
    folder.describe(HARDWARE, {}, finished=True)
    assert (tmp_path / "small" / "config.yml").read_text() == kept
    folder.close()


def test_a_config_yaml_is_the_one_config_of_its_folder(tmp_path: Path) -> None:
    ran(write(tmp_path / "exp" / "config.yaml"), finished=True)
    write(tmp_path / "exp" / "config.yaml", seed=5)
    assert read_experiment(config_in(tmp_path / "exp")).seed == 5


def test_a_run_with_other_settings_is_refused_with_the_difference(config: Path) -> None:
    ran(config, finished=True)
    write(config, model={"weights": None, "dropout_rate": 0.5})
    for resume in (False, True):
        with pytest.raises(TrainingError, match=r"other settings \(model.dropout_rate: 0.0 there, 0.5 here\)"):
            opened(config, resume=resume)


def test_a_setting_that_an_earlier_version_did_not_have_counts_as_its_default(config: Path) -> None:
    ran(config, finished=True)
    record = json.loads((config.parent / "resolved.json").read_text())
    del record["settings"]["recipe"], record["settings"]["data"]["balanced"]
    (config.parent / "resolved.json").write_text(json.dumps(record))
    opened(config).close()
    write(config, data={"directory": "cars", "balanced": True})
    with pytest.raises(TrainingError, match=r"other settings \(data\.balanced: false there, true here\)"):
        opened(config)


def test_where_it_runs_may_change_between_two_calls(config: Path) -> None:
    ran(config, finished=True)
    write(config, hardware={"precision": "bfloat16"})
    folder = opened(config)
    assert folder.finished
    folder.close()


def test_an_unfinished_run_must_be_resumed_or_overwritten(config: Path) -> None:
    ran(config, finished=False)
    with pytest.raises(TrainingError, match="unfinished run; resume with --resume, or --overwrite it"):
        opened(config)
    folder = ExperimentFolder(config, read_experiment(config))
    assert folder.open(resume=True, overwrite=False) is True
    folder.close()


def test_overwriting_takes_away_the_run_and_nothing_else(config: Path) -> None:
    ran(config, finished=True)
    names = ("notes.md", "resnet50_notop.h5", "model.01-mine.keras", "test_uses.json", "state/lock", "config.yml")
    mine = [config.parent / name for name in names]
    for path in mine[:4]:
        path.write_text("{}")
    for name in ("refit", "label_folds"):
        (config.parent / name).mkdir()
        (config.parent / name / "best.json").write_text("{}")
    folder = ExperimentFolder(config, read_experiment(config))
    assert folder.open(resume=False, overwrite=True) is False
    assert (config.parent / "history.csv").exists(), "nothing is touched before the new run is sure to begin"
    folder.set_aside()
    new = first_checkpoint(folder)
    folder.close()
    kept = {path for path in config.parent.rglob("*") if path.is_file() and not path.name.endswith(".lock")}
    assert kept == {*mine, *new}


def test_overwriting_a_refit_keeps_its_counts_with_those_of_its_experiment(config: Path) -> None:
    ran(config, finished=True)
    refit = write(config.parent / "refit" / "config.yml")
    ran(refit, finished=True)
    (refit.parent / "result.json").write_text('{"data": {"fingerprint": "abc", "evaluations": 5}}')
    folder = opened(refit, overwrite=True)
    first_checkpoint(folder)
    folder.close()
    assert read_uses(config.parent)["abc"]["times"] == 5


@pytest.mark.parametrize("begun", [False, True])
def test_where_there_is_no_result_to_overwrite_a_new_run_that_is_stopped_can_be_resumed(
    config: Path, begun: bool
) -> None:
    if begun:
        folder = opened(config)
        folder.describe(HARDWARE, {"class_names": ["a", "b"]}, finished=False)
        folder.close()
    folder = opened(config, overwrite=True)
    assert not folder.is_replacing
    folder.describe(HARDWARE, {"class_names": ["a", "b"]}, finished=False)
    folder.state.write_bytes(b"state")
    folder.close()
    folder = opened(config, resume=True)
    assert folder.state.read_bytes() == b"state"
    folder.close()


def test_overwriting_knows_the_checkpoints_of_the_run_that_is_there(config: Path) -> None:
    ran(config, finished=True)
    write(config, fit={"callbacks": {"model_checkpoint": {"filepath": "weights-{epoch}.h5"}}})
    folder = opened(config, overwrite=True)
    assert not list(config.parent.glob("*.keras"))
    first_checkpoint(folder)
    folder.close()
    assert not list(config.parent.glob("*.keras"))


def test_overwriting_spares_the_weights_that_the_new_run_starts_from(config: Path) -> None:
    ran(config, finished=True)
    start = config.parent / "model.01-0.5000.keras"
    (config.parent / "model.02-0.4000.keras").write_text("another")
    write(config, model={"weights": str(start)})
    folder = opened(config, overwrite=True)
    assert [path.name for path in config.parent.glob("*.keras")] == [start.name]
    first_checkpoint(folder)
    folder.close()
    assert [path.name for path in config.parent.glob("*.keras")] == [start.name]
    assert start.read_text() == start.name


def test_a_run_that_ends_before_its_first_checkpoint_leaves_the_earlier_one_whole(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ran(config, finished=True)
    before = content(config.parent)
    write(config, fit={"callbacks": {"tensor_board": {"log_dir": "events"}}}, model={"weights": None, "classes": 7})
    folder = opened(config, overwrite=True)
    folder.describe(HARDWARE, {}, finished=False)
    (folder.path / "events").mkdir()
    for name in ("tracking.json", "events/one", "state/state.npz"):
        (folder.path / name).write_text("new")
    folder.close()
    assert content(config.parent) == before | {"config.yml": config.read_text()}
    assert "ended before its first checkpoint; the run is back as it was" in caplog.text


def test_a_config_from_elsewhere_comes_back_with_the_earlier_run(tmp_path: Path) -> None:
    config = write(tmp_path / "small.yml")
    ran(config, finished=True)
    before = content(tmp_path / "small")
    write(config, seed=2)
    folder = opened(config, overwrite=True)
    folder.describe(HARDWARE, {}, finished=False)
    folder.close()
    assert content(tmp_path / "small") == before


def test_the_earlier_run_is_whole_again_wherever_the_new_one_is_killed(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each move or deletion in turn is the last that a process makes; the next process may be killed as well."""
    ran(config, finished=True)
    before = content(config.parent)
    kill = Countdown(monkeypatch, (Path, "rename"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree"))
    for stop in itertools.count():
        folder = ExperimentFolder(config, read_experiment(config))
        kill.left = stop
        try:
            folder.open(resume=False, overwrite=True)
            folder.set_aside()
            folder.describe(HARDWARE, {}, finished=False)
            folder.state.write_text("new")
            folder.close()
            break
        except Killed:
            assert folder._lock
            folder._lock.close()  # as the operating system does
        for again in (stop // 2, math.inf):
            kill.left = again
            try:
                recover(config.parent)
            except Killed:
                continue
        assert content(config.parent) == before
    assert stop > 20
    assert content(config.parent) == before


def test_half_written_files_are_removed(config: Path) -> None:
    ran(config, finished=True)
    half = [config.parent / name for name in (f".{'0a' * 16}.keras", f"state/.{'0a' * 16}.npz")]
    mine = config.parent / ".mine.keras"
    for path in (*half, mine):
        path.write_text("x")
    opened(config).close()
    assert [path for path in (*half, mine) if path.exists()] == [mine]


def test_while_a_run_is_being_overwritten_it_is_not_evaluated(config: Path) -> None:
    ran(config, finished=True)
    folder = opened(config, overwrite=True)
    with pytest.raises(CheckpointError, match="is being overwritten by a training without a checkpoint so far"):
        find_checkpoint(config.parent)
    folder.close()
    assert find_checkpoint(config.parent).name == "model.01-0.5000.keras"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"finished": true}', b'{"finished": 1, "settings": {}}'])
def test_a_damaged_record_is_one_line_and_can_be_overwritten(config: Path, damage: bytes) -> None:
    ran(config, finished=True)
    (config.parent / "resolved.json").write_bytes(damage)
    for resume in (False, True):
        with pytest.raises(TrainingError) as caught:
            opened(config, resume=resume)
        assert str(caught.value).startswith(f"{config.parent / 'resolved.json'}: damaged")
        assert str(caught.value).endswith("put it back, or start over with --overwrite")
        assert "\n" not in str(caught.value)
    folder = opened(config, overwrite=True)
    first_checkpoint(folder)
    folder.close()
    assert not list(config.parent.glob("*.keras"))


@pytest.mark.parametrize("name", [".", "..", "", "state", "evaluations", "plots", "best.json"])
def test_a_log_folder_that_overwriting_would_delete_with_more_than_logs_is_refused(config: Path, name: str) -> None:
    write(config, fit={"callbacks": {"tensor_board": {"log_dir": name}}})
    with pytest.raises(ConfigError, match=r"tensor_board\.log_dir: '.*' is taken; give another name"):
        opened(config)


def test_a_checkpoint_or_log_path_in_another_folder_is_refused(tmp_path: Path, config: Path) -> None:
    foreign = {"model_checkpoint": {"filepath": "experiments/exp_7/model.{epoch:02d}.h5"}}
    write(config, fit={"callbacks": foreign})
    with pytest.raises(ConfigError, match=r"model_checkpoint.filepath: lies in experiments/exp_7, .*model.{epoch:02d}"):
        opened(config)
    write(config, fit={"callbacks": {"tensor_board": {"log_dir": "/somewhere/logs"}}})
    with pytest.raises(ConfigError, match=r"tensor_board.log_dir: lies in /somewhere, not in this experiment's folder"):
        opened(config)


def test_a_path_into_the_own_folder_is_taken(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {
        "model_checkpoint": {"filepath": "exp_1/model.{epoch:02d}-{val_loss:.4f}.h5"},
        "tensor_board": {"log_dir": str(config.parent / "events")},
    }
    write(config, fit={"callbacks": own})
    monkeypatch.chdir(config.parents[1])
    folder = opened(config)
    assert folder.pattern == "model.{epoch:02d}-{val_loss:.4f}.h5"
    assert folder.logs == config.parent / "events"
    folder.close()


HOLDING = """
import sys
from pathlib import Path
from whichcar.config.load import read_experiment
from whichcar.training.run.folder import ExperimentFolder

config = Path(sys.argv[1])
folder = ExperimentFolder(config, read_experiment(config))
folder.open(False, False)
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_kept_out_until_the_first_is_gone(config: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(config)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        for overwrite in (False, True):
            with pytest.raises(TrainingError, match="another process trains here; wait for it or stop it"):
                opened(config, overwrite=overwrite)
    finally:
        other.kill()
        other.communicate()
    opened(config).close()


def test_a_folder_given_back_can_be_taken_again(config: Path) -> None:
    first = opened(config)
    with pytest.raises(TrainingError, match="another process"):
        opened(config)
    first.close()
    opened(config).close()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    config = write(tmp_path / "small.yml")
    (tmp_path / "small").write_text("a file in the way")
    with pytest.raises(TrainingError, match=r"small: cannot be written"):
        opened(config)


@pytest.mark.parametrize("program", ["/usr/local/bin/whichcar", "/usr/lib/python3/whichcar/__main__.py"])
def test_the_command_is_written_so_that_it_can_be_typed_again(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(sys, "argv", [program, "train", "my cars/config.yml"])
    assert environment(HARDWARE)["command"] == "whichcar train 'my cars/config.yml'"
    assert {"numpy", "pillow"} <= versions().keys()
