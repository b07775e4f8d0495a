from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from whichcar.cli import main
from whichcar.data.boxes import FILE, read_boxes
from whichcar.data.split.split import split
from whichcar.data.split.tree import read_tree
from whichcar.detection.crop import RECORD, count_images, crop, read_record
from whichcar.detection.onnx import OnnxDetector
from whichcar.errors import ConfigError, DataError
from whichcar.images.read import read_image
from whichcar.records import Box, Crop

from ..waiting import until
from .conftest import GREY, RED, scene

Paint = Callable[..., Path]
CAR = (32, 24, 96, 72)
ODD_NAMES = (
    "a b.jpg",
    'it\'s "quoted".png',
    "größe 車.jpg",
    "line\nbreak.jpg",
    "carriage\rreturn.jpg",
    "comma, and.JPG",
    "-dash.jpeg",
)


@pytest.fixture
def tree(tmp_path: Path, paint: Paint) -> Path:
    """Images with a car, without one, and one that cannot be read, in train/ and test/."""
    for number in range(4):
        paint(tmp_path / "in" / "train" / "Red" / f"{number}.jpg", car=(32 + number, 24, 96, 72))
        paint(tmp_path / "in" / "train" / "Grey" / f"{number}.png", car=None)
    paint(tmp_path / "in" / "test" / "Red" / "9.jpg", car=CAR)
    (tmp_path / "in" / "test" / "Red" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "in" / ".hidden").mkdir()
    paint(tmp_path / "in" / ".hidden" / "a.jpg")
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    return tmp_path / "in"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("inside", ["", "v1/"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{damaged", "damaged, not readable as JSON"),
        ("[]", "damaged, holds a list"),
        ('{"finished": true}', "damaged, `classes` is missing"),
        ('{"finished": false, "classes": {}, "validation": []}', "its split was interrupted"),
    ],
)
def test_a_split_record_that_training_would_refuse_is_refused_before_anything_is_written(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str, inside: str
) -> None:
    (tree / inside).mkdir(exist_ok=True)
    (tree / inside / "split.json").write_text(content)
    assert main.run(["crop", str(tree), str(tmp_path / "out"), "--detector", str(tmp_path / "not_asked_for.onnx")]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert str(tree / inside) in errors
    assert not (tmp_path / "out").exists()


def test_each_image_is_cropped_to_its_vehicle_under_the_same_path(
    tree: Path, tmp_path: Path, red_car_file: Path
) -> None:
    rows = {row.path: row for row in crop(tree, tmp_path / "out", detector=OnnxDetector(red_car_file))}
    assert sorted(rows) == list(rows) == sorted(
        [f"train/Red/{n}.jpg" for n in range(4)] + [f"train/Grey/{n}.png" for n in range(4)]
        + ["test/Red/9.jpg", "test/Red/broken.jpg"]
    )  # fmt: skip
    found = rows["test/Red/9.jpg"]
    assert (found.label, found.candidates, found.outcome, found.kind) == ("car", 1, "cropped", "cropped")
    assert found.box is not None
    cut = read_image(tmp_path / "out" / "test" / "Red" / "9.jpg")
    assert cut.shape == (found.box.height, found.box.width, 3)
    np.testing.assert_allclose(cut.mean(axis=(0, 1)), RED, atol=12)


def test_a_image_without_a_vehicle_stays_whole_and_one_unreadable_is_a_row(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector
) -> None:
    rows = {row.path: row for row in crop(tree, tmp_path / "out", detector=red_cars)}
    assert rows["train/Grey/0.png"] == Crop("train/Grey/0.png", Box(0, 0, 128, 96), "", None, 0, "whole: no vehicle")
    np.testing.assert_array_equal(read_image(tmp_path / "out/train/Grey/0.png"), scene((96, 128), car=None))
    broken = rows["test/Red/broken.jpg"]
    assert (broken.box, broken.kind) == (None, "skipped")
    assert "not an image of a known format" in broken.outcome
    assert str(tmp_path) not in broken.outcome
    assert not (tmp_path / "out/test/Red/broken.jpg").exists()


def test_the_table_holds_a_row_a_image_in_the_order_of_their_paths(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector
) -> None:
    rows = list(crop(tree, tmp_path / "out", detector=red_cars))
    assert list(read_boxes(tmp_path / "out" / FILE)) == rows
    lines = (tmp_path / "out" / FILE).read_text().splitlines()
    assert lines[0] == "path,left,top,right,bottom,label,score,candidates,outcome"
    assert lines[1].startswith("test/Red/9.jpg,32,24,96,72,car,0.9000,1,cropped")
    assert set(contents(tmp_path / "out")) >= {FILE, RECORD}
    assert sorted(path.name for path in (tmp_path / "out" / ".crop").iterdir()) == ["lock"]


def test_the_margin_is_kept_around_the_box(tree: Path, tmp_path: Path, red_cars: OnnxDetector) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars, margin=0.25))
    cut = read_image(tmp_path / "out/test/Red/9.jpg")
    assert cut.shape == (72, 96, 3)
    np.testing.assert_allclose(cut[2, 2], GREY, atol=12)


