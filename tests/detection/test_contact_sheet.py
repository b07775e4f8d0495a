from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.detection import contact_sheet
from whichcar.detection.contact_sheet import write_contact_sheet
from whichcar.detection.crop import crop
from whichcar.detection.onnx import OnnxDetector
from whichcar.errors import DataError
from whichcar.images.pixels import Pixels
from whichcar.records import Box, Detection

Paint = Callable[..., Path]


@pytest.fixture
def cropped(tmp_path: Path, paint: Paint, red_cars: OnnxDetector) -> Path:
    for number in range(3):
        paint(tmp_path / "in" / "A & B" / f"{number}.png", car=(32, 24, 96, 72))
    for number in range(8):
        paint(tmp_path / "in" / f"C{number}" / "grey.png", car=None)
    (tmp_path / "in" / "<b>.jpg").write_bytes(b"no image")
    list(crop(tmp_path / "in", tmp_path / "out", detector=red_cars))
    return tmp_path / "out"


def sheet(source: Path, output: Path) -> str:
    """Return the page without the marks where names may wrap."""
    return write_contact_sheet(source, output).read_text(encoding="utf-8").replace("<wbr>", "")


def images(page: str) -> list[np.ndarray]:
    coded = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in coded]


def test_the_page_shows_boxes_counts_and_reasons(cropped: Path, tmp_path: Path) -> None:
    page = sheet(tmp_path / "in", cropped)
    assert "3 cropped, 8 left whole, 1 skipped" in page
    assert "<b>car 0.90</b>" in page
    assert "A &amp; B/0.png" in page
    assert "<li>&lt;b&gt;.jpg: not an image of a known format" in page
    shown = images(page)
    assert len(shown) == 11
    boxed = shown[8]  # left whole come first
    grey_around, edge = boxed[10, 10].astype(int), boxed[48, 33].astype(int)
    assert np.ptp(grey_around) < 10
    assert edge[0] > edge[1] + 100


def test_a_box_of_less_than_a_pixel_of_the_thumbnail_is_drawn(tmp_path: Path, paint: Paint) -> None:
    class Tiny:
        name = "tiny"

        def detect(self, images: Sequence[Pixels], score: float = 0.5) -> list[list[Detection]]:
            return [[Detection("car", 0.9, Box(100, 100, 104, 102))] for _ in images]

    paint(tmp_path / "in" / "wide.png", car=None, size=(400, 4000))
    list(crop(tmp_path / "in", tmp_path / "out", detector=Tiny()))
    assert "<b>car 0.90</b>" in sheet(tmp_path / "in", tmp_path / "out")


def test_what_was_left_out_for_want_of_a_vehicle_is_shown(
    tmp_path: Path, cropped: Path, red_cars: OnnxDetector
) -> None:
    list(crop(tmp_path / "in", tmp_path / "other", detector=red_cars, missing="skip"))
    page = sheet(tmp_path / "in", tmp_path / "other")
    assert "<h2>Left out</h2>" in page
    assert len(images(page)) == 11
    assert "<li>&lt;b&gt;.jpg: " in page


def test_vehicles_that_are_too_small_are_shown_as_such(tmp_path: Path, cropped: Path, red_cars: OnnxDetector) -> None:
    for missing in ("whole", "skip"):
        list(crop(tmp_path / "in", tmp_path / missing, detector=red_cars, missing=missing, min_size=60))
        page = sheet(tmp_path / "in", tmp_path / missing)
        assert "no vehicle detected, or none large enough" in page
        assert page.count("<b>1 vehicle smaller than 60 pixels</b>") == 3
        assert page.count("<li>") == 1


def test_it_is_one_file_without_links_to_others(cropped: Path, tmp_path: Path) -> None:
    page = sheet(tmp_path / "in", cropped)
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http" not in page.replace("http-equiv", "")


def test_of_many_left_whole_some_of_all_classes_are_shown(
    cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_sheet, "SHOWN", 4)
    page = sheet(tmp_path / "in", cropped)
    assert "none large enough; 4 of 8 shown" in page
    assert re.findall(r">(C\d)/grey\.png<", page) == ["C0", "C2", "C4", "C6"]


def test_the_least_confident_come_first(cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = (cropped / "boxes.csv").read_text()
    for number, score in enumerate(("0.8000", "0.6000", "0.7000")):
        table = table.replace(f"{number}.png,32,24,96,72,car,0.9000", f"{number}.png,32,24,96,72,car,{score}")
    (cropped / "boxes.csv").write_text(table)
    page = sheet(tmp_path / "in", cropped)
    assert re.findall(r"<b>car (0\.\d\d)</b>", page) == ["0.60", "0.70", "0.80"]


def test_tiny_crops_come_before_the_least_confident(cropped: Path, tmp_path: Path) -> None:
    table = (cropped / "boxes.csv").read_text()
    for number, cells in enumerate(("32,24,96,88,car,0.6000", "32,24,96,87,car,0.8000", "32,24,54,39,car,0.7000")):
        table = table.replace(f"{number}.png,32,24,96,72,car,0.9000", f"{number}.png,{cells}")
    (cropped / "boxes.csv").write_text(table)
    page = sheet(tmp_path / "in", cropped)
    assert re.findall(r"<b>car (0\.\d\d)</b>", page) == ["0.70", "0.80", "0.60"]
    assert "shorter side below 64 pixels first, then least confident first" in page


def test_an_image_gone_since_is_replaced_by_the_reason(cropped: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "A & B" / "0.png").unlink()
    assert "no such file" in sheet(tmp_path / "in", cropped)


def test_without_a_table_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"boxes\.csv: cannot be read"):
        write_contact_sheet(tmp_path, tmp_path)
    (tmp_path / "boxes.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="its header is not path,left"):
        write_contact_sheet(tmp_path, tmp_path)
