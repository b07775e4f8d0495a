"""Stanford's devkit as people meet it, through `fetch`."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from whichcar.data.fetch.fetch import fetch
from whichcar.data.labels import read_labels
from whichcar.data.split.split import split
from whichcar.errors import DataError

savemat = pytest.importorskip("scipy.io", reason="whichcar[fetch] is not installed").savemat


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


ROW = [(name, "O") for name in ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")]
HALF = [*ROW[1:6], ("fname", "O")]
CLASSES = np.array(["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"], dtype=object)


def test_the_devkit_of_one_table_becomes_labels(drawn: Path, tmp_path: Path) -> None:
    images = names(drawn / "car_ims")
    rows = np.array(
        [(f"car_ims/{name}", 31, 11, 90, 70, 1 + n % 2, n % 4 == 0) for n, name in enumerate(images)], dtype=ROW
    )
    savemat(tmp_path / "cars_annos.mat", {"annotations": rows.reshape(1, -1), "class_names": CLASSES.reshape(1, -1)})
    (tmp_path / "kit").mkdir()
    shutil.copytree(drawn / "car_ims", tmp_path / "kit" / "car_ims")
    (tmp_path / "cars_annos.mat").rename(tmp_path / "kit" / "cars_annos.mat")
    got = fetch(tmp_path / "kit", tmp_path / "data")
    assert (got.kind, got.images, got.labels) == ("devkit", 32, 32)
    labels = read_labels(tmp_path / "data/car_dataset_labels.csv")
    assert [(row.img_name, row.class_name, row.subset) for row in labels[:2]] == [
        (images[0], "AM General Hummer SUV 2000", "test"),
        (images[1], "Ram C/V Cargo Van Minivan 2012", "train"),
    ]


def test_the_devkit_of_two_halves_becomes_labels(drawn: Path, tmp_path: Path) -> None:
    kit, nested = tmp_path / "kit", "cars_{0}/cars_{0}"  # as the copy on Kaggle has them
    images = [drawn / "car_ims" / name for name in names(drawn / "car_ims")]
    for subset, some, table in (
        ("train", images[:20], "cars_train_annos.mat"),
        ("test", images[20:], "cars_test_annos_withlabels.mat"),
    ):
        rows = []
        for number, image in enumerate(some, start=1):
            target = kit / nested.format(subset) / f"{number:05d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, target)
            rows.append((1, 1, 50, 40, 1 + number % 2, target.name))
        (kit / "devkit").mkdir(exist_ok=True)
        savemat(kit / "devkit" / table, {"annotations": np.array(rows, dtype=HALF).reshape(1, -1)})
    with pytest.raises(DataError, match=r"without cars_meta\.mat, which names the classes"):
        fetch([kit], tmp_path / "data")
    savemat(kit / "devkit" / "cars_meta.mat", {"class_names": CLASSES.reshape(1, -1)})
    got = fetch([kit], tmp_path / "data")
    assert (got.images, got.labels) == (32, 32)
    done = split(tmp_path / "data", tmp_path / "data/car_dataset_labels.csv", tmp_path / "v1", 0.25, 1)
    assert (done.counts["train"], done.counts["test"], done.problems) == (20, 12, [])


def whole(drawn: Path, root: Path, numbers: list[int], **changes: object) -> Path:
    """Make a devkit of one table, with classes of these numbers; changes go into the table."""
    shutil.copytree(drawn / "car_ims", root / "car_ims")
    images = names(root / "car_ims")
    rows = np.array(
        [(f"car_ims/{name}", 1, 1, 50, 40, numbers[n % len(numbers)], n % 4 == 0) for n, name in enumerate(images)],
        dtype=ROW,
    )
    content = {"annotations": rows.reshape(1, -1), "class_names": CLASSES.reshape(1, -1)} | changes
    savemat(root / "cars_annos.mat", {key: value for key, value in content.items() if value is not None})
    return root


def test_classes_counted_from_0_are_recognised(drawn: Path, tmp_path: Path) -> None:
    fetch(whole(drawn, tmp_path / "from 0", [0, 1]), tmp_path / "a")
    fetch(whole(drawn, tmp_path / "from 1", [1, 2]), tmp_path / "b")
    assert read_labels(tmp_path / "a/car_dataset_labels.csv") == read_labels(tmp_path / "b/car_dataset_labels.csv")


@pytest.mark.parametrize(
    ("numbers", "changes", "message"),
    [
        ([1, 3], {}, r"class 3 of 000002\.jpg, but only 2 classes have names, counted from 1"),
        (
            [0, 2],
            {},
            r"class 2 of 000002\.jpg, but only 2 classes have names, counted from 0 as 000001\.jpg has class 0",
        ),
        ([-1, 1], {}, r"class -1 of 000001\.jpg, but only 2"),
        ([1], {"class_names": None}, r"no `class_names` in it"),
        ([1], {"annotations": None}, r"no `annotations` with relative_im_path, test, class; fetch it again"),
        ([1], {"annotations": np.array([(1,)], [("fname", "O")])}, r"no `annotations` with .*; it has fname; fetch"),
    ],
)
def test_a_table_that_does_not_fit_is_reported_in_one_line(
    drawn: Path, tmp_path: Path, numbers: list[int], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message) as raised:
        fetch(whole(drawn, tmp_path / "kit", numbers, **changes), tmp_path / "data")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><title>404</title>", "cars_annos.mat: a web page, not MATLAB's .mat"),
        (b"", "cars_annos.mat: cannot be read as MATLAB's .mat"),
        (b"MATLAB 5.0 MAT-file" + bytes(200), "cars_annos.mat: cannot be read as MATLAB's .mat"),
    ],
)
def test_a_file_that_is_no_table_is_reported(drawn: Path, tmp_path: Path, content: bytes, message: str) -> None:
    kit = whole(drawn, tmp_path / "kit", [1, 2])
    (kit / "cars_annos.mat").write_bytes(content)
    with pytest.raises(DataError, match=message):
        fetch(kit, tmp_path / "data")


@pytest.mark.parametrize("labelled", [True, False])
def test_the_test_table_under_its_other_name_is_used_where_it_has_classes(
    drawn: Path, tmp_path: Path, labelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    images = names(drawn / "car_ims")
    for folder in ("cars_train", "cars_test"):
        shutil.copytree(drawn / "car_ims", tmp_path / "kit" / folder)
    rows = np.array([(1, 1, 50, 40, n % 2, name) for n, name in enumerate(images)], dtype=HALF)
    unlabelled = np.array([(1, 1, 50, 40, name) for name in images], dtype=[*HALF[:4], HALF[5]])
    savemat(tmp_path / "kit/cars_train_annos.mat", {"annotations": rows.reshape(1, -1)})
    savemat(tmp_path / "kit/cars_test_annos.mat", {"annotations": (rows if labelled else unlabelled).reshape(1, -1)})
    savemat(tmp_path / "kit/cars_meta.mat", {"class_names": CLASSES.reshape(1, -1)})
    got = fetch(tmp_path / "kit", tmp_path / "data")
    assert got.splits == ({"train": 32, "test": 32} if labelled else {"train": 32})
    assert ("cars_test_annos.mat has no classes" in caplog.text) is not labelled