@pytest.mark.parametrize(("missing", "there"), [("whole", True), ("skip", False)])
def test_what_happens_without_a_vehicle_is_a_choice(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector, missing: str, there: bool
) -> None:
    rows = {row.path: row for row in crop(tree, tmp_path / "out", detector=red_cars, missing=missing)}
    assert (tmp_path / "out/train/Grey/0.png").exists() is there
    assert rows["train/Grey/0.png"].outcome == ("whole: no vehicle" if there else "skipped: no vehicle")


def test_it_can_stop_at_a_image_without_a_vehicle(tree: Path, tmp_path: Path, red_cars: OnnxDetector) -> None:
    with pytest.raises(
        DataError, match=r"Grey/0\.png: no car or truck above score 0\.5; lower --score, or use --missing"
    ):
        list(crop(tree, tmp_path / "out", detector=red_cars, missing="fail"))
    shutil.rmtree(tree / "train" / "Grey")
    with pytest.raises(
        DataError,
        match=r"Red/\d\.jpg: only 1 vehicle smaller than 200 pixels; lower --min-size, or use --missing whole",
    ):
        list(crop(tree, tmp_path / "small", detector=red_cars, missing="fail", min_size=200))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tif"])
def test_a_red_car_stays_red_in_every_format(tmp_path: Path, paint: Paint, red_cars: OnnxDetector, suffix: str) -> None:
    paint(tmp_path / "in" / f"a.{suffix}", car=CAR)
    (row,) = crop(tmp_path / "in", tmp_path / "out", detector=red_cars)
    assert row.kind == "cropped"
    with Image.open(tmp_path / "out" / f"a.{suffix}") as written:
        assert written.format == Image.registered_extensions()[f".{suffix}"]
    np.testing.assert_allclose(read_image(tmp_path / "out" / f"a.{suffix}").mean(axis=(0, 1)), RED, atol=12)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_kept(tmp_path: Path, paint: Paint, red_cars: OnnxDetector, name: str) -> None:
    paint(tmp_path / "in" / "Ram C-V Van" / name, car=CAR)
    assert [row.path for row in crop(tmp_path / "in", tmp_path / "out", detector=red_cars)] == [f"Ram C-V Van/{name}"]
    assert [row.path for row in crop(tmp_path / "in", tmp_path / "out", detector=red_cars)] == [f"Ram C-V Van/{name}"]
    assert (tmp_path / "out" / "Ram C-V Van" / name).is_file()


def test_a_name_that_is_no_text_is_kept(tmp_path: Path, paint: Paint, red_car_file: Path) -> None:
    image = paint(tmp_path / "in" / "a.jpg", car=CAR)
    image.rename(image.with_name(os.fsdecode(b"\xff\xfe.jpg")))
    for _ in range(2):
        rows = list(crop(tmp_path / "in", tmp_path / "out", detector=OnnxDetector(red_car_file)))
        assert [os.fsencode(row.path) for row in rows] == [b"\xff\xfe.jpg"]
    arguments = ["crop", str(tmp_path / "in"), str(tmp_path / "out2"), "--detector", str(red_car_file)]
    assert main.run([*arguments, "--contact-sheet"]) == 0


