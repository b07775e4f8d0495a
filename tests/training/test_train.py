"""The loop, run whole with a tiny network on drawn cars: what it writes, when it stops, and how it resumes."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import numpy as np
import pytest
import yaml
from PIL import Image

from whichcar.cli import main
from whichcar.config.experiment import Experiment
from whichcar.config.load import read_experiment
from whichcar.data.split.split import split
from whichcar.data.split.tree import read_tree
from whichcar.errors import CheckpointError, ConfigError, DataError, Interrupted, TrainingError, WhichcarError
from whichcar.images.read import read_resized
from whichcar.metrics import Score
from whichcar.search.space import read_spec
from whichcar.training import loop, setup
from whichcar.training import train as start
from whichcar.training.hardware import prepare
from whichcar.training.loop import Run
from whichcar.training.memory import out_of_memory
from whichcar.training.network.models import TrainingModels
from whichcar.training.remarks import disk_needed, remarks
from whichcar.training.run import checkpointing
from whichcar.training.run.checkpoint import load_model, read_metadata
from whichcar.training.run.folder import ExperimentFolder
from whichcar.training.setup import load_data, load_tree, models_from
from whichcar.training.sizes import sizes_of
from whichcar.training.tracking import Tracking, tracking_of
from whichcar.training.train import Trained, train, trained_in
from whichcar.training.validation import validate

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(scope="module")
def tree(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn cars, split."""
    output = tmp_path_factory.mktemp("tree") / "v1"
    split(drawn, drawn / "car_dataset_labels.csv", output)
    return output


FULL_RECIPE = {
    "schedule": "cosine",
    "warmup_steps": 2,
    "head_rate": 3,
    "label_smoothing": 0.1,
    "random_resized_crop": {"side": [0.7, 1.0]},
    "mixup": 0.2,
    "cutmix": 1.0,
    "rand_augment": {},
    "plain_epochs": 1,
    "ema": 0.9,
    "batch_norm_momentum": 0.9,
    "precise_batch_norm": True,
    "gradient_accumulation": 2,
    "stages": [{"epochs": 1, "image_size": [24, 24]}, {"epochs": 2, "image_size": [32, 32]}],
    "test_sizes": [[40, 40]],
}
AT_THE_END = ("schedule", "stages", "plain_epochs", "precise_batch_norm")  # what the length of a run decides
PLAIN = {name: value for name, value in FULL_RECIPE.items() if name not in AT_THE_END}


def settings(tree: Path, **sections: dict) -> dict:
    """Settings of a run of seconds; sections are laid over them."""
    base: dict = {
        "seed": 5,
        "data": {"directory": str(tree), "image_size": [32, 32], "batch_size": 8},
        "model": {"weights": None},
        "compile": {"optimizer": {"sgd": {"learning_rate": 0.05, "momentum": 0.9}}},
        "fit": {"epochs": 2, "callbacks": {}},
        "hardware": {"precision": "float32"},
    }
    for name, section in sections.items():
        base.setdefault(name, {}).update(section)
    return base


def full_settings(tree: Path) -> dict:
    layers = {"random_flip": {"mode": "horizontal"}, "random_contrast": {"factor": 0.2}}
    return settings(tree, fit={"epochs": 3}, recipe=FULL_RECIPE, model={"data_aug_layer": layers})


def write(folder: Path, content: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def tiny_network(path: Path, classes: int, experiment: Experiment | None = None) -> TrainingModels:
    """A network of two layers instead of ResNet-50, so that a step takes milliseconds."""
    import keras

    experiment = experiment or read_experiment(path)
    keras.utils.set_random_seed(experiment.seed)
    layers = keras.layers
    inputs = keras.Input((None, None, 3))
    x = layers.Resizing(*experiment.data.image_size, antialias=True, name="resize")(inputs)
    x = layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")(x)
    x = layers.Conv2D(8, 5, strides=3, name="conv1_conv")(x)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    x = layers.Dropout(0.1)(x)
    export_model = keras.Model(inputs, layers.Dense(classes, "softmax", name="predictions")(x))
    models = models_from(export_model, experiment, prepare("float32"))
    # To compile takes longer than the steps of a few epochs; that growing sizes are compiled again is tested.
    if not experiment.recipe.stages and experiment.fit.epochs <= 5:
        models.train_model.run_eagerly = models.main_model.run_eagerly = True
    return models


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves in a test's own runs, which would take longer than their steps; `finished_run` has some."""
    monkeypatch.setattr(loop, "draw_curves", lambda path, *_: path.touch())


def run(path: Path, resume: bool = False, tracking: Tracking | None = None) -> Run:
    """A run of the config with the tiny network; the caller closes `run.folder`."""
    experiment = read_experiment(path)
    folder = ExperimentFolder(path, experiment)
    try:
        going_on = folder.open(resume, overwrite=False)
        sizes = sizes_of(experiment.data, experiment.recipe, experiment.fit.epochs)
        images = load_tree(experiment.data, experiment.model.classes, experiment.seed)
        data = load_data(images, sizes, experiment.data.validation_split)
        models = tiny_network(path, len(data.tree.class_folders))
        made = Run(experiment, folder, prepare("float32"), sizes, data, models, tracking or Tracking())
        if going_on:
            made.restore()
    except TrainingError:
        folder.close()
        raise
    return made


def trained(path: Path, resume: bool = False) -> Trained:
    made = run(path, resume)
    try:
        made.train()
        return trained_in(made.folder.path)
    finally:
        made.folder.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for runs that several tests look at."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def finished_run(tree: Path, shared: Path) -> Path:
    """The folder of a run of `settings(tree)` to its end; not to be written to."""
    return trained(write(shared / "exp", settings(tree))).folder


@pytest.fixture
def finished(finished_run: Path, tmp_path: Path) -> Path:
    """The config of such a run, in a folder of the test's own."""
    shutil.copytree(finished_run, tmp_path / "exp")
    return tmp_path / "exp" / "config.yml"


@pytest.fixture(scope="module")
def full_run(tree: Path, shared: Path) -> Run:
    """A run with everything random switched on, to its end."""
    return whole_run(write(shared / "full", full_settings(tree)))


@pytest.fixture(scope="module")
def long_run(tree: Path, shared: Path) -> Run:
    """A run of four epochs at a constant rate."""
    return whole_run(write(shared / "long", settings(tree, fit={"epochs": 4}, recipe=PLAIN)))


def whole_run(path: Path) -> Run:
    made = run(path)
    made.train()
    made.folder.close()
    return made


def steps_of(run: Run) -> int:
    return run.progress.epoch * len(run.batches) + run.progress.step


def stop_after(run: Run, is_time: Callable[[], bool]) -> None:
    """Send the interrupt of Ctrl-C after the first step for which `is_time` holds."""
    step = run._step

    def stopping_step(*batch: np.ndarray) -> None:
        step(*batch)
        if is_time():
            os.kill(os.getpid(), signal.SIGINT)

    run._step = stopping_step  # type: ignore[method-assign]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_writes_its_files(finished_run: Path) -> None:
    done = trained_in(finished_run)
    assert {entry.name for entry in done.folder.iterdir()} >= {
        *("config.yml", "resolved.json", "environment.json", "history.csv", "curves.png", "best.json", "state", "logs"),
        done.checkpoint.name,
    }
    assert [row["epoch"] for row in rows(done.folder)] == ["1", "2"]
    resolved = json.loads((done.folder / "resolved.json").read_text())
    assert resolved["finished"] and len(resolved["class_names"]) == 4
    assert list((done.folder / "logs" / "validation").iterdir())


def test_checkpoints_are_named_by_the_pattern(tree: Path, tmp_path: Path) -> None:
    pattern = {"model_checkpoint": {"filepath": "model.{epoch:02d}-{val_loss:.4f}.h5"}}
    done = trained(write(tmp_path / "exp", settings(tree, fit={"callbacks": pattern})))
    expected = [f"model.{e.epoch:02d}-{e.val_loss:.4f}.h5" for e in done.history]
    assert sorted(entry.name for entry in done.folder.glob("*.h5")) == expected


def test_without_validation_nothing_is_nan(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "whichcar")
    folder = tmp_path / "data"
    for number, name in enumerate(("A", "B")):
        (folder / name).mkdir(parents=True)
        shutil.copy(sorted((drawn / "car_ims").glob("*.jpg"))[number], folder / name)
    done = trained(write(tmp_path / "exp", settings(folder, data={"validation_split": 0})))
    assert (len(done.history), done.best["val_loss"], done.best["val_accuracy"]) == (2, None, None)
    best = min(done.history, key=lambda epoch: epoch.loss)
    assert done.checkpoint.name == f"model.{best.epoch:02d}-{best.loss:.4f}.keras"
    outputs = [caplog.text, capsys.readouterr().out, capsys.readouterr().err]
    left = [path for path in done.folder.rglob("*") if path.suffix in (".json", ".csv", ".yml")]
    assert len(left) >= 5
    assert "loss" in caplog.text
    assert not [
        text
        for text in (*outputs, *(path.read_text() for path in left))
        if re.search(r"\bNaN\b|(^|[ ,-])nan\b", text, re.M)
    ]
    assert not [path for path in done.folder.rglob("*") if "nan" in path.name]


def test_training_learns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("green", (40, 200, 40)), ("blue", (40, 40, 200))):
        folder = tmp_path / "colours" / name
        folder.mkdir(parents=True)
        for number in range(10):
            noise = rng.integers(-40, 40, (32, 32, 3))
            Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(folder / f"{number}.png")
    content = settings(tmp_path / "colours", fit={"epochs": 12}, data={"batch_size": 4})
    done = trained(write(tmp_path / "exp", content))
    assert done.history[-1].val_accuracy == 1.0
    assert done.history[-1].loss < 0.5 * done.history[0].loss


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(
    tree: Path, finished_run: Path, tmp_path: Path
) -> None:
    first = trained_in(finished_run)
    again, other = (
        trained(write(tmp_path / name, settings(tree) | {"seed": seed})) for name, seed in (("a", 5), ("b", 6))
    )
    assert [e.loss for e in first.history] == [e.loss for e in again.history]
    assert [e.loss for e in first.history] != [e.loss for e in other.history]


