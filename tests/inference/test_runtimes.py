from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from whichcar.errors import CheckpointError
from whichcar.files import write_json
from whichcar.inference.bundle import write_bundle
from whichcar.inference.classifier import Classifier
from whichcar.inference.runtimes import KerasRuntime, open_network
from whichcar.parallel import usable_cores
from whichcar.records import Prediction, Skipped
from whichcar.training.run import checkpoint

from ..bundles import SIZE, colour_bundle, colour_network

Painter = Callable[..., Path]
COLOURS = {"Red": (210, 40, 30), "Green": (30, 190, 40), "Blue": (30, 40, 200)}


def written(folder: Path, suffix: str = ".whichcar", **changes: object) -> Path:
    write_bundle(colour_bundle(**changes), folder / f"model{suffix}")
    return folder / f"model{suffix}"


@pytest.mark.usefixtures("in_float32")
def test_a_bundle_answers_as_the_checkpoint_does(colour_experiment: Path, bundle: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3)).astype(np.uint8)
    keras, onnx = (Classifier(model, crop=False) for model in (colour_experiment, bundle))
    assert onnx.class_names == keras.class_names
    np.testing.assert_allclose(onnx.probabilities(images), keras.probabilities(images), atol=1e-6)
    assert onnx.hardware["backend"].startswith("onnxruntime") and onnx.hardware["cores"] == str(usable_cores())


@pytest.mark.parametrize("reading", ["read_metadata", "load_model"])
def test_a_checkpoint_that_a_running_training_replaces_before_it_is_loaded_gives_way_to_the_new_one(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    read, new = getattr(checkpoint, reading), experiment / "model.03-0.1111.keras"

    def read_later(path: Path) -> object:
        if path != new:
            path.rename(new)
            write_json(experiment / "best.json", {"checkpoint": new.name})
        return read(path)

    monkeypatch.setattr(checkpoint, reading, read_later)
    assert Classifier(experiment).checkpoint == new


@pytest.mark.parametrize(("suffix", "batch"), [(".whichcar", "n"), (".onnx", "n"), (".whichcar", 4)])
def test_answers_are_in_order_for_any_batch_size(
    tmp_path: Path, painter: Painter, suffix: str, batch: int | str
) -> None:
    model = written(tmp_path, suffix, network=colour_network(batch))
    names = ["Red", "Green", "Blue", "Green", "Blue", "Red"]
    paths = [painter(tmp_path / f"{n}.jpg", COLOURS[name], seed=n) for n, name in enumerate(names)]
    for size in (None, 1, 3, 32):
        rows = Classifier(model).predict([*paths, tmp_path / "gone.jpg"], batch_size=size)
        assert [row.best.split()[0] for row in rows[:-1] if isinstance(row, Prediction)] == names
        assert isinstance(rows[-1], Skipped)


def test_running_out_of_memory_says_with_how_many_images() -> None:
    class TooLarge:
        name = "resnet50"

        def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
            raise RuntimeError(f"RESOURCE_EXHAUSTED: Out of memory allocating {images.nbytes} bytes")

    with pytest.raises(CheckpointError, match=r"^model 'resnet50': out of memory with 16 images at a time; "):
        KerasRuntime(TooLarge(), 3)(np.zeros((9, 8, 8, 3), np.uint8))


def test_a_network_of_a_fixed_batch_size_is_filled_and_split(tmp_path: Path) -> None:
    _, _, runtime = open_network(written(tmp_path, network=colour_network(4)))
    images = np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3)).astype(np.uint8)
    together = runtime(images)
    assert (runtime.batch_size, together.shape) == (4, (6, 3))
    for number in range(6):
        np.testing.assert_array_equal(runtime(images[number : number + 1])[0], together[number])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": b"nothing"}, "its network cannot be loaded: it is damaged"),
        ({"image_size": (24, 24)}, r"takes images \['n', 24, 32, 3\] tensor\(uint8\), not \(n, 24, 24, 3\) uint8"),
        ({"network": colour_network(matrix=np.ones((3, 5)))}, "5 values an image, but 3 class names"),
        ({"network": colour_network(matrix=np.full((3, 3), np.nan))}, "its output has NaN"),
    ],
)
def test_a_network_that_is_not_as_described_is_an_error_in_one_line(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message) as error:
        Classifier(path).predict(np.zeros((8, 8, 3), np.uint8))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_a_missing_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone.whichcar: no such experiment, checkpoint or bundle"):
        Classifier(tmp_path / "gone.whichcar")


def test_the_released_model_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("whichcar.inference.released.FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="cars196: this installation has no such model"):
        Classifier()
    write_bundle(dataclasses.replace(colour_bundle(), name="cars196"), tmp_path / "cars196.whichcar")
    assert Classifier().checkpoint == Classifier("cars196").checkpoint == tmp_path / "cars196.whichcar"
