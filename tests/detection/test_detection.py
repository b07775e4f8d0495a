from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.detection import detection, zoo
from whichcar.detection.detection import (
    find_detector,
    get_vehicle_coordinates,
    load_detector,
    main_vehicle,
    vehicles_among,
    with_margin,
)
from whichcar.detection.onnx import OnnxDetector
from whichcar.errors import DataError, DetectorError, ImageError
from whichcar.images.inputs import Source
from whichcar.records import Box, Detection

from .conftest import scene


def seen(label: str, box: tuple[int, int, int, int], score: float = 0.9) -> Detection:
    return Detection(label, score, Box(*box))


def test_the_largest_vehicle_wins() -> None:
    small, large = seen("car", (40, 40, 60, 60), 0.99), seen("truck", (0, 0, 50, 50), 0.6)
    assert main_vehicle([small, large], (100, 100)) == large


def test_the_central_one_wins_over_a_larger_one_at_the_edge() -> None:
    central, edge = seen("car", (35, 35, 65, 65)), seen("car", (60, 60, 100, 100))
    assert main_vehicle([edge, central], (100, 100), "central") == central
    assert main_vehicle([edge, central], (100, 100), "largest") == edge


def test_of_equally_large_vehicles_the_most_confident_wins() -> None:
    one, other = seen("car", (0, 0, 10, 10), 0.6), seen("truck", (50, 50, 60, 60), 0.8)
    assert main_vehicle([one, other], (100, 100)) == other
    assert main_vehicle([], (100, 100)) is None


def test_only_cars_and_trucks_are_vehicles() -> None:
    everything = [seen(name, (0, 0, 9, 9)) for name in ("bus", "car", "person", "truck", "motorcycle")]
    assert [one.label for one in vehicles_among(everything)] == ["car", "truck"]
    assert [one.label for one in vehicles_among(everything, ("bus",))] == ["bus"]


def test_a_vehicle_below_the_smallest_size_does_not_count() -> None:
    flat = seen("car", (0, 0, 100, 9))
    assert vehicles_among([flat], min_size=10) == []
    assert vehicles_among([flat], min_size=9) == [flat]


def test_the_margin_is_a_share_of_each_side_and_stays_inside() -> None:
    assert with_margin(Box(20, 20, 60, 40), 0.1, (100, 100)) == Box(16, 18, 64, 42)
    assert with_margin(Box(0, 0, 60, 95), 0.5, (100, 70)) == Box(0, 0, 70, 100)
    assert with_margin(Box(5, 6, 7, 8), 0, (100, 100)) == Box(5, 6, 7, 8)


def test_coordinates_are_four_ints_that_cut_the_car_out(red_cars: OnnxDetector) -> None:
    image = scene((96, 128), car=(32, 24, 96, 72))
    found = get_vehicle_coordinates(image, detector=red_cars)
    assert found == (32, 24, 96, 72)
    assert all(type(side) is int for side in found)
    left, top, right, bottom = found
    assert (image[top:bottom, left:right] == image[40, 40]).all()


def test_a_bus_larger_than_the_car_does_not_win(red_cars: OnnxDetector) -> None:
    image = scene((128, 128), car=(16, 96, 48, 120), bus=(0, 0, 128, 80))
    assert get_vehicle_coordinates(image, detector=red_cars) == (16, 96, 48, 120)


@pytest.mark.parametrize("bus", [None, (0, 0, 100, 80)])
def test_without_a_vehicle_it_is_the_whole_image(red_cars: OnnxDetector, bus: tuple[int, int, int, int]) -> None:
    assert get_vehicle_coordinates(scene((96, 128), car=None, bus=bus), detector=red_cars) == (0, 0, 128, 96)


def test_a_red_car_is_red_in_rgb_and_in_bgr(red_cars: OnnxDetector) -> None:
    rgb = scene((96, 128), car=(32, 24, 96, 72))
    bgr = rgb[:, :, ::-1]
    assert get_vehicle_coordinates(bgr, bgr=True, detector=red_cars) == (32, 24, 96, 72)
    assert get_vehicle_coordinates(bgr, detector=red_cars) == (0, 0, 128, 96)  # a blue bus, to all appearances