def test_a_resumed_run_ends_with_the_same_weights(tree: Path, full_run: Run, tmp_path: Path) -> None:
    """Stopped inside the second epoch, after a change of the image size."""
    path = write(tmp_path / "exp", full_settings(tree))
    stopped = run(path)
    stop_after(stopped, lambda: steps_of(stopped) == 3)
    with pytest.raises(Interrupted, match="everything is saved"):
        stopped.train()
    stopped.folder.close()
    resumed = run(path, resume=True)
    assert steps_of(resumed) == 3
    resumed.train()
    resumed.folder.close()

    variables = zip(full_run.models.state_variables(), resumed.models.state_variables(), strict=True)
    for expected, variable in variables:
        np.testing.assert_array_equal(expected.numpy(), variable.numpy(), err_msg=expected.path)
    assert [e.loss for e in full_run.history] == [e.loss for e in resumed.history]


def test_a_run_stopped_at_the_last_step_of_an_epoch_records_that_steps_rate(
    tree: Path, full_run: Run, tmp_path: Path
) -> None:
    path = write(tmp_path / "exp", full_settings(tree))
    stopped = run(path)
    stop_after(stopped, lambda: stopped.progress.step == len(stopped.batches))
    with pytest.raises(Interrupted):
        stopped.train()
    stopped.folder.close()
    resumed = run(path, resume=True)
    assert resumed.progress.step == len(resumed.batches)
    resumed.train()
    resumed.folder.close()
    assert [epoch.learning_rate for epoch in resumed.history] == [epoch.learning_rate for epoch in full_run.history]


def test_a_finished_run_is_extended_by_a_stage_larger_than_all_before(tree: Path, tmp_path: Path) -> None:
    stages = [{"epochs": 1, "image_size": [24, 24]}, {"epochs": 1, "image_size": [32, 32]}]
    trained(write(tmp_path / "exp", settings(tree, recipe={"stages": stages})))
    larger = [*stages, {"epochs": 1, "image_size": [48, 48]}]
    path = write(tmp_path / "exp", settings(tree, fit={"epochs": 3}, recipe={"stages": larger}))
    assert [epoch.image_size for epoch in trained(path, resume=True).history] == ["24x24", "32x32", "48x48"]


def test_a_run_is_not_extended_by_a_larger_stage_on_other_images(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "v1")
    stages = [{"epochs": 1, "image_size": [24, 24]}]
    trained(write(tmp_path / "exp", settings(tmp_path / "v1", fit={"epochs": 1}, recipe={"stages": stages})))
    source = next((tmp_path / "v1" / "train").rglob("*.jpg"))
    shutil.copy(source, source.with_name("new.jpg"))
    larger = [*stages, {"epochs": 1, "image_size": [48, 48]}]
    with pytest.raises(TrainingError, match=r"the images of .* changed since this run was stopped; put them back, or"):
        run(write(tmp_path / "exp", settings(tmp_path / "v1", fit={"epochs": 2}, recipe={"stages": larger})), True)


