import json
import shutil
from pathlib import Path

import pytest

from whichcar.data.dataset import Entry, collect
from whichcar.data.labels import write_labels
from whichcar.data.split.split import split
from whichcar.errors import DataError
from whichcar.records import Label


@pytest.fixture
def data(drawn: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn, tmp_path / "data")
    return tmp_path / "data"


def test_a_label_file_is_found_and_tells_class_and_part(data: Path) -> None:
    found = collect(data)
    assert (found.kind, found.labels, len(found.entries)) == ("a label file", data / "car_dataset_labels.csv", 32)
    assert {entry.split for entry in found.entries} == {"train", "test"}
    assert len({entry.class_name for entry in found.entries}) == 4
    assert found.path_of(0) == data / "car_ims" / "000001.jpg"
    assert (found.problems, found.disagreeing, found.without_row, found.others) == ([], {}, [], [])


def test_rows_without_file_files_without_row_and_rows_that_disagree_are_reported(data: Path) -> None:
    rows = [
        Label("000001.jpg", "A", "train"),
        Label("000001.jpg", "B", "train"),
        Label("gone.jpg", "A", "train"),
        Label("", "A", "train"),
    ]
    write_labels(data / "few.csv", rows)
    found = collect(data, data / "few.csv")
    assert [(name, problem.kind) for name, problem in found.problems] == [("gone.jpg", "missing"), ("", "bad")]
    assert found.disagreeing == {"car_ims/000001.jpg": ["train 'A'", "train 'B'"]}
    assert len(found.without_row) == 31
    assert "car_ims/000001.jpg" not in found.without_row


def test_images_next_to_car_ims_are_not_the_label_files_matter(data: Path) -> None:
    shutil.copytree(data / "car_ims", data / "thumbnails")
    assert len(collect(data).entries) == 32


@pytest.mark.parametrize("place", ["v1", "versions/v1"])
def test_what_split_and_crop_wrote_into_the_data_folder_is_not_taken_for_images_without_a_row(
    data: Path, place: str
) -> None:
    (data / "car_ims").rename(data / "images")
    rows = [Label(f"images/{number:06d}.jpg", "AB"[number % 2], "train") for number in range(1, 32)]
    write_labels(data / "labels.csv", rows)
    split(data, data / "labels.csv", data / place)
    shutil.copytree(data / "images", data / "crops" / "images")
    (data / "crops" / "crop.json").touch()
    found = collect(data, data / "labels.csv")
    assert (len(found.entries), found.without_row) == (32, ["images/000032.jpg"])


def test_images_without_a_row_are_found_if_crop_wrote_the_folder_that_the_rows_name(data: Path) -> None:
    write_labels(data / "labels.csv", [Label(f"{number:06d}.jpg", "A", "train") for number in range(1, 32)])
    (data / "car_ims" / "crop.json").touch()
    found = collect(data, data / "labels.csv")
    assert (len(found.entries), found.without_row) == (32, ["car_ims/000032.jpg"])


def test_a_split_tree_tells_train_validation_and_test(data: Path, tmp_path: Path) -> None:
    split(data, data / "car_dataset_labels.csv", tmp_path / "v1", 0.25)
    record = json.loads((tmp_path / "v1" / "split.json").read_text())
    found = collect(tmp_path / "v1")
    assert found.kind == "train and test"
    held = [entry.path for entry in found.entries if entry.split == "validation"]
    assert held == sorted(f"train/{name}" for name in record["validation"])
    assert sum(entry.split == "test" for entry in found.entries) == record["counts"]["test"]


def test_a_class_keeps_its_true_name_in_a_split_tree(data: Path, tmp_path: Path) -> None:
    rows = [Label(f"{number:06d}.jpg", "Ram C/V Van 2012", "train") for number in range(1, 5)]
    split(data, [*rows, Label("000005.jpg", "BMW X3 2012", "train")], tmp_path / "v1", 0.25)
    assert {entry.class_name for entry in collect(tmp_path / "v1").entries} == {"Ram C/V Van 2012", "BMW X3 2012"}


def test_a_folder_a_class_and_mere_images_are_understood(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "car_ims", tmp_path / "cars" / "BMW X3" / "inside")
    shutil.copy(data / "car_ims" / "000001.jpg", tmp_path / "cars" / "loose.jpg")
    found = collect(tmp_path / "cars")
    assert found.kind == "one folder per class"
    assert found.entries[0] == Entry("BMW X3/inside/000001.jpg", "BMW X3", "")
    assert found.entries[-1] == Entry("loose.jpg", "", "")
    assert collect(data / "car_ims").kind == "images"


def test_files_next_to_images_that_are_not_called_images_are_listed(data: Path) -> None:
    (data / "car_ims" / "a.jfif").write_bytes((data / "car_ims" / "000001.jpg").read_bytes())
    (data / "car_ims" / ".DS_Store").touch()
    assert collect(data).others == ["car_ims/a.jfif"]
    assert collect(data / "car_ims").others == ["a.jfif"]


def test_nothing_to_collect_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no images in it"):
        collect(tmp_path / "empty")
    with pytest.raises(DataError, match=r"gone: no such folder"):
        collect(tmp_path / "gone")
