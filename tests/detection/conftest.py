"""Images drawn for the detectors of `tests/conftest.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.detection.onnx import OnnxDetector

RED, BLUE, GREY = (230, 20, 20), (20, 20, 230), (128, 128, 128)


@pytest.fixture(scope="session")
def red_cars(red_car_file: Path) -> OnnxDetector:
    return OnnxDetector(red_car_file, threads=1)


def scene(
    size: tuple[int, int] = (96, 128),
    car: tuple[int, int, int, int] | None = (32, 24, 96, 72),
    bus: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Draw a grey image of (height, width) with a red car and a blue bus: (left, top, right, bottom) each."""
    image = np.full((*size, 3), GREY, np.uint8)
    for box, colour in ((bus, BLUE), (car, RED)):
        if box:
            image[box[1] : box[3], box[0] : box[2]] = colour
    return image


@pytest.fixture
def paint() -> Callable[..., Path]:
    """The function that writes a scene to a file."""

    def write(path: Path, **drawn: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(**drawn)).save(path)  # type: ignore[arg-type]
        return path

    return write