def test_the_summary_counts_the_crops_that_are_tiny(
    tmp_path: Path, paint: Paint, red_car_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, height in enumerate((62, 64, 80)):
        paint(tmp_path / "in" / f"{number}.png", car=(16, 16, 96, 16 + height), size=(128, 128))
    command = ["crop", str(tmp_path / "in"), str(tmp_path / "out"), "--detector", str(red_car_file)]
    assert main.run(command) == 0
    advice = (
        "1 of them with a shorter side below 64 pixels: look at the contact sheet (--contact-sheet), or use --min-size"
    )
    assert f"cropped (car 3; median score 0.90)\n{'':18}{advice}\n" in capsys.readouterr().out
    assert main.run([*command, "--redo", "--min-size", "64"]) == 0
    assert "below 64 pixels" not in capsys.readouterr().out


def test_a_folder_whose_name_is_no_text_is_cropped(tmp_path: Path, paint: Paint, red_cars: OnnxDetector) -> None:
    source = tmp_path / os.fsdecode(b"Autos_\xfc")
    paint(source / "a.jpg", car=CAR)
    assert [row.kind for row in crop(source, tmp_path / "out", detector=red_cars)] == ["cropped"]
    assert json.loads((tmp_path / "out" / "crop.json").read_text())["source"] == str(source)


def test_orientation_is_applied_and_metadata_left_behind(tmp_path: Path, red_cars: OnnxDetector) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 0.0)  # where it was
    (tmp_path / "in").mkdir()
    upright = Image.fromarray(scene((96, 128), car=CAR))
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in/a.jpg", exif=exif, comment=b"secret")
    (row,) = crop(tmp_path / "in", tmp_path / "out", detector=red_cars)
    assert row.box == Box(*CAR)
    with Image.open(tmp_path / "out/a.jpg") as written:
        assert written.size == (64, 48)
        assert not dict(written.getexif())
        assert "comment" not in written.info


def test_crops_are_in_srgb_whatever_the_profile_of_the_image(tmp_path: Path, red_cars: OnnxDetector) -> None:
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = wide.replace(b"rXYZ", b"tmpX", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"tmpX", b"gXYZ", 1)
    green = scene((96, 128), car=CAR)[:, :, [1, 0, 2]]  # red by its profile, in which red and green are swapped
    (tmp_path / "in").mkdir()
    Image.fromarray(np.ascontiguousarray(green)).save(tmp_path / "in/a.png", icc_profile=swapped)
    (row,) = crop(tmp_path / "in", tmp_path / "out", detector=red_cars)
    assert row.box == Box(*CAR)
    with Image.open(tmp_path / "out/a.png") as written:
        assert "icc_profile" not in written.info
    middle = read_image(tmp_path / "out/a.png")[20, 30]
    assert middle[0] > 200 and middle[1] < 60


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_image_is_cropped_to_pixels_of_its_full_size(
    tmp_path: Path, red_cars: OnnxDetector, orientation: int
) -> None:
    seen = scene((2400, 2000), car=(600, 500, 1500, 1700))
    rng = np.random.default_rng(0)
    seen[500:1700, 600:1500, 0] = rng.integers(220, 250, (1200, 900))  # detail that a reduced image has not
    stored = seen if orientation == 1 else seen.transpose(1, 0, 2)[::-1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "in").mkdir()
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "in/a.png", exif=exif, compress_level=1)
    (row,) = crop(tmp_path / "in", tmp_path / "out", detector=red_cars)
    assert row.box is not None
    assert (
        np.abs(np.subtract((row.box.left, row.box.top, row.box.right, row.box.bottom), (600, 500, 1500, 1700))).max()
        < 80
    )
    expected = seen[row.box.top : row.box.bottom, row.box.left : row.box.right]
    np.testing.assert_array_equal(read_image(tmp_path / "out/a.png"), expected)


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "I;16", "RGBA"])
def test_every_mode_is_cropped(tmp_path: Path, red_cars: OnnxDetector, mode: str) -> None:
    drawn = Image.fromarray(scene((96, 128), car=CAR))
    (tmp_path / "in").mkdir()
    if mode == "I;16":
        Image.fromarray(np.asarray(drawn.convert("L")).astype(np.uint16) * 257).save(tmp_path / "in/a.png")
    else:
        drawn.convert(mode).save(tmp_path / "in" / ("a.jpg" if mode == "CMYK" else "a.png"))
    (row,) = crop(tmp_path / "in", tmp_path / "out", detector=red_cars)
    assert row.kind == ("whole" if mode in ("L", "I;16") else "cropped")  # a grey car is not red
    with Image.open(tmp_path / "out" / row.path) as written:
        assert written.mode == "RGB"


