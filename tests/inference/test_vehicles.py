"""Each vehicle of an image as a row, and the images that show them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.cli import main
from whichcar.detection import zoo
from whichcar.detection.crop import crop
from whichcar.errors import ConfigError, DataError
from whichcar.files import checksum
from whichcar.images.read import read_image
from whichcar.inference.annotate import annotate
from whichcar.inference.bundle import write_bundle
from whichcar.inference.classifier import Classifier
from whichcar.inference.predict import predict
from whichcar.records import Answer, Box, Crop, NoVehicle, Prediction, Skipped

from ..bundles import calibrated_for, colour_bundle

RED, GREEN, GREY = (230, 20, 20), (20, 200, 30), (128, 128, 128)
CELL = 80  # pixels of a vehicle: the detector sees one where the centre of a cell of a 4 x 4 grid is blue
Street = Callable[..., Path]


@pytest.fixture(autouse=True)
def _detector(blue_spot_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(blue_spot_file))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def street(tmp_path: Path) -> Street:
    """Make an image with a vehicle of a colour in each cell (column, row) that is given."""

    def made(name: str, cells: dict[tuple[int, int], tuple[int, int, int]], orientation: int = 1) -> Path:
        image = np.full((4 * CELL, 4 * CELL, 3), GREY, np.uint8)
        image[..., 2] = 0
        for (column, row), colour in cells.items():
            top, left = row * CELL, column * CELL
            image[top : top + CELL, left : left + CELL] = colour
            image[top + 28 : top + 52, left + 28 : left + 52] = (0, 0, 250)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = Image.fromarray(image)
        exif = stored.getexif()
        exif[0x0112] = orientation
        (stored.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else stored).save(path, exif=exif)
        return path

    return made


TWO = {(0, 0): RED, (2, 1): GREEN}


def rows_of(model: Path, image: Path, **options: object) -> list[tuple[str, int | None, int, Box | None]]:
    found = []
    for row in predict(model, image, **options):  # type: ignore[arg-type]
        assert isinstance(row, Prediction) and row.crop is not None
        found.append((row.best.split()[0], row.crop.number, row.crop.candidates, row.crop.box))
    return found


def test_each_vehicle_in_an_image_is_a_row(bundle: Path, street: Street) -> None:
    image = street("a.png", TWO)
    both = rows_of(bundle, image, vehicles="all")
    assert sorted(both, key=str) == [
        ("Green", both[[row[0] for row in both].index("Green")][1], 2, Box(160, 80, 240, 160)),
        ("Red", both[[row[0] for row in both].index("Red")][1], 2, Box(0, 0, 80, 80)),
    ]
    assert [row[1] for row in both] == [1, 2]
    assert rows_of(bundle, image, vehicles="largest") == both[:1]


def test_an_experiment_gives_the_rows_of_a_bundle(bundle: Path, experiment: Path, street: Street) -> None:
    image = street("a.png", {(column, row): (RED, GREEN)[column % 2] for column in range(4) for row in range(3)})
    with_keras = rows_of(experiment, image, vehicles="all", batch_size=8)
    assert len(with_keras) == 12
    assert with_keras == rows_of(bundle, image, vehicles="all")


def test_an_image_without_a_vehicle_is_a_row_that_says_so(
    bundle: Path, street: Street, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, broken = street("empty.png", {}), Path("z.png")
    broken.write_bytes(b"nothing")
    assert [type(row) for row in predict(bundle, [empty, broken], vehicles="all")] == [NoVehicle, Skipped]
    command = ["predict", str(empty), "--model", str(bundle), "--vehicles", "all", "--top", "1"]
    assert main.run(command) == 0
    assert capsys.readouterr().out.split(maxsplit=1) == ["-", f"no vehicle         {empty}\n"]
    assert main.run([*command, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["outcome"], row["candidates"], row["prediction"], row["problem"]) == ("no vehicle", 0, None, None)
    assert main.run([*command, "--csv"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert dict(zip(header.split(","), line.split(","), strict=True))["outcome"] == "no vehicle"


def test_an_image_whose_vehicles_are_too_small_says_so(bundle: Path, tmp_path: Path) -> None:
    pixels = np.full((100, 100, 3), (128, 128, 0), np.uint8)
    for left in (0, 50):
        pixels[:25, left : left + 25] = (0, 0, 250)  # boxes of 25 pixels
    Image.fromarray(pixels).save(tmp_path / "far.png")
    for vehicles in ("all", "largest"):
        (row,) = predict(bundle, tmp_path / "far.png", vehicles=vehicles)
        assert isinstance(row, NoVehicle)
        assert row.as_row()["outcome"] == "2 vehicles smaller than 32 pixels"


def test_a_vehicle_that_is_too_small_is_not_the_one_that_an_image_is_cropped_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for cell in (32, 31):
        pixels = np.full((4 * cell, 4 * cell, 3), (128, 128, 0), np.uint8)
        pixels[:cell, :cell] = (0, 0, 250)
        Image.fromarray(pixels).save(tmp_path / f"{cell}.png")
    model = cropping_bundle(tmp_path / "a.whichcar")
    enough, less = Classifier(model).predict([tmp_path / "32.png", tmp_path / "31.png"])
    assert isinstance(enough, Prediction) and enough.best == "Blue C/V Van 2012"
    assert isinstance(less, Prediction) and less.best == "Green Coupe 2010"
    assert less.as_row()["outcome"] == "whole: 1 vehicle smaller than 32 pixels"
    assert main.run(["predict", str(tmp_path / "31.png"), "--model", str(model)]) == 0
    assert "(only 1 vehicle smaller than 32 pixels, whole image used)" in capsys.readouterr().out


def cropping_bundle(path: Path) -> Path:
    """A bundle whose network was trained on cropped images, and that answers with a class at any probability."""
    record = {"settings": {}, "detector": {"name": "", "sha256": None}}
    write_bundle(colour_bundle(crop=record, thresholds=calibrated_for({"class": 0.1})), path)
    return path


def test_an_image_without_a_vehicle_is_unknown_where_an_accuracy_is_wanted(
    tmp_path: Path, street: Street, capsys: pytest.CaptureFixture[str]
) -> None:
    model, red = cropping_bundle(tmp_path / "a.whichcar"), Path("red.png")
    Image.new("RGB", (200, 160), RED).save(red)
    command = ["predict", str(red), "--model", str(model), "--confidence", "0.9"]
    assert main.run(command) == 0
    shown = capsys.readouterr().out
    assert shown.split(maxsplit=2)[:2] == ["-", "unknown"] and "(no vehicle found, whole image used)" in shown
    assert main.run([*command, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["answer"], row["answer_level"], row["outcome"]) == ("unknown", "", "whole: no vehicle")
    unknown, car = predict(model, [red, street("car.png", {(0, 0): RED})], confidence=0.9)
    assert isinstance(unknown, Prediction) and isinstance(car, Prediction) and car.answer
    assert (unknown.answer and unknown.answer.name, unknown.best) == ("unknown", car.answer.name)


def test_an_image_that_is_not_cropped_has_an_answer_without_a_vehicle(tmp_path: Path) -> None:
    model = cropping_bundle(tmp_path / "a.whichcar")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (200, 160), RED).save(tmp_path / "photos" / "red.png")
    list(crop(tmp_path / "photos", tmp_path / "crops"))
    written = predict(model, tmp_path / "crops" / "red.png", confidence=0.9)
    for (row,) in (written, predict(model, tmp_path / "photos" / "red.png", crop=False, confidence=0.9)):
        assert isinstance(row, Prediction) and row.answer and row.answer.name == "Red Sedan 2011"


def test_the_rows_are_in_csv_with_number_box_and_score(
    bundle: Path, street: Street, capsys: pytest.CaptureFixture[str]
) -> None:
    image = street("a.png", TWO)
    assert main.run(["predict", str(image), "--model", str(bundle), "--vehicles", "all", "--csv", "--top", "1"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["vehicle_number"], row["candidates"], row["vehicle"]) for row in rows] == [
        ("1", "2", "car"),
        ("2", "2", "car"),
    ]
    assert all(float(row["vehicle_score"]) > 0.9 and int(row["right"]) - int(row["left"]) == CELL for row in rows)


@pytest.mark.parametrize("name", ["answers.csv", "answers.jsonl"])
def test_wherever_a_run_with_several_rows_an_image_was_killed_the_next_one_makes_the_same_file(
    bundle: Path, street: Street, tmp_path: Path, name: str
) -> None:
    for number, cells in enumerate((TWO, {}, {(1, 1): RED}, {(0, 0): RED, (1, 1): GREEN, (3, 3): RED})):
        street(f"images/{number}.png", cells)
    output = tmp_path / name
    command = ["predict", "images", "--model", str(bundle), "--output", str(output), "--vehicles", "all"]
    assert main.run(command) == 0
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 7 + (name == "answers.csv")
    for end in (*range(len(lines)), len(lines)):
        output.write_bytes(b"".join(lines[:end]) + (lines[end][:9] if end < len(lines) else b""))
        assert main.run(command) == 0
        assert output.read_bytes() == whole
    assert main.run([*command, "--vehicles", "largest"]) == 2


def test_an_image_without_a_vehicle_is_usable_also_in_a_second_run(
    bundle: Path, street: Street, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    street("images/a.png", TWO)
    street("images/empty.png", {})
    command = ["predict", "images", "--model", str(bundle), "--output", str(tmp_path / "a.csv"), "--vehicles", "all"]
    for said in ("a.csv: 3 rows", "a.csv: 3 rows, 3 of them from an earlier run"):
        assert main.run(command) == 0
        assert said in capsys.readouterr().out
    assert "not usable" not in said


def test_an_annotated_image_and_the_crops_have_the_name_of_their_image(bundle: Path, street: Street) -> None:
    for name in ("photos/a.png", "photos/old/a.png"):
        street(name, TWO)
    street("photos/empty.jpg", {})
    Path("photos/broken.jpg").write_bytes(b"nothing")
    before = {path: checksum(path) for path in Path("photos").rglob("*.*")}
    command = ["predict", "photos", "--model", str(bundle), "--vehicles", "all"]
    assert main.run([*command, "--annotate", "shown", "--save-crops", "cut"]) == 0
    assert sorted(str(path) for path in Path("shown").rglob("*.*")) == [
        "shown/a.png", "shown/annotate.jsonl", "shown/empty.jpg", "shown/old/a.png",
    ]  # fmt: skip
    assert sorted(str(path) for path in Path("cut").rglob("*.*")) == [
        "cut/a-1.png", "cut/a-2.png", "cut/old/a-1.png", "cut/old/a-2.png", "cut/save-crops.jsonl",
    ]  # fmt: skip
    assert {path: checksum(path) for path in Path("photos").rglob("*.*")} == before
    assert read_image("cut/a-1.png").shape == (CELL, CELL, 3)


def test_an_image_that_is_stored_rotated_is_annotated_upright(bundle: Path, street: Street) -> None:
    street("photos/upright.png", TWO)
    street("photos/rotated.png", TWO, orientation=6)
    assert main.run(["predict", "photos", "--model", str(bundle), "--vehicles", "all", "--annotate", "shown"]) == 0
    assert (read_image("photos/rotated.png") == read_image("photos/upright.png")).all()
    assert (read_image("shown/rotated.png") == read_image("shown/upright.png")).all()


@pytest.mark.parametrize("folder", ["photos", "photos/shown", "."])
@pytest.mark.parametrize("option", ["--annotate", "--save-crops"])
def test_a_folder_of_the_images_is_not_written_to(
    bundle: Path, street: Street, folder: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = street("photos/a.png", TWO)
    before = sorted(Path().rglob("*"))
    command = ["predict", "photos", "--model", str(bundle), "--vehicles", "all", option, folder]
    assert main.run(command) == 2
    assert capsys.readouterr().err.startswith(f"error: {folder}: ")
    command[1] = "photos/*.png"
    if folder == "photos":
        assert main.run(command) == 2
        assert "error: photos: holds a.png, which `predict" in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before and image.stat().st_nlink == 1


def test_what_goes_with_vehicles_alone_is_refused_without(
    bundle: Path, street: Street, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(street("a.png", TWO))
    assert main.run(["predict", image, "--model", str(bundle), "--annotate", "shown"]) == 2
    assert "--annotate: is for vehicles; add --vehicles all or --vehicles largest" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="vehicles all: images are cropped to them; leave --no-crop"):
        Classifier(bundle, crop=False).predict(image, vehicles="all")
    with pytest.raises(ConfigError, match="vehicles: must be all or largest; got 'some'"):
        Classifier(bundle).predict(image, vehicles="some")  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_to_is_an_error_of_one_line(bundle: Path, street: Street) -> None:
    from whichcar.inference.image_folders import ImageFolders

    image = street("a.png", TWO)
    with pytest.raises(DataError, match=r"a\.png/shown: cannot be written to \(Not a directory\); choose another"):
        ImageFolders(image / "shown", None, None, ["elsewhere.png"], "all", 0.0)


def row(number: int, count: int, box: Box, answer: Answer | None = None) -> Prediction:
    crop = Crop("a.jpg", box, "car", 0.9, count, "cropped", number)
    return Prediction(Path("a.jpg"), ("Chevrolet Silverado 1500 Classic Extended Cab 2007",), (0.9,), crop, answer)


@pytest.mark.parametrize("ground", [0, 90, 255])
def test_box_and_label_stand_out_from_any_ground(ground: int) -> None:
    plain = np.full((200, 400, 3), ground, np.uint8)
    shown = np.asarray(annotate(plain, [row(1, 1, Box(50, 60, 350, 190))])).astype(int)
    drawn = (shown != ground).any(axis=2)
    assert drawn[125, 48:54].any() and drawn[186:190, 200].any()
    for part in (shown[30:60, 50:350], shown[120:130, 50:54]):  # label and edge have dark and light
        luminance = part.mean(axis=2)
        assert luminance.min() < 60 and luminance.max() > 120
    assert not drawn[80:170, 80:320].any()
    assert (plain == ground).all()


@pytest.mark.parametrize("size", [(20, 12), (60, 40), (600, 400)])
def test_a_label_never_leaves_the_image_and_a_hundred_boxes_are_drawn(size: tuple[int, int]) -> None:
    width, height = size
    boxes = [Box(x, y, min(width, x + 12), min(height, y + 9)) for x in range(0, width, 6) for y in range(0, height, 8)]
    rows = [row(number, len(boxes), box) for number, box in enumerate(boxes[:100], 1)]
    image = annotate(np.full((height, width, 3), 70, np.uint8), rows)
    assert image.size == size and (np.asarray(image) != 70).any()


def test_the_rows_of_a_stream_are_annotated_like_a_list() -> None:
    plain, rows = np.zeros((200, 400, 3), np.uint8), [NoVehicle("a.jpg", "no vehicle")]
    assert annotate(plain, iter(rows)) == annotate(plain, rows) != annotate(plain, [])


def test_an_unknown_vehicle_has_no_probability_on_its_label() -> None:
    plain, box = np.zeros((200, 400, 3), np.uint8), Box(20, 60, 380, 190)
    unknown = annotate(plain, [row(1, 1, box, Answer("", "unknown", 0.4))])
    assert unknown != annotate(plain, [row(1, 1, box)])
    assert unknown == annotate(plain, [row(1, 1, box, Answer("", "unknown", 0.1))])


def test_a_label_covers_no_other_vehicle_where_smaller_letters_have_room() -> None:
    boxes = [Box(left, top, left + 300, top + 200) for top in (60, 340) for left in (10, 350, 690)]
    shown = np.asarray(annotate(np.zeros((600, 1000, 3), np.uint8), [row(n, 6, box) for n, box in enumerate(boxes, 1)]))
    colours = [shown[box.top + 100, box.left + 2] for box in boxes]
    assert len({tuple(colour) for colour in colours}) == 6
    for box, own in zip(boxes, colours, strict=True):
        inside = shown[box.top : box.bottom, box.left : box.right]
        others = [colour for colour in colours if (colour != own).any()]
        assert not any((inside == colour).all(axis=2).any() for colour in others)
