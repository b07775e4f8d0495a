"""The speed of this machine: what is timed and what is not, with a tiny network in the place of ResNet-50."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from whichcar.data.split.tree import Tree, read_tree
from whichcar.records import Metadata
from whichcar.training import throughput
from whichcar.training.budget import Facts
from whichcar.training.hardware import prepare
from whichcar.training.run.checkpoint import save_checkpoint
from whichcar.training.throughput import measure

HARDWARE = prepare("float32")
import keras  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

FACTS = Facts(2, 8, 2, 70)
PROGRAM = Path(__file__).with_name("throughput_program.py")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    for number in range(10):
        path = tmp_path / "cars" / f"class {number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((70, 100, 3), 9 * number, np.uint8)).save(path)
    return read_tree(tmp_path / "cars", 0.2, 123)


def tiny(before: Callable[[str | None], object] = lambda _: None) -> Callable[..., keras.Model]:
    """Stand in for `keras.applications.ResNet50`; `before` is called with the weights that are asked for."""

    def build(weights: str | None, include_top: bool, pooling: str | None, input_tensor: object) -> keras.Model:
        before(weights)
        x = keras.layers.Conv2D(6, 3, strides=4, name="conv1_conv")(input_tensor)
        return keras.Model(keras.utils.get_source_inputs(input_tensor), keras.layers.GlobalAveragePooling2D()(x))

    return build


def test_a_download_of_the_weights_is_no_part_of_the_start(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cached = [0.0], []

    def download(weights: str | None) -> None:
        if weights == "imagenet" and not cached:
            clock[0] += 95
            cached.append(weights)

    monkeypatch.setattr(keras.applications, "ResNet50", tiny(download))
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    speed = measure(FACTS, "imagenet", tree, HARDWARE, 3.0)
    assert (speed.start, cached) == (3.0, ["imagenet"])


def test_work_of_others_during_some_steps_does_not_count(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, steps = [0.0], iter([9.0, 4.0, 3.5, 4.0, 2.0, 5.0, 2.5])

    def train_on_batch(*_: object, **__: object) -> tuple[float, float]:
        clock[0] += next(steps)
        return 0.0, 0.0

    monkeypatch.setattr(keras.applications, "ResNet50", tiny())
    monkeypatch.setattr(throughput.TrainingModels, "train_on_batch", train_on_batch)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    speed = measure(FACTS, None, tree, HARDWARE, 0.0)
    assert (speed.update, speed.compile_step) == (2.0, 7.0)


def test_a_checkpoint_of_the_same_classes_is_measured_without_a_false_remark(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from whichcar.training.network.resnet50 import create_model

    monkeypatch.setattr(keras.applications, "ResNet50", tiny())
    model = create_model(None, (None, None, 3), classes=2, image_size=(64, 64), cosine_scale=16.0)
    names = tree.class_names
    save_checkpoint(model, Metadata(names, names, (64, 64), {}, {"model": {}}, "cars"), tmp_path / "first.keras")
    with caplog.at_level(logging.INFO):
        measure(FACTS, str(tmp_path / "first.keras"), tree, HARDWARE, 1.0)
    assert f"backbone and head of {tmp_path / 'first.keras'} are used: the same classes" in caplog.text
    assert "is not" not in caplog.text


def test_a_full_folder_for_temporary_files_is_named(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.applications, "ResNet50", tiny())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match="No space left on device") as caught:
        measure(FACTS, None, tree, HARDWARE, 1.0)
    assert caught.value.filename == tempfile.gettempdir()


def test_on_jax_a_speed_is_measured_and_compiled_steps_are_neither_used_nor_kept(tree: Tree, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(kept),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, str(PROGRAM), str(tree.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "train_step in measuring: 0, after it: 1\n"


@pytest.mark.slow
def test_a_speed_is_measured(tree: Tree) -> None:
    for backbone in ("resnet50", "mobilenet_v2"):
        speed = measure(Facts(2, 8, 2, 70, backbone=backbone), None, tree, HARDWARE, 1.0)
        assert speed.pixel > 0 and speed.compile_step > 0 and speed.save > 0 and speed.decode > 0
        assert speed.train(128, 8) > speed.train(64, 8) > speed.predict(64) > 0
