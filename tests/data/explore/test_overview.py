"""The numbers of a folder of images."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.data.dataset import collect
from whichcar.data.explore.overview import overview_of
from whichcar.errors import DataError


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (32, 24), orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, colour).save(path, exif=exif)
    return path


def test_every_image_has_its_size_and_its_light(tmp_path: Path) -> None:
    paint(tmp_path / "A 2000" / "black.png", (0, 0, 0), (32, 24))
    paint(tmp_path / "A 2000" / "turned.jpg", (255, 255, 255), (64, 24), orientation=6)
    paint(tmp_path / "B 2001" / "green.png", (0, 255, 0))
    found = overview_of(collect(tmp_path))
    assert list(found.width) == [32, 24, 32] and list(found.height) == [24, 64, 24]
    assert [round(light, 3) for light in found.brightness] == [0, 1, 0.587]
    assert list(found.size) == [path.stat().st_size for path in sorted(tmp_path.rglob("*.*"))]
    assert found.formats == {"PNG": 2, "JPEG": 1} and found.modes == {"RGB": 3} and found.orientations == {1: 2, 6: 1}
    assert found.classes == {"A 2000": {"": 2}, "B 2001": {"": 1}}


def test_classes_are_counted_by_part(drawn: Path) -> None:
    found = overview_of(collect(drawn))
    assert found.splits == {"train": 24, "test": 8}
    assert list(found.classes) == sorted(found.classes) and len(found.classes) == 4
    assert all(parts == {"train": 6, "test": 2} for parts in found.classes.values())
    assert {name: parts.year for name, parts in found.names.items()}.keys() == found.classes.keys()


def test_what_cannot_be_read_says_why_and_keeps_its_place(tmp_path: Path) -> None:
    paint(tmp_path / "A" / "1.png", (9, 9, 9))
    (tmp_path / "A" / "2.png").write_bytes(b"nothing")
    (tmp_path / "A" / "3.png").write_bytes(b"")
    paint(tmp_path / "A" / "4.png", (99, 9, 9))
    found = overview_of(collect(tmp_path))
    assert found.readable.tolist() == [0, 3]
    assert list(found.width) == [32, 0, 0, 32] and math.isnan(found.brightness[1])
    assert found.unreadable.keys() == {1, 2}
    assert "not an image" in found.unreadable[1] and "empty" in found.unreadable[2]


def test_a_sample_is_the_same_for_the_same_seed_and_leaves_out_what_cannot_be_read(tmp_path: Path, drawn: Path) -> None:
    found = overview_of(collect(drawn))
    assert found.sample(5, 1) == found.sample(5, 1) != found.sample(5, 2)
    assert sorted(found.sample(99)) == list(range(32))
    (tmp_path / "1.png").write_bytes(b"x")
    assert overview_of(collect(tmp_path)).sample(5) == []


def test_copies_are_found(tmp_path: Path, drawn: Path) -> None:
    first = min((drawn / "car_ims").iterdir())
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(first, tmp_path / name)
    pixels = np.asarray(Image.open(first))[:, ::-1]
    Image.fromarray(pixels).save(tmp_path / "b" / "3.png")
    copies = overview_of(collect(tmp_path)).duplicates
    assert copies.exact == [[0, 1]]
    assert [(pair.first, pair.second, pair.mirrored) for pair in copies.near] == [(0, 2, True)]


def test_labels_without_a_single_image_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "car_dataset_labels.csv").write_text("img_name,class,subset\na.jpg,A,train\nb.jpg,B,test\n")
    with pytest.raises(
        DataError,
        match=r"none of the 2 rows can be used; .*no such file .*'a.jpg'; give the folder",
    ):
        overview_of(collect(tmp_path))
