"""A head that trains on kept features of a frozen backbone, compared with the same training with the backbone in it."""

from __future__ import annotations

import fcntl
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import h5py
import numpy as np
import pytest
import yaml

from whichcar.config.experiment import Experiment
from whichcar.data.split.split import split
from whichcar.environment import cache_root
from whichcar.synthetic.draw import draw
from whichcar.training import feature_cache
from whichcar.training.feature_cache import on_features
from whichcar.training.hardware import prepare
from whichcar.training.run.checkpoint import load_model
from whichcar.training.run.history import Epoch
from whichcar.training.setup import TrainingData
from whichcar.training.train import Trained, train

from ..waiting import until

if TYPE_CHECKING:
    import keras

RECIPE = {
    "schedule": "cosine",
    "warmup_steps": 3,
    "label_smoothing": 0.1,
    "ema": 0.9,
    "gradient_accumulation": 2,
    "head_rate": 2.0,
}
NUMBERS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, resnet: keras.Model) -> Path:
    """Drawn images of 32 px in `v1`, and weights of a backbone in `backbone.weights.h5`."""
    import keras

    folder = tmp_path_factory.mktemp("features")
    draw(folder / "raw", classes=4, per_class=20, size=(40, 48))
    split(folder / "raw", folder / "raw" / "car_dataset_labels.csv", folder / "v1", 0.3, 1)
    backbone = keras.applications.ResNet50(include_top=False, weights=None, pooling="avg")
    backbone.set_weights(resnet.get_weights()[:-2])
    backbone.save_weights(folder / "backbone.weights.h5")
    return folder


@pytest.fixture(scope="module")
def computed(place: Path) -> Trained:
    """A training that computed features, into the cache `place / "cache"`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHICHCAR_CACHE", str(place / "cache"))
        return train(write(place, place / "kept", cached_features=True))


@pytest.fixture
def path(place: Path, computed: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The features of that training, in a cache of this test's own."""
    shutil.copytree(place / "cache", tmp_path / "cache")
    monkeypatch.setenv("WHICHCAR_CACHE", str(tmp_path / "cache"))
    (path,) = feature_files()
    return path


def write(place: Path, folder: Path, **recipe: object) -> Path:
    checkpoint = {"filepath": "model.{epoch:02d}.keras", "save_best_only": True, "keep": 1}
    settings = {
        "seed": 1,
        "data": {
            "directory": str(place / "v1"),
            "image_size": [32, 32],
            "batch_size": 8,
            "validation_split": 0.3,
        },
        "model": {"weights": str(place / "backbone.weights.h5"), "dropout_rate": 0.2, "l2_factor": 0.001},
        "compile": {"optimizer": {"sgd": {"learning_rate": 0.0005, "momentum": 0.9, "weight_decay": 0.01}}},
        "fit": {"epochs": 4, "callbacks": {"model_checkpoint": checkpoint}},
        "recipe": {"freeze": 5, **RECIPE, **recipe},
        "hardware": {"precision": "float32"},
    }
    folder.mkdir(parents=True)
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(settings))
    return path


def numbers(history: tuple[Epoch, ...]) -> list[list[float]]:
    return [[getattr(epoch, name) for name in NUMBERS] for epoch in history]


def feature_files() -> list[Path]:
    return sorted(cache_root().glob("*/features-*"))


def short(place: Path, folder: Path, *overrides: str) -> None:
    train(write(place, folder, cached_features=True), ["fit.epochs=1", *overrides])


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0, 16])
def test_the_head_learns_just_what_it_learns_with_the_backbone_in_the_network(
    place: Path, path: Path, tmp_path: Path, scale: int
) -> None:
    head = [f"model.cosine_scale={scale}"]
    whole = train(write(place, tmp_path / "whole"), head)
    computed = train(write(place, tmp_path / "kept", cached_features=True), head)
    assert feature_files() == [path]
    assert whole.history[-1].loss < whole.history[0].loss  # there is something to compare
    assert np.allclose(numbers(computed.history), numbers(whole.history), rtol=1e-3, atol=1e-4)
    for weight, other in zip(
        load_model(whole.checkpoint).weights, load_model(computed.checkpoint).weights, strict=True
    ):
        assert np.allclose(weight.numpy(), other.numpy(), rtol=1e-3, atol=1e-4), weight.path