def test_nasty_images_are_rows_with_a_reason(tmp_path: Path, paint: Paint, red_cars: OnnxDetector) -> None:
    whole = paint(tmp_path / "in/good.jpg", car=CAR).read_bytes()
    (tmp_path / "in/empty.jpg").write_bytes(b"")
    (tmp_path / "in/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/page.jpg").write_text("<html>")
    Image.new("L", (10_000, 10_000)).save(tmp_path / "in/huge.png")
    frames = [Image.fromarray(scene((96, 128), car=CAR)), Image.fromarray(scene((96, 128), car=None))]
    frames[0].save(tmp_path / "in/animated.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "in/png in truth.jpg").write_bytes(paint(tmp_path / "other.png", car=CAR).read_bytes())
    (tmp_path / "in/gone.jpg").symlink_to("nowhere.jpg")
    rows = {row.path: row.outcome for row in crop(tmp_path / "in", tmp_path / "out", detector=red_cars)}
    assert [path for path, outcome in rows.items() if outcome == "cropped"] == [
        "animated.gif", "good.jpg", "png in truth.jpg",
    ]  # fmt: skip
    assert "the file is empty" in rows["empty.jpg"]
    assert "truncated" in rows["truncated.jpg"]
    assert "not an image" in rows["page.jpg"]
    assert "100 million pixels" in rows["huge.png"]
    assert "a link to nowhere.jpg, which is not there" in rows["gone.jpg"]


def test_a_second_run_does_nothing_and_tells_the_same(tree: Path, tmp_path: Path, red_car_file: Path) -> None:
    first = list(crop(tree, tmp_path / "out", detector=OnnxDetector(red_car_file)))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")}

    class Never:
        name = "red cars.onnx"

        def detect(self, images: object, score: float = 0.5) -> list[list[object]]:
            raise AssertionError("detected again")

    again = list(crop(tree, tmp_path / "out", detector=Never()))  # type: ignore[arg-type]
    assert sorted(again, key=lambda row: row.path) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")} == before


def test_only_what_is_new_or_changed_is_done(tree: Path, tmp_path: Path, paint: Paint, red_cars: OnnxDetector) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*g")}
    paint(tree / "test/Red/new.jpg", car=CAR)
    paint(tree / "test/Red/broken.jpg", car=CAR)  # fixed
    paint(tree / "train/Red/0.jpg", car=None)
    (tmp_path / "out/train/Red/1.jpg").unlink()
    rows = {row.path: row.kind for row in crop(tree, tmp_path / "out", detector=red_cars)}
    assert rows["test/Red/new.jpg"] == rows["test/Red/broken.jpg"] == "cropped"
    assert rows["train/Red/0.jpg"] == "whole"
    fresh = [path.name for path in (tmp_path / "out").rglob("*.*g") if path.stat().st_mtime_ns != before.get(path)]
    assert sorted(fresh) == ["0.jpg", "1.jpg", "broken.jpg", "new.jpg"]
    assert [row.path for row in read_boxes(tmp_path / "out" / FILE)] == sorted(rows)


def test_a_image_replaced_by_one_dated_back_is_noticed(tree: Path, tmp_path: Path, red_cars: OnnxDetector) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars))
    long_ago = time.time() - 100_000
    for name in ("test/Red/broken.jpg", "train/Red/0.jpg"):  # one that was skipped, one that was cropped
        shutil.copy(tree / "train/Red/3.jpg", tmp_path / "older.jpg")
        os.utime(tmp_path / "older.jpg", (long_ago, long_ago))
        (tmp_path / "older.jpg").replace(tree / name)
    rows = {row.path: row for row in crop(tree, tmp_path / "out", detector=red_cars)}
    assert rows["test/Red/broken.jpg"].kind == "cropped"
    assert rows["train/Red/0.jpg"].box == rows["train/Red/3.jpg"].box


