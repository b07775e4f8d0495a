"""The detector protocol, the choice of the main vehicle, and its box."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from whichcar import files
from whichcar.config.crop import SCORE, VEHICLES
from whichcar.detection import zoo
from whichcar.environment import expanded
from whichcar.errors import DetectorError
from whichcar.images.inputs import Source, only
from whichcar.images.pixels import Pixels
from whichcar.records import Box, Detection
from whichcar.text import suggestion

Choice = Literal["largest", "central"]
DETECTRON = "detectron2"
_SAME_OBJECT = 0.6  # intersection over union; it hardly exceeds 0.5 for two vehicles, one partly behind the other


class Detector(Protocol):
    """Any detector of COCO's classes in images; `name` is used in messages and records."""

    name: str

    def detect(self, images: Sequence[Pixels], score: float = SCORE) -> list[list[Detection]]:
        """Return the detections of each image above `score`, most confident first.

        Args:
            images: each (height, width, 3) uint8, RGB, upright; sizes may differ.
            score: 0..1; detections at or below it are left out.
        """


class DetectorFile(NamedTuple):
    """A detector's name and its ONNX file; detectron2 has none.

    `entry` is the entry of a named detector, whose file was just verified by its checksum.
    """

    name: str
    file: Path | None
    entry: zoo.Entry | None = None

    @property
    def sha256(self) -> str | None:
        """The file's checksum, which identifies the detector."""
        if self.entry is not None:
            return self.entry.sha256
        return None if self.file is None else files.sha256(self.file)

    @property
    def is_packaged(self) -> bool:
        """Whether the file is part of this package."""
        return self.entry is not None and self.entry.url is None


def find_detector(name: str | None = None) -> DetectorFile:
    """Find a detector's file; the file of a named detector is downloaded on first use.

    Args:
        name: one of `zoo.ENTRIES`, `detectron2`, or an ONNX file's path (default: the environment variable
            `WHICHCAR_DETECTOR`, else `zoo.DEFAULT`).

    Raises:
        DetectorError: there is no such name or file, or it cannot be downloaded.
    """
    if name == "":  # from an unset shell variable, for which the default would be a surprise
        raise DetectorError(
            "detector '': the name is empty; give one that `whichcar detectors` lists, or a file, PATH.onnx"
        )
    named = os.environ.get(zoo.FILE_VARIABLE)
    origin = f" (from {zoo.FILE_VARIABLE})" if named and not name else ""
    name = name or named or zoo.DEFAULT
    if name == DETECTRON:
        return DetectorFile(name, None)
    if entry := zoo.entry_of(name):
        return DetectorFile(name, zoo.file_of(entry), entry)
    path = expanded(name)
    if path.is_file():
        return DetectorFile(path.name, path)
    if path.suffix.lower() == ".onnx":
        raise DetectorError(
            f"detector {name}{origin}: no such file; give an .onnx file, or a name that `whichcar detectors` lists"
        )
    names = [entry.name for entry in zoo.ENTRIES] + [DETECTRON]
    advice = suggestion(name, names) or f"known: {', '.join(names)}"
    raise DetectorError(f"detector {name!r}{origin}: no such name; {advice}; or give a file, PATH.onnx")


def load_detector(
    name: str | DetectorFile | None = None, threads: int | None = None, family: str | None = None
) -> Detector:
    """Return a loaded detector.

    Args:
        name: as for `find_detector`, or its result.
        threads: CPU cores per call (default: all).
        family: one of `FAMILIES`, for an ONNX file whose outputs fit several.

    Raises:
        DetectorError: the name is unknown, the download fails, the file is not a detector, or detectron2 is missing.
    """
    source = name if isinstance(name, DetectorFile) else find_detector(name)
    if source.file is None:
        if family is not None:
            raise DetectorError(f"detector {source.name}: is not an ONNX file; leave --family {family} out")
        from whichcar.detection.detectron import DetectronDetector

        return DetectronDetector()
    from whichcar.detection.onnx import OnnxDetector
    from whichcar.detection.outputs import PACKAGED

    return OnnxDetector(source.file, source.name, threads, family, PACKAGED if source.is_packaged else None)


