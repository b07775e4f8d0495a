from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from whichcar.config.crop import crop_settings
from whichcar.detection.cropper import Cropper
from whichcar.detection.detection import distinct
from whichcar.images.pixels import Pixels
from whichcar.images.read import decoded_from
from whichcar.records import Box, Crop, Detection


class Sees:
    """A detector that sees the same in every image, given for its full size."""

    name = "sees"

    def __init__(self, *detections: Detection, width: int) -> None:
        self._detections, self._width = detections, width

    def detect(self, images: Sequence[Pixels], score: float = 0.5) -> list[list[Detection]]:
        seen = [item for item in self._detections if item.score > score]
        return [[_scaled(item, image.shape[1] / self._width) for item in seen] for image in images]


def _scaled(item: Detection, by: float) -> Detection:
    box = item.box
    return Detection(
        item.label, item.score, Box(*(int(side * by) for side in (box.left, box.top, box.right, box.bottom)))
    )


SMALL = Detection("car", 0.9, Box(10, 10, 60, 50))
LARGE = Detection("truck", 0.6, Box(100, 40, 300, 180))
BUS = Detection("bus", 0.99, Box(0, 0, 320, 240))


def vehicles(*seen: Detection, size: tuple[int, int] = (240, 320), **settings: object) -> list[tuple[Box, object]]:
    rows = crops(*seen, size=size, **settings)
    return [(box, (crop.label, crop.number, crop.candidates)) for box, crop in rows if box is not None]


def crops(*seen: Detection, size: tuple[int, int] = (240, 320), **settings: object) -> list[tuple[Box | None, Crop]]:
    cropper = Cropper(crop_settings(**settings), detector=Sees(*seen, width=size[1]))
    with decoded_from(Image.new("RGB", size[::-1]), "a.jpg") as image:
        return cropper.vehicles("a.jpg", image)


def main_crop(*seen: Detection, **settings: object) -> tuple[Box | None, str, int]:
    cropper = Cropper(crop_settings(**settings), detector=Sees(*seen, width=320))
    with decoded_from(Image.new("RGB", (320, 240)), "a.jpg") as image:
        box, crop = cropper.cropped("a.jpg", image)
    return box, crop.outcome, crop.candidates


def test_why_there_is_no_vehicle_is_said() -> None:
    far = [Detection("car", 0.9, Box(left, 10, left + 31, 50)) for left in (0, 100)]
    again = Detection("truck", 0.8, Box(0, 10, 30, 50))
    assert [crop.outcome for _, crop in crops(BUS)] == ["skipped: no vehicle"]
    assert [crop.outcome for _, crop in crops(*far, again, min_size=32)] == [
        "skipped: 2 vehicles smaller than 32 pixels"
    ]
    assert main_crop(BUS) == (None, "whole: no vehicle", 0)
    assert main_crop(*far, again, min_size=32) == (None, "whole: 2 vehicles smaller than 32 pixels", 0)


def test_the_largest_vehicle_whose_shorter_side_is_long_enough_is_the_crop() -> None:
    long = Detection("truck", 0.9, Box(0, 0, 300, 31))
    assert main_crop(SMALL, long) == (long.box, "cropped", 2)
    assert main_crop(SMALL, long, min_size=32) == (SMALL.box, "cropped", 1)


def test_each_vehicle_has_a_crop_the_largest_first() -> None:
    assert vehicles(SMALL, BUS, LARGE) == [(LARGE.box, ("truck", 1, 2)), (SMALL.box, ("car", 2, 2))]
    assert vehicles(SMALL, LARGE, margin=0.1)[1][0] == Box(5, 6, 65, 54)
    assert vehicles(BUS) == []


def test_a_pickup_that_is_car_and_truck_to_the_detector_is_one_vehicle() -> None:
    again = Detection("car", 0.8, Box(104, 42, 304, 182))
    assert vehicles(LARGE, again) == [(again.box, ("car", 1, 1))]
    next_to_it = Detection("car", 0.8, Box(180, 42, 380, 182))
    assert distinct([LARGE, next_to_it]) == [next_to_it, LARGE]


def test_a_pickup_that_is_car_and_truck_to_the_detector_is_counted_once_where_one_vehicle_is_classified() -> None:
    assert main_crop(LARGE, Detection("car", 0.8, Box(104, 42, 300, 180))) == (LARGE.box, "cropped", 1)


def test_a_vehicle_that_fills_the_image_needs_a_lower_score_than_one_in_the_background() -> None:
    filling, vague = (Detection("car", score, Box(10, 10, 310, 230)) for score in (0.3, 0.2))
    half = Detection("car", 0.3, Box(0, 0, 320, 119))
    assert main_crop(SMALL, filling) == (filling.box, "cropped", 2)
    assert main_crop(filling) == (filling.box, "cropped", 1)
    assert [box for box, _ in vehicles(SMALL, filling)] == [filling.box, SMALL.box]
    for uncertain in (vague, half):
        assert main_crop(SMALL, uncertain) == (SMALL.box, "cropped", 1)
        assert vehicles(uncertain) == []
    assert main_crop(SMALL, filling, score=0.7) == (SMALL.box, "cropped", 1)


def test_the_crop_stage_takes_vehicles_above_the_minimum_score_alone() -> None:
    filling = Detection("car", 0.3, Box(10, 10, 310, 230))
    cropper = Cropper(crop_settings(), detector=Sees(SMALL, filling, width=320))
    (chosen,) = cropper.choose([np.zeros((240, 320, 3), np.uint8)])
    assert chosen.vehicle == SMALL


@pytest.mark.parametrize(("side", "count"), [(49, 0), (50, 1)])
def test_a_vehicle_of_a_few_pixels_is_left_out(side: int, count: int) -> None:
    assert len(vehicles(Detection("car", 0.9, Box(10, 10, 90, 10 + side)), min_size=50)) == count


def test_the_size_of_a_vehicle_counts_in_pixels_of_the_image_and_not_of_a_reduced_copy() -> None:
    car = Detection("car", 0.9, Box(1000, 1000, 1064, 1040))
    assert vehicles(car, size=(3000, 4000)) == [(car.box, ("car", 1, 1))]


def test_a_hundred_vehicles_are_a_hundred_crops() -> None:
    cars = [Detection("car", 0.9, Box(x, y, x + 40, y + 40)) for x in range(0, 400, 40) for y in range(0, 400, 40)]
    found = vehicles(*cars, size=(400, 400))
    assert len(found) == 100 and np.unique([box.left for box, _ in found]).size == 10