def test_a_image_that_left_takes_its_crop_along(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector, caplog: pytest.LogCaptureFixture
) -> None:
    """One that moved from train to test would else be in both."""
    list(crop(tree, tmp_path / "out", detector=red_cars))
    (tree / "train/Red/0.jpg").rename(tree / "test/Red/0.jpg")
    list(crop(tree, tmp_path / "out", detector=red_cars))
    assert "train/Red/0.jpg" not in {row.path for row in read_boxes(tmp_path / "out" / FILE)}
    assert not (tmp_path / "out/train/Red/0.jpg").exists()
    assert "removed the crops of 1 image no longer in the input, such as 'train/Red/0.jpg'" in caplog.text


@pytest.mark.parametrize("redo", [False, True])
def test_the_folder_of_a_class_that_left_goes_with_its_crops(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector, redo: bool
) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars))
    (tree / "train/Grey").rename(tree / "train/GREY")
    shutil.rmtree(tree / "test")
    list(crop(tree, tmp_path / "out", detector=red_cars, redo=redo))
    assert sorted(path.name for path in (tmp_path / "out/train").iterdir()) == ["GREY", "Red"]
    assert not (tmp_path / "out/test").exists()


def test_files_of_formats_that_are_not_opened_are_counted(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("train/Red/phone.HEIC", "train/Red/._phone.HEIC", "train/phone.avif"):
        (tree / name).touch()
    list(crop(tree, tmp_path / "out", detector=red_cars))
    line = "2 files of a format that is not opened, such as HEIC, not used; convert to JPEG or PNG"
    assert caplog.messages == [f"{tree}: {line}"]


@pytest.mark.parametrize("redo", [False, True])
def test_what_is_skipped_now_leaves_no_older_output(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector, redo: bool
) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars))
    if redo:
        list(crop(tree, tmp_path / "out", detector=red_cars, missing="skip", redo=True))
        assert not list((tmp_path / "out/train/Grey").glob("*.png"))
    else:
        (tree / "train/Red/0.jpg").write_bytes(b"broken now")
        list(crop(tree, tmp_path / "out", detector=red_cars))
        assert not (tmp_path / "out/train/Red/0.jpg").exists()


def test_a_image_that_comes_while_it_runs_is_left_to_the_next_run(
    tree: Path, tmp_path: Path, paint: Paint, red_cars: OnnxDetector
) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars))
    (tree / "train/Red/0.jpg").touch()
    rows = crop(tree, tmp_path / "out", detector=red_cars, workers=1)
    while next(rows).path != "train/Red/3.jpg":
        pass
    paint(tree / "test/Aaa/late.jpg", car=CAR)
    list(rows)
    assert "test/Aaa/late.jpg" in {row.path for row in crop(tree, tmp_path / "out", detector=red_cars)}


def test_a_damaged_table_or_record_is_reported_or_rewritten(tree: Path, tmp_path: Path, red_cars: OnnxDetector) -> None:
    first = list(crop(tree, tmp_path / "out", detector=red_cars))
    table = tmp_path / "out" / FILE
    table.write_text(table.read_text().replace("32,24,96,72", "32,x,96,72"))
    list(crop(tree, tmp_path / "out", detector=red_cars))
    assert list(read_boxes(table)) == first
    (tmp_path / "out" / RECORD).write_text("{}")
    with pytest.raises(DataError, match=r"crop\.json: is not what `whichcar crop` wrote; crop again with --redo"):
        crop(tree, tmp_path / "out", detector=red_cars)


def test_a_table_from_elsewhere_cannot_reach_outside_its_folder(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector
) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars))
    (tmp_path / "precious.jpg").write_bytes(b"x")
    with (tmp_path / "out" / FILE).open("a") as table:
        for path in ("../precious.jpg", str(tmp_path / "precious.jpg"), "train/../../precious.jpg"):
            table.write(f"{path},0,0,9,9,car,0.9000,1,cropped\n")
    list(crop(tree, tmp_path / "out", detector=red_cars))
    list(crop(tree, tmp_path / "out", detector=red_cars, redo=True))
    assert (tmp_path / "precious.jpg").exists()