@pytest.mark.slow
def test_features_are_found_again_and_lead_to_the_same_head(
    place: Path, computed: Trained, path: Path, tmp_path: Path
) -> None:
    written = path.stat().st_mtime_ns
    values = np.load(path)
    assert (values.shape, values.dtype) == ((60, 2048), np.float32)
    again = train(write(place, tmp_path / "again", cached_features=True))
    assert feature_files() == [path]
    assert path.stat().st_mtime_ns == written
    assert np.allclose(numbers(again.history), numbers(computed.history), rtol=1e-5)


@pytest.mark.slow
def test_other_sizes_and_other_weights_have_features_of_their_own(place: Path, path: Path, tmp_path: Path) -> None:
    short(place, tmp_path / "large", "data.image_size=[48,48]")
    assert len(feature_files()) == 2
    turned = tmp_path / "turned.weights.h5"
    shutil.copyfile(place / "backbone.weights.h5", turned)
    with h5py.File(turned, "r+") as file:
        file["layers/conv2d/vars/0"][...] *= -1
    short(place, tmp_path / "turned", f"model.weights={turned}")
    assert len(feature_files()) == 3


def test_features_depend_on_the_scaling_and_of_large_images_fewer_are_computed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hardware = prepare("float32")
    import keras

    class Images(list[np.ndarray]):
        key = "images"

    def batches(images: Images, rows: np.ndarray, batch_size: int) -> None:
        counts.append(batch_size)
        raise ZeroDivisionError  # the path is known

    def path(size: int, scale: float) -> str:
        content = {
            "seed": 1,
            "data": {"directory": "cars", "image_size": [size, size]},
            "recipe": {"cached_features": True, "freeze": 5},
        }
        keras.utils.set_random_seed(0)
        inputs = keras.Input((None, None, 3))
        x = keras.layers.Resizing(size, size, name="resize")(inputs)
        x = keras.layers.Rescaling(scale, name="preprocessing")(x)
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv1_conv")(x))
        x = keras.layers.Dropout(0.0, name="dropout")(x)
        network = keras.Model(inputs, keras.layers.Dense(2, "softmax", name="predictions")(x))
        data = cast(TrainingData, SimpleNamespace(images=Images()))
        caplog.clear()
        with pytest.raises(ZeroDivisionError):
            on_features(Experiment.model_validate(content), hardware, data, network)
        return next(line for line in caplog.messages if line.startswith("features of the backbone: "))

    counts: list[int] = []
    caplog.set_level("INFO", "whichcar")
    monkeypatch.setenv("WHICHCAR_CACHE", str(tmp_path))
    monkeypatch.setattr(feature_cache, "plain_batches", batches)
    assert path(32, 1 / 255) == path(32, 1 / 255) != path(32, 1 / 127.5)
    path(512, 1 / 255)
    assert counts == [64, 64, 64, 16]


@pytest.mark.slow
def test_features_that_another_process_computes_are_waited_for(place: Path, path: Path, tmp_path: Path) -> None:
    aside, lock = tmp_path / "aside.npy", path.with_name(f".{path.name}.lock")
    path.rename(aside)
    with ThreadPoolExecutor(1) as pool, lock.open("w") as other:  # closed first, so that nobody waits for it forever
        fcntl.flock(other, fcntl.LOCK_EX)
        second = pool.submit(short, place, tmp_path / "exp")
        until(lambda: waits_for(lock), 120)
        assert not second.done()
        aside.rename(path)
        written = path.stat().st_mtime_ns
        fcntl.flock(other, fcntl.LOCK_UN)
        second.result()
    assert path.stat().st_mtime_ns == written
    assert feature_files() == [path]


@pytest.mark.slow
def test_a_cache_that_is_cleared_meanwhile_is_an_error(
    place: Path, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cleared(*_: object) -> list[np.ndarray]:
        shutil.rmtree(path.parent)
        return []

    path.unlink()
    monkeypatch.setattr(feature_cache, "plain_batches", cleared)
    with pytest.raises(FileNotFoundError):
        short(place, tmp_path / "exp")


def waits_for(path: Path) -> bool:
    """True when somebody waits for the lock on a file (proc_locks(5): such lines have an arrow)."""
    inode = f":{path.stat().st_ino} "
    return any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())
