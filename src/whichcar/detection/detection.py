"""What a detector is, which of the vehicles it sees is the one meant, and the rectangle to cut the image to."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from whichcar import files
from whichcar.config.crop import SCORE, VEHICLES
from whichcar.config.section import suggestion
from whichcar.detection import zoo
from whichcar.environment import expanded
from whichcar.errors import DataError, DetectorError, ImageError
from whichcar.images.inputs import Source, each
from whichcar.records import Box, Detection, Skipped

Picture = npt.NDArray[np.uint8]
Choice = Literal["largest", "central"]
DETECTRON = "detectron2"


class Detector(Protocol):
    """Anything that finds the objects of COCO in images; `name` is what to call it."""

    name: str

    def detect(self, images: Sequence[Picture], score: float = SCORE) -> list[list[Detection]]:
        """Return what is seen in each image above `score`, most confident first.

        Args:
            images: each (height, width, 3) uint8, RGB, upright; sizes may differ.
            score: 0..1; objects at or below it are left out.
        """


class DetectorFile(NamedTuple):
    """A detector's name and the ONNX file it is in; detectron2 has none."""

    name: str
    file: Path | None

    @property
    def sha256(self) -> str | None:
        """The file's checksum: two detectors are the same where this is."""
        return None if self.file is None else files.sha256(self.file)


def find_detector(name: str | None = None) -> DetectorFile:
    """Find a detector's file, fetching one with a name the first time.

    Args:
        name: of `zoo.ENTRIES`, `detectron2`, or an ONNX file's path; by default the file that the environment variable
            `WHICHCAR_DETECTOR` names, else `zoo.DEFAULT`.

    Raises:
        DetectorError: no such name or file, or it cannot be fetched.
    """
    if name == "":  # of a shell variable that is not set: not the default, unasked
        raise DetectorError(
            "detector '': the name is empty; give one that `whichcar detectors` lists, or a file, PATH.onnx"
        )
    named = os.environ.get(zoo.FILE_VARIABLE)
    origin = f" (from {zoo.FILE_VARIABLE})" if named and not name else ""
    name = name or named or zoo.DEFAULT
    if name == DETECTRON:
        return DetectorFile(name, None)
    if entry := zoo.entry_of(name):
        return DetectorFile(name, zoo.file_of(entry))
    path = expanded(name)
    if path.is_file():
        return DetectorFile(path.name, path)
    if path.suffix.lower() == ".onnx":
        raise DetectorError(
            f"detector {name}{origin}: no such file; give an .onnx file, or a name that `whichcar detectors` lists"
        )
    known = [entry.name for entry in zoo.ENTRIES] + [DETECTRON]
    advice = suggestion(name, known) or f"known are {', '.join(known)}"
    raise DetectorError(f"detector {name!r}{origin}: no such name; {advice}; or give a file, PATH.onnx")


def load_detector(name: str | None = None, threads: int | None = None, family: str | None = None) -> Detector:
    """Return a detector, ready to be asked.

    Args:
        name: as for `find_detector`.
        threads: processors one call may use (default: all).
        family: of `FAMILIES`, for an ONNX file whose outputs do not tell it.

    Raises:
        DetectorError: unknown, not to be fetched, no detector, or detectron2 is not installed.
    """
    source = find_detector(name)
    if source.file is None:
        if family is not None:
            raise DetectorError(f"detector {source.name}: is no ONNX file; leave --family {family} out")
        from whichcar.detection.detectron import DetectronDetector

        return DetectronDetector()
    from whichcar.detection.onnx import OnnxDetector

    return OnnxDetector(source.file, source.name, threads, family)


def main_vehicle(
    candidates: Sequence[Detection], size: tuple[int, int], choice: Choice = "largest"
) -> Detection | None:
    """Return the vehicle that the image shows; None where there is no candidate.

    Args:
        candidates: vehicles.
        size: (height, width) of the image.
        choice: `largest` by area; `central` by area times nearness to the centre, which falls from 1 in the middle of
            the image to 0 in its corners.

    Of equals the most confident wins, then the one that stands first.
    """
    weigh: dict[Choice, Callable[[Box], float]] = {
        "largest": lambda box: float(box.area),
        "central": lambda box: box.area * _nearness(box, size),
    }
    return max(candidates, key=lambda one: (weigh[choice](one.box), one.score), default=None)


def vehicles_among(
    detections: Iterable[Detection], classes: Sequence[str] = VEHICLES, min_size: int = 1
) -> list[Detection]:
    """Return the detections of these classes whose shorter side is at least `min_size` pixels."""
    return [one for one in detections if one.label in classes and min(one.box.width, one.box.height) >= min_size]


def get_vehicle_coordinates(
    image: Source, *, bgr: bool = False, detector: str | Path | Detector | None = None, score: float = SCORE
) -> tuple[int, int, int, int]:
    """Find the vehicle in an image: the largest car or truck, by its box, that is seen with more than `score`.

    Args:
        image: an array (height, width, 3), RGB, as Pillow gives it, grey or with alpha too, 0..255 or floats 0..1;
            a PIL image; a file's path or an http(s) address.
        bgr: the array's channels run from blue to red, as OpenCV's `imread` gives them.
        detector: one that is loaded, or what `load_detector` takes, which is loaded at the first call and kept.
        score: 0..1.

    Returns:
        (left, top, right, bottom) in whole pixels, right and bottom exclusive: `image[top:bottom, left:right]` is the
        vehicle. The whole image where no car or truck is seen.

    Raises:
        DetectorError: no detector can be had, or `bgr` where `image` is no array with colours.
        DataError: `image` is none of these, or not one.
        ImageError: it cannot be read.
    """
    rgb = _one_image(image)
    if bgr:
        if not isinstance(image, np.ndarray) or image.ndim < 3 or image.shape[-1] == 1:
            raise DetectorError("bgr is for arrays (height, width, 3); leave it out for files, PIL and grey images")
        rgb = np.ascontiguousarray(rgb[:, :, ::-1])
    if detector is None or isinstance(detector, str | Path):
        detector = _kept(None if detector is None else str(detector))
    found = main_vehicle(vehicles_among(detector.detect([rgb], score)[0]), rgb.shape[:2])
    if found is None:
        return 0, 0, rgb.shape[1], rgb.shape[0]
    return found.box.left, found.box.top, found.box.right, found.box.bottom


def _one_image(image: Source) -> Picture:
    """Return the only image of a source as (height, width, 3) uint8 RGB."""
    given = list(itertools.islice(each(image), 2))
    if len(given) != 1:
        raise DataError(f"expected one image, got {'several' if given else 'none'}; give one at a time")
    if isinstance(given[0], Skipped):
        raise ImageError(f"{given[0].path}: {given[0].reason}")
    with given[0].open(None) as opened:
        return opened.pixels()


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
def _kept(name: str | None) -> Detector:
    return load_detector(name)