def test_a_image_too_long_for_its_format_is_a_row(tmp_path: Path, red_cars: OnnxDetector) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (17_000, 4)).save(tmp_path / "in/a.png")
    (tmp_path / "in/a.png").rename(tmp_path / "in/a.webp")
    (row,) = crop(tmp_path / "in", tmp_path / "out", detector=red_cars)
    assert "17000 x 4 cannot be written as WEBP" in row.outcome


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_reported(tree: Path, tmp_path: Path, red_cars: OnnxDetector) -> None:
    (tree / "train/Red").chmod(0)
    try:
        with pytest.raises(PermissionError):
            crop(tree, tmp_path / "out", detector=red_cars)
    finally:
        (tree / "train/Red").chmod(0o755)


def test_other_settings_are_refused_without_redo(
    tree: Path, tmp_path: Path, red_car_file: Path, blue_spot_file: Path
) -> None:
    first, other = str(red_car_file), str(blue_spot_file)
    base = ["crop", str(tree), str(tmp_path / "out"), "--detector"]
    (tmp_path / "bus.onnx").write_bytes(b"no detector")
    assert main.run([*base, str(tmp_path / "bus.onnx")]) == 2
    assert not (tmp_path / "out").exists()
    assert main.run([*base, first]) == 0
    kept = contents(tmp_path / "out")
    assert main.run([*base, first, "--margin", "0.1"]) == 2
    assert main.run([*base, other]) == 2
    assert contents(tmp_path / "out") == kept
    assert main.run([*base, first, "--margin", "0.1", "--redo"]) == 0
    assert read_image(tmp_path / "out/test/Red/9.jpg").shape == (58, 76, 3)
    assert main.run([*base, first, "--margin", "0.1"]) == 0


def test_what_has_changed_is_named(tree: Path, tmp_path: Path, red_cars: OnnxDetector) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars))
    with pytest.raises(DataError, match=r"with margin 0\.0, now it is 0\.1; give the same, another folder, or --redo"):
        list(crop(tree, tmp_path / "out", detector=red_cars, margin=0.1))


def test_crops_of_another_input_are_refused_unless_it_was_moved(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector
) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars))
    kept = contents(tmp_path / "out")
    shutil.copytree(tree, tmp_path / "other")
    with pytest.raises(DataError, match=rf"with input {tree}, now it is {tmp_path / 'other'}; give the same, another"):
        crop(tmp_path / "other", tmp_path / "out", detector=red_cars)
    assert contents(tmp_path / "out") == kept
    shutil.rmtree(tmp_path / "other")
    tree.rename(tmp_path / "other")
    list(crop(tmp_path / "other", tmp_path / "out", detector=red_cars))
    assert json.loads((tmp_path / "out" / RECORD).read_text())["source"] == str(tmp_path / "other")


def test_crops_without_their_record_are_not_taken_for_those_of_these_settings(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector
) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars))
    (tmp_path / "out" / RECORD).unlink()
    with pytest.raises(DataError, match=r"has crops but no crop\.json, so their settings are unknown; crop again with"):
        crop(tree, tmp_path / "out", detector=red_cars, margin=0.25)
    list(crop(tree, tmp_path / "out", detector=red_cars, margin=0.25, redo=True))
    assert {read_image(path).shape for path in (tmp_path / "out/test/Red").glob("*.jpg")} == {(72, 96, 3)}


