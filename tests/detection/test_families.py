"""Detectors as their projects export them: what is recognised, what is asked for, and that the box is right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from onnx import TensorProto

from whichcar.cli import main
from whichcar.config.crop import Family
from whichcar.data.boxes import read_boxes
from whichcar.detection.crop import crop
from whichcar.detection.families import FAMILIES
from whichcar.detection.onnx import OnnxDetector
from whichcar.errors import ConfigError, DetectorError, ImageError
from whichcar.files import read_json

from . import exported
from .conftest import scene
from .exported import ASKED, CAR, RECOGNISED, SIDE, Graph, end_to_end, filler, yolov8

WIDE = scene((120, 180), car=(40, 30, 110, 80), bus=(120, 90, 170, 115))
TALL = scene((180, 120), car=(20, 60, 80, 140), bus=(90, 5, 115, 40))
BLANK = scene((90, 120), car=None)


def assert_seen(detector: OnnxDetector) -> None:
    """A box is right to within a pixel of the input, 640 / 96 or 180 / 96 pixels of these images."""
    for image, box in ((WIDE, (40, 30, 110, 80)), (TALL, (20, 60, 80, 140))):
        (seen,) = detector.detect([image])[0]
        assert seen.label == "car"
        assert seen.score == pytest.approx(0.9, abs=0.1)
        found = (seen.box.left, seen.box.top, seen.box.right, seen.box.bottom)
        np.testing.assert_allclose(found, box, atol=2.5)
    assert detector.detect([BLANK, WIDE, BLANK])[::2] == [[], []]


@pytest.mark.parametrize("name", RECOGNISED)
def test_a_file_is_recognised_and_its_box_is_right(name: str, tmp_path: Path) -> None:
    family, make = RECOGNISED[name]
    detector = OnnxDetector(make().save(tmp_path / "x.onnx"), threads=1)
    assert detector.family.name == family
    assert_seen(detector)


@pytest.mark.parametrize("name", ASKED)
def test_a_file_of_several_families_is_asked_for_and_its_box_is_right(name: str, tmp_path: Path) -> None:
    family, make = ASKED[name]
    path = make().save(tmp_path / "x.onnx")
    with pytest.raises(DetectorError, match=rf"as several families do .*; name its family: .*--family {family}"):
        OnnxDetector(path, threads=1)
    assert_seen(OnnxDetector(path, threads=1, family=family))


def test_the_help_of_crop_lists_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["crop", "--help"]) == 0
    assert f"--family [{'|'.join(FAMILIES)}]" in capsys.readouterr().out


def test_a_file_is_not_taken_for_a_family_that_it_cannot_be_of(tmp_path: Path) -> None:
    path = yolov8().save(tmp_path / "x.onnx")
    with pytest.raises(DetectorError, match="returns boxes and probabilities, as yolo does; it is not of family yolox"):
        OnnxDetector(path, family="yolox")
    path = end_to_end((3, 90)).save(tmp_path / "y.onnx")
    with pytest.raises(DetectorError, match="as rf-detr or torchvision does; it is not of family yolo"):
        OnnxDetector(path, family="yolo")


def test_the_family_does_not_depend_on_the_order_of_names_in_memory(tmp_path: Path) -> None:
    path = RECOGNISED["YOLO-NAS, batch"][1]().save(tmp_path / "x.onnx")
    code = f"from whichcar.detection.onnx import OnnxDetector; print(OnnxDetector({str(path)!r}).family.name)"
    for seed in "013":
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
        assert run.stdout == "yolo-nas\n", run.stderr


def test_the_settings_name_every_family() -> None:
    assert set(get_args(Family)) == set(FAMILIES)


def with_box(box: list[float]) -> Graph:
    """A detector that sees a car in this box where the whole image is red, and nothing elsewhere."""
    graph = Graph()
    seen = graph.add("Reshape", graph.all_red, np.int64([1, 1]))
    boxes = graph.add("Where", graph.add("Unsqueeze", seen, np.int64([2])), np.float32([[box]]), np.float32(0))
    graph.give("boxes", graph.joined(boxes, filler(1, 4)))
    scores = graph.add("Where", seen, np.float32(0.9), np.float32(0))
    graph.give("scores", graph.joined(scores, np.full((1, 1), 0.2)), rank=2)
    graph.give("labels", graph.add("Identity", np.int64([[CAR, 0]])), TensorProto.INT64, 2)
    return graph


IMPOSSIBLE = {
    "not a number": [float("nan"), 10, 50, 60],
    "endless": [float("-inf"), float("-inf"), float("inf"), float("inf")],
    "reversed": [60, 60, 10, 10],
    "far outside": [10, 10, 50_000, 60],
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_box_is_a_row_that_says_so(name: str, tmp_path: Path, paint: Callable[..., Path]) -> None:
    path = with_box(IMPOSSIBLE[name]).save(tmp_path / "x.onnx")
    paint(tmp_path / "in" / "a.png", car=None)
    paint(tmp_path / "in" / "b.png", size=(64, 64), car=(0, 0, 64, 64))
    paint(tmp_path / "in" / "c.png", car=None)
    list(crop(tmp_path / "in", tmp_path / "out", detector=path, batch_size=3))
    rows = list(read_boxes(tmp_path / "out" / "boxes.csv"))
    assert [row.kind for row in rows] == ["whole", "skipped", "whole"]
    assert "x.onnx returns" in rows[1].outcome
    assert not (tmp_path / "out" / "b.png").exists()
    with pytest.raises(ImageError, match=r"x\.onnx returns (an invalid box|NaN) for it"):
        OnnxDetector(path).detect([scene((64, 64), car=(0, 0, 64, 64))])


def test_a_box_that_reaches_beyond_the_image_ends_at_its_edge(tmp_path: Path) -> None:
    path = with_box([-20, -30, 120, 50]).save(tmp_path / "x.onnx")
    (seen,) = OnnxDetector(path).detect([scene((96, 96), car=(0, 0, 96, 96))])[0]
    assert (seen.box.left, seen.box.top, seen.box.right, seen.box.bottom) == (0, 0, 96, 50)
    path = with_box([-60, -60, -20, -20]).save(tmp_path / "y.onnx")  # altogether outside
    assert OnnxDetector(path).detect([scene((96, 96), car=(0, 0, 96, 96))]) == [[]]


def broken(values: np.ndarray) -> Graph:
    graph = Graph()
    graph.give("boxes", graph.joined(graph.box, values))
    graph.give("scores", graph.joined(graph.score, np.full((1, len(values[0])), 0.2)), rank=2)
    graph.give("labels", graph.add("Identity", np.int64([[CAR] + [0] * len(values[0])])), TensorProto.INT64, 2)
    return graph


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: broken(np.full((1, 3, 4), np.nan)), "returns NaN; its outputs"),
        (lambda: broken(np.full((1, 3, 4), np.inf)), "its boxes extend to inf"),
        (lambda: broken(np.float32([[[50, 50, 10, 10]] * 5])), "its boxes are not left, top, right, bottom"),
        (lambda: exported.yolov8(classes=("plate", "face")), "its classes are plate, face, none of COCO's"),
    ],
    ids=["not numbers", "endless", "reversed", "other classes"],
)
def test_a_file_that_gives_what_cannot_be_is_refused_in_one_line(
    make: Callable[[], Graph], message: str, tmp_path: Path
) -> None:
    try:
        graph = make()
    except ValueError:  # no car among the classes
        graph = exported.yolov8(classes=("plate", "car"))
        graph.metadata["names"] = "{0: 'plate', 1: 'face'}"
    with pytest.raises(DetectorError, match=message) as caught:
        OnnxDetector(graph.save(tmp_path / "x.onnx"))
    assert "\n" not in str(caught.value)


def test_a_class_that_coco_does_not_have_stops_the_stage(tmp_path: Path) -> None:
    path = end_to_end((85, 0)).save(tmp_path / "x.onnx")
    with pytest.raises(DetectorError, match=r"returned class 85, but \S+ numbers its classes 0 to 79|not of family"):
        OnnxDetector(path, family="rt-detr").detect([WIDE])


def test_the_record_says_how_the_detector_was_read(tmp_path: Path, paint: Callable[..., Path]) -> None:
    path = exported.corners_and_scores(full=True).save(tmp_path / "x.onnx")
    paint(tmp_path / "in" / "a.png")
    list(crop(tmp_path / "in", tmp_path / "out", detector=path, family="damo-yolo"))
    record = read_json(tmp_path / "out" / "crop.json")
    assert record["settings"]["family"] == "damo-yolo"
    assert record["detector"]["read_as"] == {
        "family": "damo-yolo",
        "input": f"{SIDE} x {SIDE}, float32, channels first, RGB 0..255, stretched",
        "outputs": "probabilities and boxes",
        "classes": "80",
    }


def test_a_family_without_a_file_is_refused(tmp_path: Path, red_cars: OnnxDetector, paint: Callable[..., Path]) -> None:
    paint(tmp_path / "in" / "a.png")
    with pytest.raises(DetectorError, match="detector detectron2: is not an ONNX file; leave --family yolo out"):
        list(crop(tmp_path / "in", tmp_path / "out", detector="detectron2", family="yolo"))
    with pytest.raises(ConfigError, match="family: applies to a detector's file"):
        list(crop(tmp_path / "in", tmp_path / "out", detector=red_cars, family="yolo"))
