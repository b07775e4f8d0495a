"""A real ResNet-50, trained by the command, stopped by Ctrl-C and killed by `kill -9`, ends as if nothing had been.

So does the run that another was to overwrite.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import yaml

from whichcar.data.split.split import split
from whichcar.files import checksum


@pytest.fixture(scope="module")
def content(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    tree = tmp_path_factory.mktemp("resume") / "v1"
    split(drawn, drawn / "car_dataset_labels.csv", tree)
    weights = tree.parent / "top.weights.h5"
    keras.applications.ResNet50(weights=None).save_weights(weights)
    return {
        "seed": 11,
        "data": {"directory": str(tree), "image_size": [32, 32], "batch_size": 4},
        "model": {
            "weights": str(weights),
            "dropout_rate": 0.2,
            "cosine_scale": 16,
            "data_aug_layer": {"random_flip": {"mode": "horizontal"}},
        },
        "compile": {"optimizer": {"sgd": {"learning_rate": 1e-4, "momentum": 0.9, "nesterov": True}}},
        "fit": {"epochs": 2, "callbacks": {"model_checkpoint": {"keep": 1}}},
        "recipe": {
            "schedule": "cosine",
            "mixup": 0.2,
            "random_resized_crop": {},
            "plain_epochs": 1,
            "co_tuning": 1,
        },
        # Saved at every step, so that the kill falls between two saves wherever it comes.
        "hardware": {"precision": "float32", "exact": True, "save_minutes": 1e-6},
    }


def start(folder: Path, content: dict, *options: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    (folder / "config.yml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "whichcar", "train", str(folder / "config.yml"), *options]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def steps_saved(folder: Path) -> int:
    """Steps in the state on disk; the file is always whole."""
    try:
        with zipfile.ZipFile(folder / "state" / "state.npz") as archive:
            text = np.load(io.BytesIO(archive.read("progress.npy"))).tobytes()
    except FileNotFoundError:
        return 0
    progress = json.loads(text)["progress"]["progress"]
    return int(progress["epoch"]) * 4 + int(progress["step"])


def wait_for(process: subprocess.Popen[str], folder: Path, steps: int) -> None:
    while steps_saved(folder) < steps:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def weights(folder: Path) -> dict[str, np.ndarray]:
    best = json.loads((folder / "best.json").read_text())["checkpoint"]
    found: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(folder / best) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.fixture(scope="module")
def whole(content: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "exp"
    uninterrupted = start(folder, content)
    _, stderr = uninterrupted.communicate()
    assert uninterrupted.returncode == 0, stderr
    return folder


@pytest.mark.slow
def test_a_run_that_was_stopped_and_killed_gives_the_same_weights(content: dict, whole: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    stopped = start(broken, content)
    wait_for(stopped, broken, 1)
    stopped.send_signal(signal.SIGINT)
    _, stderr = stopped.communicate()
    assert stopped.returncode == -signal.SIGINT
    assert "--resume" in stderr

    killed = start(broken, content, "--resume")
    wait_for(killed, broken, steps_saved(broken) + 2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL

    last = start(broken, content, "--resume")
    _, stderr = last.communicate()
    assert last.returncode == 0, stderr
    expected, resumed = weights(whole), weights(broken)
    assert len(expected) == len(resumed) > 300
    for name, values in expected.items():
        np.testing.assert_array_equal(values, resumed[name], err_msg=name)


@pytest.mark.slow
def test_a_run_is_whole_again_when_the_one_that_overwrites_it_is_killed_or_stopped(
    content: dict, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "exp"
    shutil.copytree(whole, folder, copy_function=os.link)
    before = checksums(folder)
    # Many steps before the first checkpoint, and no state, which would take longest.
    slow = content | {"data": content["data"] | {"batch_size": 1}, "hardware": {"precision": "float32"}}

    killed = start(folder, slow, "--overwrite")
    wait_for_folder(killed, folder / ".previous")
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "best.json").exists()
    ended = command("predict", str(folder), "nothing.jpg")
    assert "the training that was to overwrite this run ended before its first checkpoint" in ended.stderr
    (folder / "config.yml").write_text(yaml.safe_dump(content))
    assert checksums(folder) == before

    stopped = start(folder, slow, "--overwrite")
    wait_for_folder(stopped, folder / ".previous")
    wait_for_folder(stopped, folder / "logs" / "validation")
    time.sleep(0.5)
    stopped.send_signal(signal.SIGINT)
    _, stderr = stopped.communicate()
    assert stopped.returncode == -signal.SIGINT, stderr
    assert f"start again with: whichcar train {folder / 'config.yml'} --overwrite" in stderr
    (folder / "config.yml").write_text(yaml.safe_dump(content))
    assert checksums(folder) == before
    ended = command("train", str(folder))
    assert ended.returncode == 0
    assert "already trained for 2 epochs: nothing to do" in ended.stderr


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "whichcar", *words], capture_output=True, text=True, check=False)


def wait_for_folder(process: subprocess.Popen[str], folder: Path) -> None:
    while not folder.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def checksums(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): checksum(path) for path in folder.rglob("[!.]*") if path.is_file()}
