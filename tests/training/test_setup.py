"""From settings to what the training loop needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from whichcar.config.experiment import Data, Experiment
from whichcar.config.load import read_experiment
from whichcar.errors import ConfigError
from whichcar.images.read import read_resized
from whichcar.training.setup import TrainingData, load_data, load_tree
from whichcar.training.sizes import Sizes, scaled, sizes_of


@pytest.mark.parametrize(
    ("written", "total", "expected"),
    [
        ((11, 3, 3), 17, [11, 3, 3]),
        ((11, 3, 3), 34, [22, 6, 6]),
        ((11, 3, 3), 8, [5, 2, 1]),
        ((11, 3, 3), 3, [1, 1, 1]),
        ((11, 3, 3), 2, [0, 1, 1]),
        ((11, 3, 3), 1, [0, 0, 1]),
        ((1, 1, 30), 4, [1, 1, 2]),
        ((5,), 2, [2]),
    ],
)
def test_epochs_of_stages_are_scaled_to_the_run(written: tuple[int, ...], total: int, expected: list[int]) -> None:
    assert scaled(written, total) == expected


def test_scaled_counts_add_up_and_leave_no_stage_out_that_has_room() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        written, total = rng.integers(1, 40, rng.integers(1, 7)).tolist(), int(rng.integers(1, 80))
        counts = scaled(written, total)
        assert sum(counts) == total
        assert sum(count > 0 for count in counts) == min(len(written), total)
        for count, share in zip(counts, (epochs * total / sum(written) for epochs in written), strict=True):
            assert count <= share + 1 or count == 1


def test_each_epoch_has_the_size_of_its_stage() -> None:
    stages = [{"epochs": 4, "image_size": [64, 64]}, {"epochs": 2, "image_size": [96, 96]}]
    settings = {"seed": 1, "data": {"directory": "cars"}, "recipe": {"stages": stages}}
    assert len(sizes(Experiment.model_validate(settings | {"fit": {"epochs": 6}})).train) == 6
    shorter = Experiment.model_validate(settings | {"fit": {"epochs": 3}})
    assert sizes(shorter).train == sizes(shorter).validation == ((64, 64), (64, 64), (96, 96))


def sizes(experiment: Experiment) -> Sizes:
    return sizes_of(experiment.data, experiment.recipe, experiment.fit.epochs)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes of noise, 200 x 160, in each format that is read in its own way."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for number in range(6):
            path = tmp_path / "data" / name / f"{number}.{'jpg' if number % 2 else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (160, 200, 3), np.uint8)).save(path)
    return tmp_path / "data"


def loaded(tree: Path, **recipe: object) -> TrainingData:
    content = {
        "seed": 1,
        "data": {"directory": str(tree), "image_size": [32, 32], "validation_split": 0.5},
        "model": {"weights": None},
        "fit": {"epochs": 2},
        "recipe": recipe,
    }
    (tree.parent / "config.yml").write_text(yaml.safe_dump(content))
    experiment = read_experiment(tree.parent / "config.yml")
    data = experiment.data
    return load_data(load_tree(data, None, experiment.seed), sizes(experiment), data.validation_split)


def test_validation_images_are_read_from_the_file_at_every_size_they_are_scored_at(tree: Path) -> None:
    stages = [{"epochs": 1, "image_size": [24, 24]}, {"epochs": 1, "image_size": [32, 32]}]
    data = loaded(tree, stages=stages, test_sizes=[[40, 48]])
    assert set(data.validation) == {(24, 24), (32, 32), (40, 48)}
    for size, (images, rows) in data.validation.items():
        expected = [read_resized(sample.path, size) for sample in data.tree.validation]
        np.testing.assert_array_equal(images.take(rows), expected)


def test_validation_images_that_a_split_of_0_would_not_use_are_refused(tree: Path) -> None:
    shutil.copytree(tree, tree / "train")
    shutil.copytree(tree / "train", tree / "validation")
    with pytest.raises(ConfigError, match=r"validation_split is 0, but .* holds 12 validation images; delete the"):
        load_tree(Data(directory=str(tree), validation_split=0), None, 1)


def test_a_drawn_validation_split_is_said_to_divide_copies_and_a_given_one_is_not(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    said = (
        f"may be in both training and validation; to keep them together, train on the output of: whichcar split {tree} "
    )
    loaded(tree)
    assert said in caplog.text
    caplog.clear()
    (tree / "train").mkdir()
    for name in ("a", "b"):
        (tree / name).rename(tree / "train" / name)
    shutil.copytree(tree / "train", tree / "validation")
    loaded(tree)
    assert "keep them together" not in caplog.text


def test_one_size_needs_one_cache(tree: Path) -> None:
    data = loaded(tree)
    (images, rows), *others = data.validation.values()
    assert not others
    assert images is data.images
    assert len(rows) == len(data.validation_classes) == 6
