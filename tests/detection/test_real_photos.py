"""The packaged detector on real photos: those next to the folder that `WHICHCAR_DATA` names, if there are any."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from whichcar.detection.detection import find_detector, get_vehicle_coordinates
from whichcar.detection.onnx import OnnxDetector
from whichcar.images.read import read_image

PHOTOS = Path(os.environ.get("WHICHCAR_DATA", "")).parent / "photos"

pytestmark = pytest.mark.skipif(
    "WHICHCAR_DATA" not in os.environ or not PHOTOS.is_dir(),
    reason="WHICHCAR_DATA names no folder with photos/ next to it",
)


@pytest.fixture(scope="module")
def yolox() -> OnnxDetector:
    return OnnxDetector(find_detector("yolox-nano").file)


def boxes() -> list[tuple[str, list[int], str]]:
    if not (PHOTOS / "boxes.csv").is_file():
        return []
    with (PHOTOS / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [(row["file"], [int(row[side]) for side in ("left", "top", "right", "bottom")], row["what"]) for row in rows]


def overlap(a: tuple[int, ...], b: list[int]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize(("name", "truth", "what"), boxes(), ids=[name for name, *_ in boxes()])
def test_the_vehicle_is_found_where_it_is(yolox: OnnxDetector, name: str, truth: list[int], what: str) -> None:
    found = get_vehicle_coordinates(read_image(PHOTOS / name), detector=yolox)
    assert overlap(found, truth) >= (1 if "whole image" in what else 0.8)


@pytest.mark.parametrize("name", ["bus.jpg", "coco_000000005037.jpg"])
def test_a_bus_is_no_vehicle_here(yolox: OnnxDetector, name: str) -> None:
    image = read_image(PHOTOS / name)
    assert yolox.detect([image])[0][0].label == "bus"
    assert get_vehicle_coordinates(image, detector=yolox) == (0, 0, image.shape[1], image.shape[0])


def test_blue_and_red_are_not_mixed_up(yolox: OnnxDetector) -> None:
    """With channels the wrong way round the same detector is less confident, over all photos."""
    images = [read_image(path) for path in sorted(PHOTOS.glob("*.jp*g"))]
    right, wrong = (
        sum(one.score for seen in yolox.detect([image[:, :, ::step].copy() for image in images], 0.3) for one in seen)
        for step in (1, -1)
    )
    assert right > wrong
