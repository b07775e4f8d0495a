from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.cli.evaluate import render_result
from whichcar.data.boxes import COLUMNS
from whichcar.evaluation.evaluate import evaluate
from whichcar.evaluation.predictions import EvaluatedImage
from whichcar.evaluation.result import Slice
from whichcar.evaluation.result_file import as_json
from whichcar.evaluation.slices import slices_of
from whichcar.inference.bundle import write_bundle
from whichcar.records import Box, Crop, Sample

from ..bundles import colour_bundle
from ..colours import draw

NAMES = ("Audi A4 Sedan 2010", "Audi A4 Wagon 2010", "Ford Focus Sedan 2010")
RIGHT, WRONG = np.array([0.9, 0.1, 0]), np.array([0.1, 0.9, 0])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[EvaluatedImage]:
    """Sixty images, of which the fifteen darkest are predicted wrongly; the large ones are the sharp ones."""
    folder = tmp_path_factory.mktemp("slices")
    found = []
    for number in range(60):
        side = 20 if number % 2 else 40
        pixels = np.full((side, 2 * side, 3), 4 * number, np.uint8)
        if side == 40:
            pixels[::8] += 9
        path = folder / "test" / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        found.append(EvaluatedImage(Sample(path, number % 3), 0, 1 if number >= 15 else 2, RIGHT))
    return found


def sliced(images: list[EvaluatedImage], root: Path | None = None) -> dict[tuple[str, str], Slice]:
    slices = slices_of(images, root or images[0].sample.path.parents[2], NAMES, (16, 16))
    return {(one.property_name, one.kind): one for one in slices}


def test_images_are_divided_by_what_is_seen_in_them(images: list[EvaluatedImage]) -> None:
    slices = sliced(images)
    assert list(slices) == [
        ("body type", "Sedan"),
        ("body type", "Wagon"),
        ("shorter side", "20 to 40"),
        ("shorter side", "40 or more"),
        ("brightness", "below 60"),
        ("brightness", "60 to 121"),
        ("brightness", "121 to 180"),
        ("brightness", "180 or more"),
        *[key for key in slices if key[0] == "sharpness"],
    ]
    assert slices["brightness", "below 60"].accuracy.total == 15
    assert slices["body type", "Sedan"].accuracy.total == 40
    assert slices["shorter side", "40 or more"].accuracy.total == 30


def test_a_kind_is_weak_only_where_chance_would_hardly_do_that(images: list[EvaluatedImage]) -> None:
    from scipy.stats import fisher_exact  # loaded by one process of the tests alone

    slices = sliced(images)
    dark = slices["brightness", "below 60"]
    chance = fisher_exact([[dark.accuracy.correct, 15 - dark.accuracy.correct], [45, 0]], "less").pvalue
    assert dark.p_value == pytest.approx(len(slices) * chance)
    assert [key for key, one in slices.items() if one.is_weak] == [("brightness", "below 60")]