def test_an_image_may_be_an_array_of_other_kinds_a_pil_image_or_a_path(red_cars: OnnxDetector, tmp_path: Path) -> None:
    rgb = scene((96, 128), car=(32, 24, 96, 72))
    opaque = np.full((96, 128, 1), 255, np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a car.png")
    for image in (
        rgb.astype(np.float32) / 255,
        rgb.astype(np.float64),
        rgb.astype(np.int64),
        np.concatenate([rgb, opaque], axis=2),
        rgb[None],
        Image.fromarray(rgb),
        Image.fromarray(rgb).convert("P"),
        tmp_path / "a car.png",
        str(tmp_path / "a car.png"),
    ):
        assert get_vehicle_coordinates(image, detector=red_cars) == (32, 24, 96, 72)
    for grey in (rgb[:, :, 0], rgb[:, :, :1], Image.fromarray(rgb).convert("L")):
        assert get_vehicle_coordinates(grey, detector=red_cars) == (0, 0, 128, 96)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 5), np.uint8), r"an array of images is .*; got \(4, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), r"an array of images is .*; got \(0, 4, 3\)"),
        (np.full((4, 4, 3), np.nan), "holds numbers 0..255 or 0..1; got nan"),
        (np.zeros((2, 4, 4, 3), np.uint8), "expected one image, got several; give one at a time"),
        ([], "expected one image, got none"),
        (None, "got None"),
        ("none.jpg", r"none\.jpg: no such file"),
    ],
)
def test_anything_but_an_image_is_refused(red_cars: OnnxDetector, image: Source, message: str) -> None:
    with pytest.raises(DataError, match=message):
        get_vehicle_coordinates(image, detector=red_cars)


def test_a_folder_without_images_is_refused(red_cars: OnnxDetector, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in it"):
        get_vehicle_coordinates(tmp_path, detector=red_cars)


def test_bgr_is_for_arrays_with_colours(red_cars: OnnxDetector) -> None:
    for image in (np.zeros((4, 4), np.uint8), Image.new("RGB", (4, 4)), "a.jpg"):
        with pytest.raises((DetectorError, ImageError), match=r"bgr is for arrays|no such file"):
            get_vehicle_coordinates(image, bgr=True, detector=red_cars)


def test_the_detector_is_loaded_once(red_car_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(red_car_file))
    loaded = []
    monkeypatch.setattr(detection, "load_detector", lambda name: loaded.append(1) or load_detector(name))
    detection._cached.cache_clear()
    try:
        assert [get_vehicle_coordinates(scene()) for _ in range(3)] == [(32, 24, 96, 72)] * 3
    finally:
        detection._cached.cache_clear()
    assert loaded == [1]


def test_a_detector_is_found_by_file_or_variable(red_car_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_detector(str(red_car_file)).file == red_car_file
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(red_car_file))
    found = find_detector()
    assert (found.name, found.file) == ("red cars.onnx", red_car_file)
    assert found.sha256 is not None
    assert len(found.sha256) == 64


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolox-namo", r"detector 'yolox-namo': no such name; did you mean `yolox-nano`\?; or give a file"),
        ("qqq", r"detector 'qqq': no such name; known: yolox-nano, .*dfine-n, .*detectron2; or give a file"),
        ("lost.onnx", r"detector lost\.onnx: no such file"),
        ("", r"detector '': the name is empty"),
    ],
)
def test_an_unknown_detector_lists_the_known_ones(name: str, message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        load_detector(name)


def test_an_unknown_detector_from_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lost.onnx", "qqq"):
        monkeypatch.setenv(zoo.FILE_VARIABLE, name)
        with pytest.raises(DetectorError, match=r"\(from WHICHCAR_DETECTOR\): no such"):
            load_detector()
