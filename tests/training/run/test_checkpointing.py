"""Which files are left after some epochs, and that best.json describes the one it names, also after a kill anywhere."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from whichcar.config.load import read_experiment
from whichcar.errors import CheckpointError
from whichcar.metrics import Score
from whichcar.records import Metadata
from whichcar.training.hardware import prepare
from whichcar.training.network.models import TrainingModels
from whichcar.training.run import checkpointing
from whichcar.training.run.checkpoint import find_checkpoint, read_metadata
from whichcar.training.run.checkpointing import CheckpointManager
from whichcar.training.run.folder import ExperimentFolder
from whichcar.training.run.history import Epoch

from .kills import Countdown, Killed

prepare("float32")
import keras  # noqa: E402

ABOUT = Metadata(("a", "b"), ("a", "b"), (32, 32), {}, {}, "cars")
LOSSES = (0.504, 0.501, 0.8, 0.502, 0.9, 0.3, 0.7)
CONSTANT, COLLIDING, USUAL = "model.h5", "model.{val_loss:.2f}.h5", "model.{epoch:02d}-{val_loss:.4f}.h5"


def network() -> TrainingModels:
    """A model whose one weight is the epoch it is of."""
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.Resizing(8, 8, name="resize")(image)
    x = keras.layers.Dense(1, use_bias=False, name="predictions")(keras.layers.GlobalAveragePooling2D()(x))
    export_model = keras.Model(image, x)
    return TrainingModels(export_model, export_model, export_model, export_model, None, keras.optimizers.SGD())


@pytest.fixture(scope="module")
def shared() -> TrainingModels:
    return network()


def checkpoints(folder: Path, models: TrainingModels, **saving: Any) -> CheckpointManager:  # noqa: ANN401  (of ModelCheckpoint)
    folder.mkdir(exist_ok=True)
    content = {"seed": 1, "data": {"directory": "cars"}, "fit": {"callbacks": {"model_checkpoint": saving}}}
    (folder / "config.yml").write_text(yaml.safe_dump(content))
    experiment = read_experiment(folder / "config.yml")
    made = ExperimentFolder(folder / "config.yml", experiment)
    return CheckpointManager(made, experiment.fit.callbacks.model_checkpoint, models, ABOUT)


def epoch(number: int, loss: float, **values: float) -> Epoch:
    base = {"loss": 1.0, "accuracy": 0.5, "val_loss": loss, "val_accuracy": 0.5, "learning_rate": 0.1} | values
    return Epoch(number, **base, image_size="32x32", images_per_second=1.0, seconds=1.0, checkpoint="")


def give(models: TrainingModels, number: int) -> None:
    models.export_model.set_weights([np.full((3, 1), number, np.float32)])


def train(checkpoints: CheckpointManager, losses: Sequence[float], start: int = 0) -> list[Epoch]:
    done = []
    for number, loss in list(enumerate(losses, start=1))[start:]:
        give(checkpoints._models, number)
        done.append(checkpoints.keep(epoch(number, loss), (32, 32)))
    return done


def epoch_in(path: Path) -> int:
    with h5py.File(path) as file:
        found: list[int] = []
        file["model_weights"].visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
        return round(float(found[0][0, 0]))


def check(folder: Path) -> None:
    """Hold best.json against the weights in the file that evaluation takes."""
    best = json.loads((folder / "best.json").read_text())
    assert epoch_in(find_checkpoint(folder)) == best["epoch"]
    assert best["val_loss"] == pytest.approx(LOSSES[best["epoch"] - 1])
    assert list(read_metadata(find_checkpoint(folder)).image_size) == best["image_size"]


@pytest.mark.parametrize("pattern", [CONSTANT, COLLIDING, USUAL])
@pytest.mark.parametrize("keep", [None, 1, 2])
@pytest.mark.parametrize("only_best", [False, True])
def test_best_json_describes_the_file_it_names_after_every_epoch(
    tmp_path: Path,
    shared: TrainingModels,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    keep: int | None,
    only_best: bool,
) -> None:
    monkeypatch.setattr(checkpointing, "WRITE_SECONDS", 0)
    made = checkpoints(tmp_path / "exp", shared, filepath=pattern, keep=keep, save_best_only=only_best)
    for number in range(1, len(LOSSES) + 1):
        train(made, LOSSES[:number], start=number - 1)
        check(tmp_path / "exp")
        assert made.best["epoch"] == 1 + int(np.argmin(LOSSES[:number]))


@pytest.mark.parametrize("name", [CONSTANT, "best-model.h5"])
def test_one_name_holds_the_last_epoch_as_in_keras_and_the_best_is_spared(
    tmp_path: Path, shared: TrainingModels, name: str
) -> None:
    train(checkpoints(tmp_path / "exp", shared, filepath=name), LOSSES)
    assert epoch_in(tmp_path / "exp" / name) == 7
    assert find_checkpoint(tmp_path / "exp").name == f"best-{name}"
    train(checkpoints(tmp_path / "other", shared, filepath=name), LOSSES[:6])
    assert [path.name for path in (tmp_path / "other").glob("*.h5")] == [name], "it is the best itself"


@pytest.mark.parametrize("settings", [{"filepath": CONSTANT}, {"filepath": COLLIDING, "keep": 2}])
def test_best_json_describes_the_file_it_names_wherever_a_run_is_killed(
    tmp_path: Path, shared: TrainingModels, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """The disk is touched by these four calls only; each of them in turn is the last."""
    made = checkpoints(tmp_path / "whole", shared, **settings)
    kill = Countdown(monkeypatch, (Path, "replace"), (Path, "unlink"), (os, "link"))
    for stop in itertools.count(3):
        made = checkpoints(tmp_path / f"killed_{stop}", shared, **settings)
        kill.left = stop
        try:
            train(made, LOSSES[:3])
            give(shared, made.best["epoch"])
            made.settle_size({(32, 32): Score(0.99, 0.5), (40, 40): Score(LOSSES[made.best["epoch"] - 1], 0.6)})
            break
        except Killed:
            kill.left = math.inf
            if (tmp_path / f"killed_{stop}" / "best.json").exists():
                check(tmp_path / f"killed_{stop}")
    assert stop > 20


def test_a_run_resumed_from_an_older_state_knows_what_the_file_holds(tmp_path: Path, shared: TrainingModels) -> None:
    """Killed after the second epoch's checkpoint, before its state: the first's best has been written over."""
    first = checkpoints(tmp_path / "exp", shared, filepath=CONSTANT, save_best_only=True)
    train(first, LOSSES[:1])
    state = json.loads(json.dumps(first.state()))
    train(first, LOSSES[:2], start=1)
    again = checkpoints(tmp_path / "exp", shared, filepath=CONSTANT, save_best_only=True)
    again.restore(state)
    assert again.best["epoch"] == 2
    train(again, (LOSSES[0], 0.6, 0.55), start=1)  # the second epoch ends otherwise this time, and is no best
    check(tmp_path / "exp")


@pytest.mark.parametrize("only_best", [False, True])
@pytest.mark.parametrize("prefix", ["model.", "best-"])
def test_the_best_are_kept_not_the_last(tmp_path: Path, shared: TrainingModels, only_best: bool, prefix: str) -> None:
    filepath = f"{prefix}{{epoch}}.h5"
    made = checkpoints(tmp_path / "exp", shared, filepath=filepath, keep=2, save_best_only=only_best)
    done = train(made, LOSSES)
    left = {path.name for path in (tmp_path / "exp").glob("*.h5")}
    assert left == {f"{prefix}6.h5", f"{prefix}2.h5"}
    assert [done[number].checkpoint for number in (2, 4, 6)] == [""] * 3, "what goes at once is not written"


def test_of_epochs_shorter_than_it_takes_to_write_one_the_best_is_kept(tmp_path: Path, shared: TrainingModels) -> None:
    for losses in ((0.5, 0.9), (0.5, 0.4, 0.45), (0.5, 0.4, 0.45, 0.3, 0.6)):
        made = checkpoints(tmp_path / f"exp_{len(losses)}", shared, filepath=USUAL, keep=1)
        train(made, losses)
        made.write()
        assert made.best["epoch"] == epoch_in(find_checkpoint(tmp_path / f"exp_{len(losses)}"))
        assert made.best["epoch"] == 1 + int(np.argmin(losses))


def test_the_best_by_accuracy_are_kept_where_that_is_monitored(tmp_path: Path, shared: TrainingModels) -> None:
    made = checkpoints(tmp_path / "exp", shared, filepath="model.{epoch}.h5", keep=2, monitor="val_accuracy")
    for number, accuracy in enumerate((0.5, 0.9, 0.7, 0.6, 0.1), start=1):
        made.keep(epoch(number, 1.0, val_accuracy=accuracy), (32, 32))
    assert {path.name for path in (tmp_path / "exp").glob("*.h5")} == {"model.2.h5", "model.3.h5"}


def test_without_a_validation_value_the_last_is_kept(tmp_path: Path, shared: TrainingModels) -> None:
    made = checkpoints(tmp_path / "exp", shared, filepath="model.{val_loss:.4f}.h5", keep=2)
    train(made, (math.nan, math.nan, math.nan))
    assert epoch_in(find_checkpoint(tmp_path / "exp")) == made.best["epoch"] == 3
    assert find_checkpoint(tmp_path / "exp").name == "model.nan.h5"


def test_a_file_that_best_json_does_not_describe_is_refused(tmp_path: Path, shared: TrainingModels) -> None:
    train(checkpoints(tmp_path / "exp", shared, filepath=USUAL), LOSSES[:3])
    (tmp_path / "exp" / "model.01-0.5040.h5").replace(tmp_path / "exp" / "model.02-0.5010.h5")
    with pytest.raises(CheckpointError, match=r"model\.02-0\.5010\.h5: is not the file that .*best\.json describes"):
        find_checkpoint(tmp_path / "exp")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"checkpoint": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_best_json_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "best.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'best.json'}: ")
    assert "name a checkpoint file instead of the folder, or train again with --overwrite" in str(caught.value)
    assert "\n" not in str(caught.value)