def test_crops_are_measured_and_told_from_whole_images(images: list[EvaluatedImage], tmp_path: Path) -> None:
    box = Crop("", Box(0, 0, 10, 20), "car", 0.9, 1, "cropped")
    crops = [EvaluatedImage(one.sample, 0, one.rank, RIGHT, box) for one in images[:45]]
    slices = sliced([*crops, *images[45:]])
    assert [one.accuracy.total for key, one in slices.items() if key[0] == "shorter side"] == [45, 15]
    shares = {kind: one.accuracy.total for (name, kind), one in slices.items() if name == "box / image"}
    assert shares == {"6% to 25%": 23, "25% or more": 22}, "of images of 80 x 40 and 40 x 20"
    rows = "".join(f"test/a/{number}.png,0,0,9,9,car,0.9,1,cropped\n" for number in range(40))
    rows += "".join(f"test/a/{number}.png,0,0,9,9,,,0,whole: no vehicle\n" for number in range(40, 60))
    root = images[0].sample.path.parents[2]
    (root / "boxes.csv").write_text(",".join(COLUMNS) + "\n" + rows)
    for number in range(60):  # what was cropped
        size = (90, 90) if number < 10 else (18, 9)
        (tmp_path / "test" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(tmp_path / "test" / "a" / f"{number}.png")
    (root / "crop.json").write_text(json.dumps({"source": str(tmp_path)}))
    slices = sliced(images, root / "test")
    (root / "crop.json").write_text("{}")  # damaged
    assert not [key for key in sliced(images, root / "test") if key[0] == "box / image"]
    (root / "crop.json").unlink()
    (root / "boxes.csv").unlink()
    shares = {kind: one.accuracy.total for (name, kind), one in slices.items() if name == "box / image"}
    assert shares == {"below 50%": 10, "50% or more": 30}
    assert [slices["vehicle", kind].accuracy.total for kind in ("cropped", "whole")] == [40, 20]
    assert slices["vehicle", "whole"].accuracy.correct == 20


def test_the_sides_of_a_crop_are_those_with_its_margin(
    tmp_path: Path, red_car_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    crop = {"settings": {"margin": 0.04}, "detector": {"name": "red cars.onnx", "sha256": None}}
    write_bundle(colour_bundle(crop=crop), tmp_path / "crops.whichcar")
    for number in range(40):
        pixels = np.full((128, 128, 3), 120, np.uint8)
        pixels[10 : 60 + 50 * (number % 2), 10:110] = (250, 0, 0)
        path = tmp_path / "mine" / "Red Sedan 2011" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    result = evaluate(tmp_path / "crops.whichcar", tmp_path / "mine", crop=True, detector=str(red_car_file))
    sides = [one.kind for one in result.slices if one.property_name == "shorter side"]
    assert sides == ["54 to 108", "108 or more"], "4 % of 50 and of 100 pixels at each side"


def test_an_image_that_the_crop_stage_skipped_is_neither_cropped_nor_whole(tmp_path: Path) -> None:
    outcomes = ["cropped"] * 12 + ["whole: no vehicle"] * 11 + ["skipped: no vehicle"] * 10
    rows = [f"a/{number}.png,0,0,9,9,,,0,{outcome}\n" for number, outcome in enumerate(outcomes)]
    (tmp_path / "boxes.csv").write_text(",".join(COLUMNS) + "\n" + "".join(rows))
    gone = [EvaluatedImage(Sample(tmp_path / "a" / f"{number}.png", 0), 0, 1, RIGHT) for number in range(33)]
    slices = sliced(gone, tmp_path)
    assert {kind: one.accuracy.total for (_, kind), one in slices.items()} == {"cropped": 12, "whole": 11}


def test_an_image_that_is_gone_is_in_no_quarter_and_few_images_in_none(images: list[EvaluatedImage]) -> None:
    gone = [EvaluatedImage(Sample(Path("gone.png"), 0), 0, 1, RIGHT)] * 12
    slices = sliced([*images, *gone], images[0].sample.path.parent)
    assert sum(one.accuracy.total for key, one in slices.items() if key[0] == "brightness") == 60
    assert {key[0] for key in sliced(images[:39])} == {"body type"}
    assert sliced(images[:9]) == {}


def test_the_weakest_are_in_the_result_the_page_and_the_terminal(experiment: Path, tmp_path: Path) -> None:
    for number in range(48):  # those that are red and dark are taken for green ones
        colour = (0, 40, 10) if number < 12 else (210, 40, 30)
        draw(tmp_path / "mine" / "Red Sedan 2011" / f"{number}.jpg", colour, size=(12, 9), seed=number)
    result = evaluate(experiment, tmp_path / "mine")
    (weakest, *_) = result.weak_slices
    assert (weakest.property_name, weakest.accuracy.correct, weakest.accuracy.total) == ("brightness", 0, 12)
    row = f"less accurate than other images: brightness {weakest.kind}: 0.0% (0 of 12)"
    assert row in "\n".join(render_result(as_json(result), result.folder))
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert f"<td class=wrong>{weakest.kind}</td>" in page
