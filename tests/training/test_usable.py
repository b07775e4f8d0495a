"""What is left of a folder once its images were read: counted by class and split before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.config.experiment import Data
from whichcar.config.recipe import Recipe
from whichcar.errors import DataError
from whichcar.training.setup import TrainingData, load_data, load_tree
from whichcar.training.sizes import sizes_of

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
Make = Callable[[dict[str, int]], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a folder of classes, each with the given number of images."""

    def made(classes: dict[str, int]) -> Path:
        rng = np.random.default_rng(0)
        for name, count in classes.items():
            (tmp_path / "data" / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
                image.save(tmp_path / "data" / name / f"{number:02d}.png")
        return tmp_path / "data"

    return made


def loaded(folder: Path, share: float = 0.25) -> TrainingData:
    data = {"directory": str(folder), "image_size": [16, 16], "validation_split": share}
    settings = Data.model_validate(data)
    return load_data(load_tree(settings, None, seed=1), sizes_of(settings, Recipe(), 1), settings.validation_split)


def refused(folder: Path, share: float = 0.25) -> str:
    with pytest.raises(DataError) as error:
        loaded(folder, share)
    assert "\n" not in str(error.value)
    return str(error.value)


def validation_of(folder: Path) -> set[Path]:
    return {sample.path for sample in loaded(folder).tree.validation}


def test_a_class_of_unreadable_files_is_refused_with_its_name_count_and_reason(make: Make) -> None:
    folder = make({"A": 8, "B": 8})
    for path in (folder / "B").iterdir():
        path.write_text(POINTER)
    assert refused(folder).startswith(f"{folder}: 1 class without a readable training image: B (0 of 6); for example")
    assert f"{folder}/B/0" in refused(folder)
    assert refused(folder).endswith(f"whichcar check {folder}")
    assert "B (0 of 8)" in refused(folder, share=0)


def test_a_class_whose_only_readable_images_are_for_validation_is_refused(make: Make) -> None:
    folder = make({"A": 8, "B": 8})
    held = validation_of(folder)
    for path in (folder / "B").iterdir():
        if path not in held:
            path.write_bytes(b"")
    assert "B (0 of 6)" in refused(folder)


def test_many_classes_of_unreadable_files_are_a_few_names(make: Make) -> None:
    folder = make({"A": 4, **{f"B{number}": 4 for number in range(9)}})
    for path in folder.glob("B*/*"):
        path.write_text(POINTER)
    assert "9 classes without a readable training image: B0 (0 of 3), B1 (0 of 3)," in refused(folder)
    assert "and 4 more; for example" in refused(folder)


@pytest.mark.parametrize("classes", [{"A": 1, "B": 1}, {"A": 1, "B": 1, "C": 1, "D": 1}])
def test_one_image_per_class_leaves_none_for_validation(make: Make, classes: dict[str, int]) -> None:
    message = refused(make(classes))
    assert "no validation image: each class has too few; add images, or write data.validation_split: 0" in message


def test_unreadable_validation_images_are_an_error(make: Make) -> None:
    folder = make({"A": 8, "B": 8})
    for path in validation_of(folder):
        path.write_text(POINTER)
    assert "no validation image: none of 4 can be read, for example" in refused(folder)


def test_without_a_share_for_validation_all_images_are_trained_on(make: Make) -> None:
    folder = make({"A": 1, "B": 1})
    data = loaded(folder, share=0)
    assert (len(data.train_rows), len(data.validation_classes)) == (2, 0)
    assert not (folder / "split.json").exists()


def test_a_recorded_validation_split_is_trained_on_without_a_validation_share(make: Make) -> None:
    folder = make({"A": 8, "B": 8})
    assert len(loaded(folder).train_rows) == 12
    assert len(loaded(folder, share=0).train_rows) == 16
    assert len(loaded(folder).train_rows) == 12  # the record is as it was


def test_what_cannot_be_read_is_one_line_with_counts(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    folder = make({"A": 30, "B": 30, "C": 30})
    for path in sorted(folder.glob("[AB]/*"))[10:40]:
        path.write_text(POINTER)
    data = loaded(folder)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("30 of 90 images cannot be read and are left out: 20 of A, 10 of B; for example")
    assert len(data.train_rows) + len(data.validation_classes) == 60


def test_classes_without_a_validation_image_are_named(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    loaded(make({"A": 8, "B": 1, "C": 1, "D": 8}))
    assert "2 of 4 classes have no validation image: B, C" in caplog.text