@pytest.mark.parametrize("redo", [False, True])
def test_a_folder_with_other_files_is_left_alone(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector, redo: bool
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.jpg").write_bytes(b"precious")
    with pytest.raises(DataError, match="contains files that `whichcar crop` did not write"):
        list(crop(tree, tmp_path / "out", detector=red_cars, redo=redo))
    assert contents(tmp_path / "out") == {"mine.jpg": b"precious"}


@pytest.mark.parametrize("output", [".", "inside", ".."])
def test_input_and_output_may_not_lie_in_each_other(tree: Path, red_cars: OnnxDetector, output: str) -> None:
    with pytest.raises(DataError, match="give a folder next to it"):
        crop(tree, tree / output, detector=red_cars)


def test_no_folder_and_no_images_are_reported(tmp_path: Path, red_cars: OnnxDetector) -> None:
    with pytest.raises(DataError, match="no such folder"):
        crop(tmp_path / "none", tmp_path / "out", detector=red_cars)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in it"):
        count_images(tmp_path / "empty")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margins": 0.1}, "crop: margins: no such setting; did you mean `margin`"),
        ({"score": 1.5}, r"crop: score: must be less than 1; got 1\.5"),
        ({"missing": "ignore"}, r"crop: missing: must be one of whole, skip, fail; got \"ignore\""),
        ({"classes": ("car", "lorry")}, "crop: classes: 'lorry' is not a class of COCO; "),
    ],
)
def test_a_wrong_setting_is_reported_before_anything_is_done(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        crop(tree, tmp_path / "out", detector=red_cars, **settings)
    assert not (tmp_path / "out").exists()


def test_a_detector_that_cannot_be_loaded_is_reported_before_anything_is_written(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["crop", str(tree), str(tmp_path / "out"), "--detector", "lost.onnx"]) == main.MISTAKE
    assert "detector lost.onnx: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_processes_do_not_crop_into_one_folder(tree: Path, tmp_path: Path, red_cars: OnnxDetector) -> None:
    rows = crop(tree, tmp_path / "out", detector=red_cars)
    next(rows)
    with pytest.raises(DataError, match="another process is writing to it"):
        list(crop(tree, tmp_path / "out", detector=red_cars))
    assert len(list(rows)) == 9


def test_the_validation_part_stays_the_same_and_the_settings_are_known(
    drawn: Path, tmp_path: Path, red_cars: OnnxDetector
) -> None:
    split(drawn, drawn / "car_dataset_labels.csv", tmp_path / "v1", 0.25, seed=7)
    list(crop(tmp_path / "v1", tmp_path / "v2", detector=red_cars, margin=0.125))
    one, two = (read_tree(tmp_path / name, 0.25, 7) for name in ("v1", "v2"))
    assert [sample.path.name for sample in one.validation] == [sample.path.name for sample in two.validation]
    assert one.class_names == two.class_names
    record = read_record(tmp_path / "v2")
    assert record is not None
    assert record["settings"]["margin"] == 0.125
    assert read_record(tmp_path / "v1") is None
    assert json.loads((tmp_path / "v2" / "crop.json").read_text())["source"] == str(tmp_path / "v1")


def test_a_tree_half_cropped_is_not_taken_for_a_whole_one(tree: Path, tmp_path: Path, red_cars: OnnxDetector) -> None:
    rows = crop(tree, tmp_path / "out", detector=red_cars)
    next(rows)
    rows.close()
    with pytest.raises(DataError, match="out: its crop was interrupted; run `whichcar crop` again"):
        read_record(tmp_path / "out")


@pytest.mark.parametrize(
    "command", ["check out", "split out v3", "new mine --data out --weights none", "train out --set model.weights=null"]
)
def test_a_tree_half_cropped_is_refused_by_every_command_until_the_crop_is_finished(
    tree: Path,
    tmp_path: Path,
    red_cars: OnnxDetector,
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = crop(tree, tmp_path / "out", detector=red_cars, workers=1)
    next(rows)
    rows.close()
    monkeypatch.chdir(tmp_path)
    assert main.run(command.split()) == main.MISTAKE
    message = "error: out: its crop was interrupted; run `whichcar crop` again with the same arguments\n"
    assert capsys.readouterr().err == message
    list(crop(tree, tmp_path / "out", detector=red_cars))
    assert len(read_tree("out", 0, 7).train) == 8


# --- stopped at any moment -------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path, paint: Paint) -> Path:
    for number in range(150):
        car = None if number % 10 == 0 else (20 + number % 30, 24, 96, 72)
        paint(tmp_path / "many" / f"{number % 5}" / f"{number:03d}.jpg", car=car, size=(240, 320))
    return tmp_path / "many"


def start(source: Path, output: Path, detector: Path, before: str = "") -> subprocess.Popen[str]:
    code = (
        f"{before}\nimport sys\nfrom whichcar.cli.main import run\n"
        f"sys.exit(run(['crop', {str(source)!r}, {str(output)!r}, '--detector', {str(detector)!r}]))"
    )
    return subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end; return the status and its stderr."""
    _, error = process.communicate(timeout=120)
    return process.returncode, error


def wait_for(output: Path, count: int) -> None:
    until(lambda: len(list(output.glob("[0-9]/*.jpg"))) >= count)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_bytes(many: Path, tmp_path: Path, red_car_file: Path) -> None:
    assert ended(start(many, tmp_path / "once", red_car_file))[0] == 0
    for reached in (10, 60, 110):
        process = start(many, tmp_path / "killed", red_car_file)
        wait_for(tmp_path / "killed", reached)
        process.kill()
        ended(process)
        for path in (tmp_path / "killed").glob("[0-9]/*.jpg"):
            assert path.read_bytes() == (tmp_path / "once" / path.relative_to(tmp_path / "killed")).read_bytes()
    assert not (tmp_path / "killed" / FILE).exists()
    assert ended(start(many, tmp_path / "killed", red_car_file))[0] == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "once")


@pytest.mark.slow
def test_after_a_kill_only_the_rest_is_done(many: Path, tmp_path: Path, red_car_file: Path) -> None:
    process = start(many, tmp_path / "out", red_car_file)
    wait_for(tmp_path / "out", 60)
    process.kill()
    ended(process)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[0-9]/*.jpg")}
    assert ended(start(many, tmp_path / "out", red_car_file))[0] == 0
    kept = [path for path, at in written.items() if path.stat().st_mtime_ns == at]
    assert len(kept) >= 40  # all but those whose row was not yet written


# Ctrl-C after five images: a signal from here may come when all of them are done.
INTERRUPTED = """
import os, signal
from whichcar.cli.crop import CropSummary
add = CropSummary.add
def interrupted(self, row):
    add(self, row)
    if self.count == 5:
        os.kill(os.getpid(), signal.SIGINT)
CropSummary.add = interrupted
"""


def test_ctrl_c_says_how_to_go_on(many: Path, tmp_path: Path, red_car_file: Path) -> None:
    status, error = ended(start(many, tmp_path / "out", red_car_file, INTERRUPTED))
    assert status == main.INTERRUPTED
    assert "interrupted after" in error
    assert "run the same command again to resume" in error
    assert "Traceback" not in error
    assert ended(start(many, tmp_path / "out", red_car_file))[0] == 0
    assert len(list(read_boxes(tmp_path / "out" / FILE))) == 150


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_what_is_written_is_whole(many: Path, tmp_path: Path, red_car_file: Path) -> None:
    """A limit of the kernel simulates the full disk: no file may exceed three kilobytes."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"
    shutil.copy(red_car_file, tmp_path / "detector.onnx")
    process = start(many, tmp_path / "out", tmp_path / "detector.onnx", limit)
    status, error = ended(process)
    assert status == main.MISTAKE
    assert "the disk is full; finished images are kept: free some space and run it again" in error
    for path in (tmp_path / "out").glob("[0-9]/*.jpg"):
        read_image(path)
    assert ended(start(many, tmp_path / "out", tmp_path / "detector.onnx"))[0] == 0
    assert len(list((tmp_path / "out").glob("[0-9]/*.jpg"))) == 150


def test_stopped_while_redoing_nothing_old_is_taken_for_new(tree: Path, tmp_path: Path, red_cars: OnnxDetector) -> None:
    list(crop(tree, tmp_path / "out", detector=red_cars))
    rows = crop(tree, tmp_path / "out", detector=red_cars, margin=0.25, redo=True)
    next(rows)
    rows.close()
    list(crop(tree, tmp_path / "out", detector=red_cars, margin=0.25))
    assert {read_image(path).shape for path in (tmp_path / "out/test/Red").glob("*.jpg")} == {(72, 96, 3)}
    assert json.loads((tmp_path / "out" / RECORD).read_text())["settings"]["margin"] == 0.25


def test_stopped_while_old_crops_are_deleted_the_folder_is_not_complete(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    list(crop(tree, tmp_path / "out", detector=red_cars))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "unlink", stop)
        list(crop(tree, tmp_path / "out", detector=red_cars, margin=0.25, redo=True))
    with pytest.raises(DataError, match="out: its crop was interrupted; run `whichcar crop` again"):
        read_record(tmp_path / "out")


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (4, 2), (100, 3)])
def test_batches_and_workers_change_nothing_that_is_written(
    tree: Path, tmp_path: Path, red_cars: OnnxDetector, batch_size: int, workers: int
) -> None:
    list(crop(tree, tmp_path / "one", detector=red_cars))
    list(crop(tree, tmp_path / "other", detector=red_cars, batch_size=batch_size, workers=workers))
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