def test_ctrl_c_during_validation_stops_before_the_next_epoch(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Score:  # noqa: ANN401  (as they are given)
        os.kill(os.getpid(), signal.SIGINT)
        return validate(*arguments)

    monkeypatch.setattr(loop, "validate", interrupted)
    stopped = run(write(tmp_path / "exp", settings(tree)))
    with pytest.raises(Interrupted, match="stopped in epoch 1; everything is saved"):
        stopped.train()
    stopped.folder.close()
    assert (stopped.progress.epoch, stopped.progress.step) == (1, 0)


def test_the_schedule_counts_the_updates_that_take_place(tree: Path, tmp_path: Path) -> None:
    recipe = {"schedule": "cosine", "gradient_accumulation": 5}
    trained = train(write(tmp_path / "exp", settings(tree, fit={"epochs": 4}, recipe=recipe)))
    batches = len(read_tree(tree, 0.2, 5).train) // 8
    assert 4 * batches // 5 == 1 and 4 * batches % 5
    assert [row.learning_rate for row in trained.history] == [0.05] * 2 + [0.0] * 2


def test_a_run_of_fewer_batches_than_an_update_takes_is_refused(tree: Path, tmp_path: Path) -> None:
    short = run(write(tmp_path / "exp", settings(tree, recipe={"gradient_accumulation": 1000})))
    with pytest.raises(TrainingError, match=r"gradient_accumulation is 1000, but the run has \d+ batches, so that the"):
        short.train()
    short.folder.close()


def test_a_finished_run_is_left_as_it_is(finished: Path) -> None:
    before = {entry: entry.stat().st_mtime_ns for entry in finished.parent.rglob("*") if entry.name != "lock"}
    same = {repr(one) for one in (train(finished), train(finished, resume=True), trained_in(finished.parent))}
    assert len(same) == 1  # from Python 3.13 on, == is false for records that hold nan
    assert before == {entry: entry.stat().st_mtime_ns for entry in finished.parent.rglob("*") if entry.name != "lock"}


@pytest.mark.slow
def test_a_resumed_training_is_logged_to_the_same_run(tree: Path, tmp_path: Path, mlflow_store: MlflowClient) -> None:
    path = write(tmp_path / "exp", settings(tree))
    stopped = run(path, tracking=tracking_of("mlflow", tmp_path / "exp"))
    stop_after(stopped, lambda: stopped.progress.epoch == 1 and stopped.progress.step == 1)
    with pytest.raises(Interrupted), stopped.tracking.training():
        stopped.train()
    stopped.folder.close()
    number = json.loads((tmp_path / "exp" / "tracking.json").read_text())["mlflow"]
    assert mlflow_store.get_run(number).info.status == "KILLED"

    resumed = run(path, resume=True, tracking=tracking_of("mlflow", tmp_path / "exp"))
    with resumed.tracking.training():
        resumed.train()
    done = trained_in(resumed.folder.path)
    resumed.folder.close()
    logged = mlflow_store.get_run(number)
    assert logged.info.status == "FINISHED"
    assert logged.data.params["compile.optimizer.sgd.momentum"] == "0.9"
    losses = mlflow_store.get_metric_history(number, "loss")
    assert [metric.step for metric in losses] == [1, 2]
    assert [metric.value for metric in losses] == pytest.approx([epoch.loss for epoch in done.history], rel=1e-5)


@pytest.mark.slow
def test_a_finished_run_is_tracked_afterwards(finished: Path, mlflow_store: MlflowClient) -> None:
    train(finished, track="mlflow")
    number = json.loads((finished.parent / "tracking.json").read_text())["mlflow"]
    assert [metric.step for metric in mlflow_store.get_metric_history(number, "loss")] == [1, 2]
    assert {file.path for file in mlflow_store.list_artifacts(number)} >= {"config.yml", "curves.png", "best.json"}


def test_a_run_is_not_resumed_with_other_images(drawn: Path, tmp_path: Path) -> None:
    split(drawn, drawn / "car_dataset_labels.csv", tmp_path / "v1")
    path = write(tmp_path / "exp", settings(tmp_path / "v1"))
    stopped = run(path)
    stopped._describe(finished=False)
    stopped.save()
    stopped.folder.close()
    sorted((tmp_path / "v1" / "train").glob("*/*.jpg"))[0].unlink()
    with pytest.raises(TrainingError, match="changed since this run was stopped"):
        run(path, resume=True)


def test_an_unfinished_run_is_not_overwritten_by_accident(tree: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "exp", settings(tree))
    stopped = run(path)
    stopped._describe(finished=False)
    stopped.folder.close()
    with pytest.raises(TrainingError, match=r"unfinished run; resume with --resume"):
        train(path)


def test_another_experiments_folder_is_refused(tree: Path, finished: Path) -> None:
    other = write(finished.parent, settings(tree, fit={"epochs": 3}))
    with pytest.raises(TrainingError, match=r"fit\.epochs: 2 there, 3 here"):
        train(other)


def test_a_checkpoint_path_in_another_experiments_folder_is_refused(tree: Path, tmp_path: Path) -> None:
    elsewhere = {"model_checkpoint": {"filepath": str(tmp_path / "other" / "model.{epoch:02d}.keras")}}
    with pytest.raises(ConfigError, match="not in this experiment's folder"):
        train(write(tmp_path / "exp", settings(tree, fit={"callbacks": elsewhere})))


def test_a_loss_that_is_not_a_number_stops_with_advice(tree: Path, tmp_path: Path) -> None:
    content = settings(tree, compile={"optimizer": {"sgd": {"learning_rate": 1e30}}}, fit={"epochs": 9})
    with pytest.raises(TrainingError, match=r"loss became (nan|inf).*lower the learning rate \(1e\+30\)"):
        trained(write(tmp_path / "exp", content))


@pytest.mark.slow
def test_after_running_out_of_memory_the_printed_command_trains_with_the_same_updates(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "an exp", settings(tree, recipe={"schedule": "cosine", "warmup_steps": 2}))
    monkeypatch.setattr(
        "whichcar.training.train.build_models", lambda experiment, _, names: tiny_network(path, len(names), experiment)
    )
    step = Run._step
    # A real refusal by the allocator: images of 1 TB each.
    huge = np.broadcast_to(np.zeros((1, 1, 1, 3), np.uint8), (8, 600_000, 600_000, 3))

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", lambda run, _, labels: step(run, huge, labels))
        assert main.run(["train", str(path), "--set", "seed=6", "--set", "data.batch_size = 8"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    words = shlex.split(message.partition("smaller batches: ")[2])
    changed = ["--set", "seed=6", "--set", "data.batch_size=4", "--set", "recipe.gradient_accumulation=2"]
    assert words == ["whichcar", "train", str(path), *changed, "--overwrite"]
    assert main.run(words[1:]) == 0
    halves = [epoch["learning_rate"] for epoch in rows(path.parent)]
    longer = [*words[1:-1], "--set", "fit.epochs=9", "--resume"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", lambda run, _, labels: step(run, huge[: len(labels)], labels))
        assert main.run(longer) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"; free memory and resume: {shlex.join(['whichcar', *longer])}; or start again with the same" in message
    whole = trained(write(tmp_path / "whole", settings(tree, recipe={"schedule": "cosine", "warmup_steps": 2})))
    assert halves == [f"{epoch.learning_rate:.6g}" for epoch in whole.history]


@pytest.mark.parametrize(("batch_size", "command"), [(33, "=11.*accumulation=3"), (7, "=1 .*accumulation=7")])
def test_a_batch_of_odd_size_is_divided_into_smaller_batches(tmp_path: Path, batch_size: int, command: str) -> None:
    path = write(tmp_path, settings(tmp_path, data={"batch_size": batch_size}))
    assert re.search(f"batch_size{command}", str(out_of_memory(path, read_experiment(path))))


@pytest.mark.parametrize(
    ("batch_size", "devices", "advice"),
    [
        (12, 4, "=4 .*accumulation=3"),  # batches of 6 would be refused
        (32, 4, "=16 .*accumulation=2"),
        (8, 8, "; use smaller images"),  # 4 images would be on 4 devices, one on each as before
    ],
)
def test_smaller_batches_put_fewer_images_on_each_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int, devices: int, advice: str
) -> None:
    mesh = SimpleNamespace(device_mesh=SimpleNamespace(devices=np.empty(devices)))
    monkeypatch.setattr("keras.distribution.distribution", lambda: mesh)
    path = write(tmp_path, settings(tmp_path, data={"batch_size": batch_size}))
    assert re.search(f"batch_size(?: {batch_size})?{advice}", str(out_of_memory(path, read_experiment(path))))


def test_a_batch_of_one_image_is_not_divided(tmp_path: Path) -> None:
    path = write(tmp_path, settings(tmp_path, data={"batch_size": 1}))
    assert "use smaller images: lower data.image_size" in str(out_of_memory(path, read_experiment(path)))


@pytest.mark.parametrize("changes", [{}, {"test_sizes": [[20, 20], [52, 52]]}])
def test_precise_batch_norm_leaves_the_moments_of_training_images_at_the_size_of_prediction(
    tree: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    import keras

    recipe = {"precise_batch_norm": True, "random_resized_crop": {"side": [0.3, 0.4]}, "ema": 0.5}
    stopping = {"early_stopping": {"monitor": "val_loss", "patience": 1, "min_delta": 100.0}}
    fit = {"epochs": 4, "callbacks": stopping}
    made = run(write(tmp_path / "exp", settings(tree, fit=fit, recipe=recipe | changes)))
    made.train()
    made.folder.close()
    height, width = made.checkpoints.best["image_size"]
    model = made.models.export_model
    images = np.stack([read_resized(made.data.path_of(row), (height, width)) for row in made.data.train_rows])
    seen = keras.Model(model.inputs[0], model.get_layer("conv1_conv").output)(images.astype(np.float32))
    expected = [np.mean(seen, axis=(0, 1, 2)), np.var(seen, axis=(0, 1, 2))]
    written = load_model(made.folder.path / made.checkpoints.best["checkpoint"]).get_layer("conv1_bn").get_weights()
    for found, moment in zip(written[-2:], expected, strict=True):
        assert found == pytest.approx(moment, rel=1e-3, abs=1e-5)


def test_an_image_that_is_gone_when_moments_are_recomputed_costs_no_epoch(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "v1"
    shutil.copytree(tree, copy)
    path = write(tmp_path / "exp", settings(copy, recipe={"precise_batch_norm": True}))
    made = run(path)
    gone = made.data.path_of(made.data.train_rows[0])
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(DataError, match=r"put it back and use --resume: all epochs are saved"):
        made.train()
    made.folder.close()
    gone.write_bytes(content)
    assert len(trained(path, resume=True).history) == 2


def test_out_of_memory_on_several_hosts_the_command_is_for_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, settings(tmp_path))
    monkeypatch.setattr("whichcar.training.hosts._count", 2)
    assert str(out_of_memory(path, read_experiment(path))).endswith(" --overwrite (on every host, with its --hosts)")


@pytest.mark.slow
def test_a_shorter_run_scales_its_stages_and_logs_it(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stages = [{"epochs": 11, "image_size": [24, 24]}, *({"epochs": 3, "image_size": [s, s]} for s in (28, 32))]
    recipe = {"stages": stages, "plain_epochs": 3, "mixup": 0.2, "warmup_steps": 150}
    done = trained(write(tmp_path / "exp", settings(tree, fit={"epochs": 3}, recipe=recipe)))
    assert [epoch.image_size for epoch in done.history] == ["24x24", "28x28", "32x32"]
    assert "recipe.stages: scaled from 11, 3, 3 to 1, 1, 1 epochs, as fit.epochs is 3" in caplog.text
    assert "recipe.plain_epochs is 3: all 3 epochs are without mixup, CutMix and RandAugment" in caplog.text
    assert (
        "the learning rate is warmed up for 150 of 6 updates; for a shorter warm-up write, for example" in caplog.text
    )


def test_a_batch_larger_than_the_data_is_said(tree: Path, tmp_path: Path) -> None:
    experiment = read_experiment(write(tmp_path / "exp", settings(tree, data={"batch_size": 40})))
    assert list(remarks(experiment, 19, 2)) == [
        "data.batch_size is 40, but there are 19 training images: each batch has 19"
    ]


def test_a_size_that_has_no_effect_is_said(tree: Path, tmp_path: Path) -> None:
    def said(folder: str, recipe: dict, data: dict, weights: str | None = None) -> list[str]:
        content = settings(tree, data=data, recipe=recipe, model={"weights": weights})
        return list(remarks(read_experiment(write(tmp_path / folder, content)), 19, 90))

    stages = [{"epochs": 1, "image_size": [size, size]} for size in (24, 32)]
    [remark] = said("larger", {"stages": stages}, {"image_size": [320, 320]})
    assert remark.startswith("data.image_size is 320x320, but recipe.stages sets the size of each epoch; change the")
    assert not said("last", {"stages": stages}, {"image_size": [32, 32]})
    features = {"cached_features": True, "freeze": 5}
    [remark] = said("features", features, {"cache_size": [64, 64]}, "imagenet")
    assert remark.startswith("data.cache_size has no effect with recipe.cached_features")
    assert not said("whole", features, {"cache_size": [32, 32], "image_size": [32, 32]}, "imagenet")


@pytest.mark.parametrize("name", ["fast", "head"])
def test_our_searches_set_nothing_that_has_no_effect(name: str) -> None:
    spec = read_spec(Path(__file__).parents[2] / "experiments" / "sweeps" / f"{name}.yml")
    said = remarks(Experiment.model_validate(spec.settings), 5212, 900)
    assert [remark for remark in said if remark.startswith("data.")] == []


def test_settings_among_the_classes_are_refused_before_a_folder_is_made(quick: Path, tree: Path) -> None:
    write(quick.parent, settings(tree))
    config = quick.rename(tree / "train" / "mine.yml")
    with pytest.raises(DataError, match=r"mine: lies in .*, where it would be taken for a class"):
        train(config)
    assert not config.with_suffix("").exists()


@pytest.mark.parametrize(
    ("recipe", "advice"),
    [
        ({"warmup_share": 0.6}, "recipe.warmup_share: 0.05"),
        ({"warmup_steps": 60}, "recipe.warmup_share: 0.05 instead of recipe.warmup_steps"),
    ],
)
def test_a_long_warm_up_is_said_with_a_shorter_one(tree: Path, tmp_path: Path, recipe: dict, advice: str) -> None:
    [remark] = remarks(read_experiment(write(tmp_path / "exp", settings(tree, recipe=recipe))), 19, 100)
    assert remark.endswith(f"warmed up for 60 of 100 updates; for a shorter warm-up write, for example, {advice}")


@pytest.mark.slow
def test_without_restoring_the_last_epoch_is_evaluated(tree: Path, tmp_path: Path) -> None:
    stopping = {"early_stopping": {"patience": 9, "restore_best_weights": False}}
    done = trained(write(tmp_path / "exp", settings(tree, fit={"epochs": 4, "callbacks": stopping})))
    assert done.best["epoch"] == 4
    assert done.checkpoint.name == done.history[-1].checkpoint


@pytest.mark.slow
def test_restoring_takes_the_best_epoch_by_the_value_that_early_stopping_watches(tree: Path, tmp_path: Path) -> None:
    stopping = {"early_stopping": {"patience": 9, "monitor": "loss", "restore_best_weights": True}}
    content = settings(tree, fit={"epochs": 4, "callbacks": stopping})
    content["compile"] = {"optimizer": {"sgd": {"learning_rate": 3.0}}}  # far too high: the loss goes up and down
    done = trained(write(tmp_path / "exp", content))
    assert done.best["epoch"] == min(done.history, key=lambda epoch: epoch.loss).epoch


def test_early_stopping_ends_after_its_patience(tree: Path, tmp_path: Path) -> None:
    stopping = {"early_stopping": {"monitor": "val_loss", "patience": 2, "min_delta": 100.0}}
    done = trained(write(tmp_path / "exp", settings(tree, fit={"epochs": 9, "callbacks": stopping})))
    assert len(done.history) == 3


def test_the_rate_is_lowered_on_a_plateau_down_to_its_floor(tree: Path, tmp_path: Path) -> None:
    plateau = {
        "reduce_on_plateau": {"monitor": "val_loss", "factor": 0.1, "patience": 1, "min_delta": 100.0, "min_lr": 0.001}
    }
    done = trained(write(tmp_path / "exp", settings(tree, fit={"epochs": 5, "callbacks": plateau})))
    rates = [epoch.learning_rate for epoch in done.history]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.001, 0.001])


def test_sizes_grow_as_the_stages_say_and_the_test_size_is_chosen_on_validation(full_run: Run) -> None:
    done = trained_in(full_run.folder.path)
    assert [epoch.image_size for epoch in done.history] == ["24x24", "32x32", "32x32"]
    losses = {size: score["loss"] for size, score in done.best["test_sizes"].items()}
    assert min(losses, key=lambda size: losses[size]) == "x".join(map(str, done.best["image_size"]))
    assert "40x40" in losses


def test_a_class_count_that_disagrees_with_the_folders_says_what_to_do(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.classes: 7, but .* has 4 class folders; set model\.classes: 4"):
        train(write(tmp_path / "exp", settings(tree, model={"weights": None, "classes": 7})))


def test_a_missing_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        train(write(tmp_path / "exp", settings(tmp_path / "nowhere")))


def test_a_broken_image_is_named_and_left_out(drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split(drawn, drawn / "car_dataset_labels.csv", tmp_path / "v1")
    victim = sorted((tmp_path / "v1" / "train").glob("*/*.jpg"))[0]
    broken = victim.read_bytes()[:200]
    victim.unlink()  # a hard link: the drawn image itself stays whole
    victim.write_bytes(broken)
    experiment = read_experiment(write(tmp_path / "exp", settings(tmp_path / "v1")))
    images = load_tree(experiment.data, None, experiment.seed)
    data = load_data(images, sizes_of(experiment.data, experiment.recipe, 1), experiment.data.validation_split)
    everything = len(data.tree.train) + len(data.tree.validation)
    assert len(data.train_rows) + len(data.validation_classes) == everything - 1
    assert victim.name in caplog.text


def test_training_in_a_thread_works_without_signals(tree: Path, tmp_path: Path) -> None:
    path, results = write(tmp_path / "exp", settings(tree)), []
    thread = threading.Thread(target=lambda: results.append(trained(path)))
    thread.start()
    thread.join()
    assert len(results[0].history) == 2


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(tree: Path, quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file-size limit of the kernel replaces the full disk: from the first step on no file may grow above 4 kB."""
    write(quick.parent, settings(tree, fit={"epochs": 1}))
    step, (soft, hard) = Run._step, resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_a_full_disk(self: Run, *batch: np.ndarray) -> None:
        step(self, *batch)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))

    monkeypatch.setattr(Run, "_step", on_a_full_disk)
    try:
        with pytest.raises(TrainingError, match="the disk is full; what was saved is untouched: make room and resume"):
            train(quick)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(quick.parent.glob("*.keras"))
    assert not [entry for entry in quick.parent.rglob(".*") if entry.is_file()]


ONE = {"model_checkpoint": {"filepath": "model.{epoch:02d}.h5", "save_best_only": True, "keep": 1, "monitor": "loss"}}


def test_of_short_epochs_only_the_last_best_is_written(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    save = checkpointing.save_checkpoint
    monkeypatch.setattr(checkpointing, "WRITE_SECONDS", 600.0)  # no epoch is long, however busy the machine
    monkeypatch.setattr(checkpointing, "save_checkpoint", lambda *args: (written.append(args[-1].name), save(*args)))
    done = trained(write(tmp_path / "exp", settings(tree, fit={"epochs": 4, "callbacks": ONE})))
    best = min(done.history, key=lambda epoch: epoch.loss)
    assert written == [best.checkpoint] == [done.checkpoint.name]
    assert load_model(done.checkpoint).count_params() > 0
    assert done.best["epoch"] == best.epoch


def test_the_best_that_waits_is_written_when_training_fails(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(write(tmp_path / "exp", settings(tree, fit={"epochs": 4, "callbacks": ONE})))
    step = made._step

    def fails(*batch: np.ndarray) -> None:
        if made.progress.epoch == 2:
            raise TrainingError("the loss became nan")
        step(*batch)

    monkeypatch.setattr(made, "_step", fails)
    try:
        with pytest.raises(TrainingError):
            made.train()
    finally:
        made.folder.close()
    assert json.loads((tmp_path / "exp" / "best.json").read_text())["epoch"] in (1, 2)
    assert len(list((tmp_path / "exp").glob("model.*.h5"))) == 1


@pytest.mark.slow
def test_where_all_checkpoints_are_kept_none_is_passed_over(tree: Path, tmp_path: Path) -> None:
    every = {"model_checkpoint": {**ONE["model_checkpoint"], "keep": None}}
    done = trained(write(tmp_path / "exp", settings(tree, fit={"epochs": 4, "callbacks": every})))
    named = [epoch.checkpoint for epoch in done.history if epoch.checkpoint]
    assert len(named) > 1
    assert sorted(file.name for file in done.folder.glob("model.*.h5")) == named


@pytest.mark.slow
def test_a_given_validation_split_is_trained_with_and_a_drawn_one_is_remembered(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shutil.copytree(tree / "train", tmp_path / "classes")
    shutil.copytree(tree / "train", tmp_path / "divided" / "train")
    shutil.copytree(tree / "test", tmp_path / "divided" / "valid")
    remembered = {}
    for name in ("classes", "divided"):
        best = trained(write(tmp_path / f"exp {name}", settings(tmp_path / name, fit={"epochs": 1}))).checkpoint
        remembered[name] = read_metadata(best).validation
    drawn = read_tree(tmp_path / "classes", 0.2, 5)
    assert remembered == {"classes": tuple(sorted(drawn.drawn or ())), "divided": None}
    assert read_tree(tmp_path / "divided", 0.2, 5).summary in caplog.text
    assert not (tmp_path / "classes" / "split.json").exists()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let `train` build the tiny network too; gives the config to write."""
    config = tmp_path / "exp" / "config.yml"
    monkeypatch.setattr(start, "build_models", lambda _, __, names: tiny_network(config, len(names)))
    return config


def unreachable(*_: object, **__: object) -> str:
    raise URLError("Name or service not known")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_that_fails_before_the_first_step_touches_the_run_to_be_overwritten(
    tmp_path: Path, finished: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_uses = quick.parent / "evaluations" / "other" / "result.json"
    write_uses.parent.mkdir(parents=True)
    write_uses.write_text("{}")
    (tmp_path / "a file").write_text("in the way")
    before = everything(quick.parent)

    def fails(reason: str, *overrides: str, track: str | None = None, **environment: str) -> None:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(WhichcarError, match=reason):
                train(quick, overrides, overwrite=True, track=track)
        assert everything(quick.parent) == before, reason

    fails("no `mlfow`; known: mlflow", track="mlfow")
    fails("unsupported|Could not|registry|scheme", track="mlflow", MLFLOW_TRACKING_URI="gopher://nowhere")
    fails("nowhere", f"data.directory={tmp_path / 'nowhere'}")
    fails(r"exp: lies in .*, where it would be taken for a class", f"data.directory={tmp_path}")
    fails(r"model\.classes: 7, but", "model.classes=7")
    fails("a file", WHICHCAR_CACHE=str(tmp_path / "a file" / "cache"))
    fails("KERAS_BACKEND=theano: not usable", KERAS_BACKEND="theano")
    fails("no such setting", "model.droput_rate=0.5")
    with monkeypatch.context() as patch:
        patch.setattr(start, "build_models", setup.build_models)  # the real one, which wants its weights
        fails(r"model\.weights: no file", f"model.weights={tmp_path / 'no.h5'}")
        patch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
        patch.setattr(setup, "decode_all", lambda *_: pytest.fail("images are decoded in vain"))
        fails(r"the ImageNet weights of ResNet50 could not be downloaded", "model.weights=imagenet")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorboardX", None)
        fails("tensorboardX is not installed")


def test_overwriting_ends_with_the_new_run_alone(tree: Path, finished: Path, quick: Path) -> None:
    (quick.parent / "evaluations").mkdir()
    for name in ("result.json", "test_uses.json"):
        (quick.parent / name).write_text("{}")
    write(quick.parent, settings(tree) | {"seed": 6})
    done = train(quick.parent, overwrite=True)
    left = {path.name for path in quick.parent.iterdir() if not path.name.endswith(".lock")}
    assert left == {
        *("config.yml", "resolved.json", "environment.json", "history.csv", "curves.png", "best.json", "state", "logs"),
        *(epoch.checkpoint for epoch in done.history),
        "test_uses.json",
    }
    assert json.loads((quick.parent / "resolved.json").read_text())["settings"]["seed"] == 6


def test_a_new_run_whose_loss_is_not_a_number_leaves_the_earlier_one(
    finished: Path, quick: Path, mlflow_store: MlflowClient
) -> None:
    first = trained_in(finished.parent)
    train(quick, track="mlflow")
    number = json.loads((quick.parent / "tracking.json").read_text())["mlflow"]
    before = everything(quick.parent)
    with pytest.raises(TrainingError, match="loss became"):
        train(quick, ["compile.optimizer={sgd: {learning_rate: 1e30}}", "fit.epochs=9"], overwrite=True, track="mlflow")
    assert everything(quick.parent) == before
    assert repr(train(quick)) == repr(first)  # from Python 3.13 on, == is false for records that hold nan
    assert mlflow_store.get_run(number).info.status == "FINISHED", "the earlier run's is not touched"


def test_a_run_stopped_before_its_first_checkpoint_leaves_the_earlier_one_and_is_started_again(
    finished: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(quick.parent)
    step = Run._step

    def stops(self: Run, *batch: np.ndarray) -> None:
        step(self, *batch)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "_step", stops)
    with pytest.raises(Interrupted, match="stopped before the first checkpoint") as caught:
        train(quick, overwrite=True)
    assert not caught.value.saved
    assert everything(quick.parent) == before


def test_a_finished_run_logs_how_to_train_longer(finished: Path, quick: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    caplog.clear()
    train(quick.parent, ["fit.epochs=2"])
    assert "already trained for 2 epochs: nothing to do; train on with: whichcar train" in caplog.text
    assert "config.yml --resume --set fit.epochs=4, or start over with --overwrite" in caplog.text
    (quick.parent / "state" / "state.npz").unlink()
    caplog.clear()
    train(quick)
    assert "nothing to do; start over with --overwrite" in caplog.text
    with pytest.raises(TrainingError, match=r"cannot be trained on, since .*state\.npz is gone; start over"):
        train(quick, ["fit.epochs=3"], resume=True)


def test_a_run_that_more_epochs_alone_would_not_extend_names_no_command(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = write(tmp_path / "exp", settings(tree, fit={"epochs": 2, "stop_after": 1}))
    trained(path)
    caplog.clear()
    train(path)
    assert "already trained for 1 epoch: nothing to do; start over with --overwrite" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("stop", [False, True])
def test_an_extended_run_equals_one_of_that_length_from_the_start(
    tree: Path, long_run: Run, tmp_path: Path, stop: bool
) -> None:
    """At a constant rate, with a test size settled at the end of the shorter run; finished, or stopped in epoch 2."""
    shorter = run(write(tmp_path / "shorter", settings(tree, fit={"epochs": 2}, recipe=PLAIN)))
    if stop:
        stop_after(shorter, lambda: shorter.progress.epoch == 1 and shorter.progress.step == 1)
        with pytest.raises(Interrupted):
            shorter.train()
    else:
        shorter.train()
    shorter.folder.close()
    extended = run(write(tmp_path / "shorter", settings(tree, fit={"epochs": 4}, recipe=PLAIN)), resume=True)
    assert extended.progress.epoch == (1 if stop else 2)
    extended.train()
    extended.folder.close()
    variables = zip(long_run.models.state_variables(), extended.models.state_variables(), strict=True)
    for expected, variable in variables:
        np.testing.assert_array_equal(expected.numpy(), variable.numpy(), err_msg=expected.path)
    assert [(e.loss, e.val_loss) for e in long_run.history] == [(e.loss, e.val_loss) for e in extended.history]
    best, expected_best = (trained_in(done.folder.path).best for done in (extended, long_run))
    assert best | {"blake2b": ""} == expected_best | {"blake2b": ""}, "a .keras file has a date in it"
    assert json.loads((tmp_path / "shorter" / "resolved.json").read_text())["settings"]["fit"]["epochs"] == 4


def test_settings_that_do_not_extend_a_finished_run_are_refused(tree: Path, tmp_path: Path) -> None:
    stages = [{"epochs": 1, "image_size": [24, 24]}, {"epochs": 1, "image_size": [32, 32]}]
    stopping = {"early_stopping": {"monitor": "val_loss", "patience": 1, "min_delta": 100.0}}
    base = {"fit": {"epochs": 4, "callbacks": stopping}, "recipe": {"stages": stages}}
    first = trained(write(tmp_path / "exp", settings(tree, **base)))
    assert len(first.history) == 2

    def refused(reason: str, resume: bool = True, **changed: dict) -> None:
        with pytest.raises(TrainingError, match=reason):
            run(write(tmp_path / "exp", settings(tree, **{**base, **changed})), resume)

    longer = {"epochs": 6, "callbacks": stopping}
    refused("fit.epochs: 4 there, 6 here.*; train on with --resume, use a folder", resume=False, fit=longer)
    refused(r"model\.dropout_rate: 0\.0 there, 0\.5 here", fit=longer, model={"weights": None, "dropout_rate": 0.5})
    refused("epoch 2 was trained at 24x24, and would be at 32x32 now", fit={"epochs": 2})
    refused("has trained for 2 epochs already; set fit.epochs to more", fit={"epochs": 1})
    wide = [{"epochs": 2, "image_size": [24, 24]}, {"epochs": 2, "image_size": [32, 32]}]
    advised = r"early stopping has ended this run after 2 epochs.* --set fit\.callbacks\.early_stopping\.patience=4$"
    refused(advised, recipe={"stages": wide}, fit=longer | {"epochs": 4})


def test_a_run_stopped_after_a_later_epoch_follows_the_same_schedule(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def content(**fit: int) -> dict:
        return settings(tree, fit={"epochs": 4, **fit}, recipe={"schedule": "cosine", "plain_epochs": 1, "mixup": 0.2})

    whole = trained(write(tmp_path / "whole", content()))
    trained(write(tmp_path / "exp", content(stop_after=1)))
    done = trained(write(tmp_path / "exp", content(stop_after=2)), resume=True)
    rates = [epoch.learning_rate for epoch in whole.history]
    assert [epoch.learning_rate for epoch in done.history] == rates[:2]
    assert "schedule is computed for" not in caplog.text
    assert "recipe.plain_epochs" not in caplog.text
    with pytest.raises(TrainingError, match=r"has trained for 2 epochs already; set fit\.stop_after to more"):
        run(write(tmp_path / "exp", content(stop_after=1)), resume=True)


def test_that_a_warm_up_of_a_share_begins_again_is_a_warning(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = {"warmup_share": 0.5}
    trained(write(tmp_path / "exp", settings(tree, fit={"epochs": 1}, recipe=recipe)))
    run(write(tmp_path / "exp", settings(tree, fit={"epochs": 4}, recipe=recipe)), resume=True)
    assert "the constant schedule is computed for 4 epochs now" in caplog.text


def test_what_a_run_is_trained_on_from_are_the_running_moments_not_those_recomputed_at_its_end(
    tree: Path, tmp_path: Path
) -> None:
    recipe = {"precise_batch_norm": True}
    made = whole_run(write(tmp_path / "exp", settings(tree, fit={"epochs": 1}, recipe=recipe)))
    plain = whole_run(write(tmp_path / "plain", settings(tree, fit={"epochs": 1})))
    further = run(write(tmp_path / "exp", settings(tree, fit={"epochs": 2}, recipe=recipe)), resume=True)
    running, recomputed, expected = (
        model.get_layer("conv1_bn").moving_mean.numpy()
        for model in (further.models.main_model, made.models.export_model, plain.models.main_model)
    )
    np.testing.assert_array_equal(running, expected)
    assert np.abs(recomputed - running).max() > 1e-3


@pytest.mark.slow
def test_a_run_that_stopped_early_resumes_without_early_stopping(tree: Path, tmp_path: Path) -> None:
    stopping = {"early_stopping": {"monitor": "val_loss", "patience": 1, "min_delta": 100.0}}
    trained(write(tmp_path / "exp", settings(tree, fit={"epochs": 4, "callbacks": stopping})))
    assert len(rows(tmp_path / "exp")) == 2
    done = trained(write(tmp_path / "exp", settings(tree, fit={"epochs": 4})), resume=True)
    assert len(done.history) == 4


@pytest.mark.slow
def test_a_cosine_schedule_is_computed_for_the_new_length_with_a_warning(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = {"schedule": "cosine", "plain_epochs": 1}
    first = trained(write(tmp_path / "exp", settings(tree, recipe=recipe)))
    done = trained(write(tmp_path / "exp", settings(tree, fit={"epochs": 4}, recipe=recipe)), resume=True)
    assert "the cosine schedule is computed for 4 epochs now: the learning rate resumes from its value there" in (
        caplog.text
    )
    assert "recipe.plain_epochs: the last 1 epoch of the new length" in caplog.text
    assert done.history[2].learning_rate > first.history[1].learning_rate


@pytest.mark.slow
def test_the_rate_of_images_leaves_out_the_steps_that_compile(tree: Path, tmp_path: Path) -> None:
    """The first of a process, also inside an epoch, and the first at another size."""
    stages = [{"epochs": 1, "image_size": [24, 24]}, {"epochs": 1, "image_size": [32, 32]}]
    made = run(write(tmp_path / "exp", settings(tree, recipe={"stages": stages})))
    try:
        batch = next(iter(made.batches.epoch(0, 0)))
        counted = []
        for epoch in (0, 0, 1, 1):
            made.progress.epoch = epoch
            made._step(*batch)
            made._read_results()
            counted.append(made.progress.timed)
        assert counted == [0, 8, 8, 16]
        again = run_again(made)
        again._step(*batch)
        again._read_results()
        assert again.progress.timed == 16
    finally:
        made.folder.close()


def run_again(made: Run) -> Run:
    """The same run in another process."""
    other = Run(made.experiment, made.folder, made.hardware, made.sizes, made.data, made.models, made.tracking)
    other.progress = made.progress
    return other


def test_each_epoch_is_logged_in_one_line(
    tree: Path, quick: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("WHICHCAR_QUIET")
    monkeypatch.setattr("whichcar.progress.SECONDS_BETWEEN_LINES", 600.0)
    caplog.set_level("INFO")
    train(write(quick.parent, settings(tree)))
    lines = [line for line in (*caplog.messages, *capsys.readouterr().err.splitlines()) if line.startswith("epoch ")]
    assert len(lines) == 2
    assert all("elapsed" in line for line in lines)
    assert "remaining" in lines[0] and "remaining" not in lines[1]


@pytest.mark.parametrize("second_row", ["2,x\n", ""])
def test_a_damaged_or_incomplete_history_is_written_again_before_a_resumed_run_trains_on(
    tree: Path, finished: Path, second_row: str
) -> None:
    path = finished.parent / "history.csv"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:2]) + second_row)
    longer = run(write(finished.parent, settings(tree, fit={"epochs": 3})), resume=True)
    seen: list[str] = []

    def begin(_: object) -> None:
        seen.append(path.read_text())
        raise KeyboardInterrupt

    longer.tracking.begin = begin  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        longer.train()
    longer.folder.close()
    assert seen == [whole]


def test_the_weights_of_training_are_restored_where_predicting_with_their_mean_fails(full_run: Run) -> None:
    models = full_run.models
    before = [weight + 1 for weight in models.train_model.get_weights()]
    models.train_model.set_weights(before)
    with pytest.raises(ZeroDivisionError), models.averaged():
        assert any((a != b).any() for a, b in zip(models.train_model.get_weights(), before, strict=True))
        raise ZeroDivisionError
    for weight, expected in zip(models.train_model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_a_second_signal_reports_what_is_kept_and_how_to_resume(
    tree: Path, quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(quick.parent, settings(tree))
    step, save = Run._step, loop.save_state
    first = iter((signal.SIGINT, signal.SIGHUP, signal.SIGTERM))

    def stops(self: Run, *batch: np.ndarray) -> None:
        step(self, *batch)
        os.kill(os.getpid(), next(first))

    def stops_again(*state: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(*state)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "_step", stops)
    with monkeypatch.context() as impatient:
        impatient.setattr(loop, "save_state", stops_again)
        assert main.run(["train", str(quick)]) == 130
    again = f"\nresume with: whichcar train {quick} --resume\n"
    assert f"\n{quick.parent}: stopped at once; nothing has been saved yet{again}" in capsys.readouterr().err
    assert main.run(["train", str(quick), "--resume"]) == 130
    err = capsys.readouterr().err
    assert err.count("stopping after this step or validation; Ctrl-C again stops at once\n") == 1
    assert "stopped in epoch 1; everything is saved" in err
    monkeypatch.setattr(loop, "save_state", stops_again)
    assert main.run(["train", str(quick), "--resume"]) == 130
    assert f"stopped at once; the last state was saved in epoch 1, batch 1{again}" in capsys.readouterr().err

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "load_data", stopped)
    assert main.run(["train", str(quick), "--resume"]) == 130
    assert f"stopped at once; it resumes from the last saved state{again}" in capsys.readouterr().err


def test_a_signal_before_the_first_step_reports_how_to_resume(
    tree: Path, quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(quick.parent, settings(tree))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "load_data", stopped)
    for option, advice in (("--resume", "resume with"), ("--overwrite", "start again with")):
        assert main.run(["train", str(quick), option]) == 130
        assert f"\n{advice}: whichcar train {quick} {option}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"model": {"weights": "nowhere.h5"}}, "model.weights: no file nowhere.h5; give imagenet, null, or the path"),
        ({"model": {"weights": __file__}}, "test_train.py: not an HDF5 file"),
        ({"model": {"weights": "broken.keras"}}, "model.weights: .*broken.keras is damaged"),
        ({"data": {"directory": "nowhere"}}, "nowhere: no such folder"),
    ],
)
def test_a_wrong_path_is_reported_before_the_backend_is_loaded(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict, message: str
) -> None:
    def loaded(_: str) -> None:
        raise AssertionError("the backend was loaded")

    monkeypatch.setattr(start, "prepare", loaded)
    monkeypatch.chdir(tmp_path)
    Path("broken.keras").write_bytes(b"no archive")
    with pytest.raises((CheckpointError, DataError), match=message):
        train(write(tmp_path / "exp", settings(tree, **section)))


@pytest.mark.slow
def test_the_seconds_of_an_epoch_hold_the_writing_of_its_checkpoint(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpointing.save_checkpoint

    def slow(*given: object) -> None:
        time.sleep(0.5)
        save(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpointing, "save_checkpoint", slow)
    first, last = trained(write(tmp_path / "exp", settings(tree))).history
    assert first.seconds > 0.5
    assert last.seconds - first.seconds > 0.5


@pytest.mark.slow
def test_the_rate_of_images_needs_some_steps(tree: Path, finished_run: Path, tmp_path: Path) -> None:
    assert not any(np.isfinite(epoch.images_per_second) for epoch in trained_in(finished_run).history)
    content = settings(tree, data={"batch_size": 1}, fit={"epochs": 1})
    (epoch,) = trained(write(tmp_path / "exp", content)).history
    assert np.isfinite(epoch.images_per_second)


def test_renamed_class_folders_are_reported_when_a_run_is_resumed(drawn: Path, tmp_path: Path) -> None:
    split(drawn, drawn / "car_dataset_labels.csv", tmp_path / "v1")
    for name in ("split.json", "test"):
        (tmp_path / "v1" / name).rename(tmp_path / name)
    path = write(tmp_path / "exp", settings(tmp_path / "v1"))
    stopped = run(path)
    stopped._describe(finished=False)
    stopped.save()
    stopped.folder.close()
    folder = sorted((tmp_path / "v1" / "train").iterdir())[0]
    folder.rename(folder.with_name("Aspen"))
    message = re.escape(f"(missing: '{folder.name}'; new: 'Aspen'); put the old names back")
    with pytest.raises(TrainingError, match=message):
        run(path, resume=True)


def test_disk_use_and_unopened_files_are_stated(tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(tree, tmp_path / "v1")
    for folder in sorted((tmp_path / "v1" / "train").iterdir())[:2]:
        (folder / "phone.HEIC").write_bytes(b"heic")
    caplog.set_level("INFO")
    keep = {"model_checkpoint": {"keep": 1}}
    for callbacks, message in (
        ({}, "for 2 checkpoints of 0 MB (every epoch's is kept: fit.callbacks.model_checkpoint.keep) and 0 MB for "),
        (
            keep,
            "for 1 checkpoint of 0 MB (the best is kept: fit.callbacks.model_checkpoint.keep) and 0 MB for --resume",
        ),
    ):
        caplog.clear()
        content = settings(tmp_path / "v1", fit={"epochs": 9, "stop_after": 2, "callbacks": callbacks})
        made = run(write(tmp_path / f"exp{len(callbacks)}", content))
        made.folder.close()
        assert disk_needed(made.experiment, made.models).startswith(f"disk: up to 0.0 GB {message}")
        assert "2 files of a format that is not opened, such as HEIC, not used; convert to JPEG or PNG" in caplog.text
