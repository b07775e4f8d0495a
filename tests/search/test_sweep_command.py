"""The true command with true trainings, which take about fifteen seconds each."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from whichcar.cli import main
from whichcar.data.split.split import split
from whichcar.synthetic.draw import draw

from ..waiting import until
from .conftest import trial_processes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    draw(folder / "raw", classes=3, per_class=6, size=(24, 32))
    split(folder / "raw", folder / "raw" / "car_dataset_labels.csv", folder / "v1", 0.4, 1)
    return folder / "v1"


def write_sweep(folder: Path, dataset: Path, trials: int, epochs: int, recipe: dict[str, Any] | None = None) -> Path:
    base: dict[str, Any] = {
        "seed": 1,
        "data": {"directory": str(dataset), "image_size": [24, 24], "batch_size": 4, "validation_split": 0.4},
        "model": {"weights": None},
        "compile": {"optimizer": {"sgd": {"learning_rate": 0.01}}},
        "fit": {"epochs": epochs},
        "recipe": {"freeze": 5, **(recipe or {})},  # half the time to compile
        "hardware": {"precision": "float32", "save_minutes": 0.001},
    }
    (folder / "base.yml").write_text(yaml.safe_dump(base))
    space = {"compile.optimizer.sgd.learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
    file = folder / "tiny.yml"
    file.write_text(yaml.safe_dump({"base": "base.yml", "space": space, "budget": {"trials": trials}, "keep": 1}))
    return file


def rows(file: Path) -> list[dict[str, str]]:
    with (file.with_suffix("") / "trials.csv").open(newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.slow
def test_the_command_trains_a_trial_to_an_experiment_that_can_be_evaluated(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_sweep(tmp_path, dataset, 1, 3, {"test_sizes": [[32, 32]]})
    assert main.run(["sweep", str(file)]) == 0
    out = capsys.readouterr().out
    assert f"next: whichcar train {tmp_path}/tiny/best/config.yml" in out
    (row,) = rows(file)
    assert (row["outcome"], row["epochs"]) == ("complete", "3")
    trial = tmp_path / "tiny" / "trial_0000"
    with (trial / "history.csv").open(newline="") as history:
        accuracies = [float(line["val_accuracy"]) for line in csv.DictReader(history)]
    best = json.loads((trial / "best.json").read_text())
    # The trial keeps its best epoch by the objective, and is worth what that epoch's checkpoint has.
    assert accuracies[best["epoch"] - 1] == max(accuracies)
    assert f"{best['val_accuracy']:.6g}" == row["value"]
    assert f"best: trial 0, val_accuracy {best['val_accuracy']:.4f}" in out
    assert main.run(["compare", str(trial)]) == 0
    assert f" {best['val_accuracy']:.3f} " in capsys.readouterr().out
    assert not (trial / "state" / "state.npz").exists()
    assert main.run(["evaluate", str(trial)]) == 0
    assert main.run(["sweep", str(file)]) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.slow
def test_twenty_trials_complete_with_drivers_and_trials_killed_at_random(tmp_path: Path, dataset: Path) -> None:
    """The driver dies five times and trials ten times, no trial more than three times, at moments drawn by chance."""
    file = write_sweep(tmp_path, dataset, 20, 2)
    folder = file.with_suffix("")
    chance = random.Random(7)
    deaths = ["driver"] * 5 + ["trial"] * 10
    chance.shuffle(deaths)

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "whichcar", "sweep", str(file)]
        with (tmp_path / "message.txt").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "WHICHCAR_QUIET": "0"})

    killed: Counter[str] = Counter()

    def mortal() -> list[tuple[int, str]]:
        return [(pid, name) for pid, name in trial_processes(folder).items() if killed[name] < 3]

    driver = start()
    for death in deaths:
        time.sleep(chance.uniform(1, 25))
        if death == "trial":
            pid, name = until(mortal, 200)[0]
            os.kill(pid, signal.SIGKILL)
            killed[name] += 1
        else:
            driver.kill()
            driver.wait()
            until(lambda: not trial_processes(folder), 5)
            driver = start()
    assert driver.wait(3000) == 0, (tmp_path / "message.txt").read_text()
    found = rows(file)
    assert [row["trial"] for row in found] == [str(number) for number in range(20)]
    assert [row["outcome"] for row in found] == ["complete"] * 20
    assert sum(killed.values()) == 10
    assert {f"trial_{int(row['trial']):04d}": int(row["kills"]) for row in found if row["kills"] != "0"} == killed
    assert len({row["compile.optimizer.sgd.learning_rate"] for row in found}) == 20
    assert sorted(path.name for path in folder.glob("trial_*")) == [f"trial_{number:04d}" for number in range(20)]
    for row in found:
        with (folder / f"trial_{int(row['trial']):04d}" / "history.csv").open(newline="") as history:
            values = [float(line["val_accuracy"]) for line in csv.DictReader(history)]
        assert len(values) == 2
        assert float(row["value"]) == max(values)
