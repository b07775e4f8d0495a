"""A classifier that needs no training (it distinguishes red, green and blue images) and images drawn for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.data.split.split import split
from whichcar.data.split.tree import read_tree
from whichcar.files import checksum, write_json
from whichcar.records import Label, Metadata
from whichcar.training.hardware import prepare
from whichcar.training.run.checkpoint import save_checkpoint

CLASSES = ("Blue C/V Van 2012", "Green Coupe 2010", "Red Sedan 2011")
FOLDERS = ("Blue C-V Van 2012", "Green Coupe 2010", "Red Sedan 2011")
COLOURS = {"Blue C/V Van 2012": (30, 40, 200), "Green Coupe 2010": (30, 190, 40), "Red Sedan 2011": (210, 40, 30)}


def draw(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (48, 36), seed: int = 0) -> Path:
    """Write a noisy image of one colour."""
    noise = np.random.default_rng(seed).integers(-25, 26, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path, quality=95)
    return path


@pytest.fixture(scope="session")
def colour_model() -> object:
    """A Keras model from (n, h, w, 3) to the probability of blue, green and red."""
    prepare("float32")
    import keras

    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(image)
    head = keras.layers.Dense(3, "softmax", name="predictions")
    model = keras.Model(image, head(x), name="colours")
    head.set_weights([np.fliplr(np.eye(3)) / 50, np.zeros(3)])
    return model


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A split tree: six test images, of which one is labelled wrongly and one cannot be read."""
    return make_tree(tmp_path)


def make_tree(folder: Path) -> Path:
    rows = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        for copy in range(6):
            img_name = f"{number}{copy}.jpg"
            draw(folder / "raw" / img_name, colour, seed=10 * number + copy)
            rows.append(Label(img_name, name, "test" if copy < 2 else "train"))
    draw(folder / "raw" / "20.jpg", COLOURS["Green Coupe 2010"])  # a green car labelled red
    split(folder / "raw", rows, folder / "cars", validation=0.25, seed=1)
    broken = folder / "cars" / "test" / FOLDERS[0] / "01.jpg"  # damaged since: split leaves out what cannot be read
    broken.unlink()
    broken.write_bytes(b"no image")
    return folder / "cars"


@pytest.fixture
def experiment(tmp_path: Path, tree: Path, colour_model: object) -> Path:
    """An experiment's folder as training leaves it."""
    return make_experiment(tmp_path / "experiments" / "exp_9", tree, colour_model)


@pytest.fixture(scope="session")
def colour_experiment(tmp_path_factory: pytest.TempPathFactory, colour_model: object) -> Path:
    """An experiment's folder without its data; not to be written to."""
    folder = tmp_path_factory.mktemp("colours")
    return make_experiment(folder / "exp", folder / "data", colour_model)


def make_experiment(
    folder: Path,
    data_root: Path,
    model: object,
    refit_of: str | None = None,
    class_names: tuple[str, ...] = CLASSES,
    weights: str | None = None,
) -> Path:
    data = {"directory": str(data_root), "validation_split": 0.25, "train_on_validation": refit_of is not None}
    settings = {"seed": 1, "data": data, "refit_of": refit_of, "model": {"weights": weights}}
    prints = read_tree(data_root, 0.25, 1).fingerprints if data_root.is_dir() else {}
    metadata = Metadata(class_names, FOLDERS, (24, 32), {"whichcar": "0"}, settings, str(data_root), None, prints)
    folder.mkdir(parents=True)
    save_checkpoint(model, metadata, folder / "model.02-0.1234.keras")  # type: ignore[arg-type]
    write_json(folder / "best.json", {"checkpoint": "model.02-0.1234.keras", "epoch": 2, "image_size": [24, 32]})
    return folder


def add_refit(experiment: Path, data_root: Path, model: object) -> Path:
    """Add a finished refit, whose network is the same, to an experiment."""
    best = json.loads((experiment / "best.json").read_text())
    best["blake2b"] = checksum(experiment / best["checkpoint"])
    write_json(experiment / "best.json", best)
    refit = make_experiment(experiment / "refit", data_root, model, best["blake2b"])
    write_json(refit / "resolved.json", {"finished": True, "settings": {"refit_of": best["blake2b"]}})
    return refit


@pytest.fixture
def painter() -> Callable[..., Path]:
    """The function that writes a noisy image of one colour."""
    return draw