def main_vehicle(
    candidates: Sequence[Detection], size: tuple[int, int], choice: Choice = "largest"
) -> Detection | None:
    """Return the main vehicle of an image; None if there are no candidates.

    Args:
        candidates: the detected vehicles.
        size: (height, width) of the image.
        choice: `largest` by area; `central` by area weighted by nearness to the centre, from 1 in the centre of the
            image to 0 in its corners.

    Ties go to the most confident, then to the first.
    """
    weight: dict[Choice, Callable[[Box], float]] = {
        "largest": lambda box: float(box.area),
        "central": lambda box: box.area * _nearness(box, size),
    }
    return max(candidates, key=lambda item: (weight[choice](item.box), item.score), default=None)


def vehicles_among(
    detections: Iterable[Detection], classes: Sequence[str] = VEHICLES, min_size: int = 1
) -> list[Detection]:
    """Return the detections of these classes whose shorter side is at least `min_size` pixels."""
    return [item for item in detections if item.label in classes and min(item.box.width, item.box.height) >= min_size]


def distinct(detections: Iterable[Detection]) -> list[Detection]:
    """Return the detections, most confident first, without duplicates of the same object.

    Detectors only compare boxes of the same class, and they may take a pickup for both a car and a truck.
    """
    kept: list[Detection] = []
    for item in sorted(detections, key=lambda item: -item.score):
        if all(_overlap(item.box, other.box) <= _SAME_OBJECT for other in kept):
            kept.append(item)
    return kept


def _overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    across = min(one.right, other.right) - max(one.left, other.left)
    down = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(0, across) * max(0, down)
    return shared / (one.area + other.area - shared)


def get_vehicle_coordinates(
    image: Source, *, bgr: bool = False, detector: str | Path | Detector | None = None, score: float = SCORE
) -> tuple[int, int, int, int]:
    """Find the vehicle in an image: the car or truck with the largest box among those detected above `score`.

    Args:
        image: an array (height, width, 3), RGB, also greyscale or with alpha, 0..255, or floats 0..1; a PIL image; a
            file's path or an http(s) address.
        bgr: whether the array's channels are blue, green, red, as in OpenCV's `imread`.
        detector: a loaded detector, or a name for `load_detector`, loaded at the first call and cached.
        score: minimum score, 0..1.

    Returns:
        (left, top, right, bottom) in whole pixels, right and bottom exclusive: `image[top:bottom, left:right]` is the
        vehicle. The whole image if no car or truck is detected.

    Raises:
        DetectorError: the detector cannot be loaded, or `bgr` is set for anything but an array with colours.
        DataError: `image` is none of these, or is several images.
        ImageError: it cannot be read.
    """
    with only(image).open(None) as opened:
        rgb = opened.pixels()
    if bgr:
        if not isinstance(image, np.ndarray) or image.ndim < 3 or image.shape[-1] == 1:
            raise DetectorError("bgr is for arrays (height, width, 3); leave it out for files, PIL and grey images")
        rgb = np.ascontiguousarray(rgb[:, :, ::-1])
    if detector is None or isinstance(detector, str | Path):
        detector = _cached(None if detector is None else str(detector))
    vehicle = main_vehicle(vehicles_among(detector.detect([rgb], score)[0]), rgb.shape[:2])
    if vehicle is None:
        return 0, 0, rgb.shape[1], rgb.shape[0]
    return vehicle.box.left, vehicle.box.top, vehicle.box.right, vehicle.box.bottom


def with_margin(box: Box, share: float, size: tuple[int, int]) -> Box:
    """Return the box widened on every side by `share` of its width or height, inside an image of (height, width)."""
    across, down = round(box.width * share), round(box.height * share)
    return Box(
        max(0, box.left - across),
        max(0, box.top - down),
        min(size[1], box.right + across),
        min(size[0], box.bottom + down),
    )


def _nearness(box: Box, size: tuple[int, int]) -> float:
    away = math.hypot((box.left + box.right - size[1]) / 2, (box.top + box.bottom - size[0]) / 2)
    return 1 - away / (math.hypot(*size) / 2)


@lru_cache(maxsize=2)
def _cached(name: str | None) -> Detector:
    return load_detector(name)
