"""Crop one image to its vehicle, as the crop stage and a classifier that crops its input do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from whichcar.config.crop import CropSettings
from whichcar.detection.coco import NAMES
from whichcar.detection.detection import (
    Detector,
    DetectorFile,
    distinct,
    load_detector,
    main_vehicle,
    vehicles_among,
    with_margin,
)
from whichcar.errors import ConfigError
from whichcar.images.pixels import DecodedImage, Pixels
from whichcar.records import Box, Crop, Detection
from whichcar.text import plural, suggestion

_LARGE = 4_000_000  # pixels
_REDUCED = (1024, 1024)  # minimum size of the reduced copy: larger than the input of any detector in `zoo`
# The vehicle an image was framed on may score low if it fills the image, and a car in the background high.
_FILLED = 0.5  # of the image, covered by a vehicle to classify, for which a lower score is enough
_LOWER = 0.5  # of the minimum score, for such a vehicle


class Chosen(NamedTuple):
    """The vehicle chosen in an image (if None, `reason` says why) and the number of candidates."""

    vehicle: Detection | None
    candidates: int
    reason: str = ""


class Cropper:
    """Finds the main vehicle, as configured. The detector is loaded once, for the first image; threads may share it.

    Args:
        settings: the crop settings.
        threads: CPU cores per call of the detector (default: all).
        detector: used instead of the detector in the settings.
        file: the file of the detector in the settings, if it has already been found.

    Raises:
        ConfigError: a class is not in COCO, or a family is given for a detector that is not a file.
    """

    def __init__(
        self,
        settings: CropSettings,
        threads: int | None = None,
        detector: Detector | None = None,
        file: DetectorFile | None = None,
    ) -> None:
        """Check the settings."""
        if unknown := [name for name in settings.classes if name not in NAMES]:
            advice = suggestion(unknown[0], NAMES) or f"known: {', '.join(NAMES)}"
            raise ConfigError(f"crop: classes: {unknown[0]!r} is not a class of COCO; {advice}")
        if detector is not None and settings.family is not None:
            raise ConfigError(
                f"crop: family: applies to a detector's file, and {detector.name} is not one; leave it out"
            )
        self.settings = settings
        self._threads, self._named = threads, file or settings.detector
        self._detector = detector
        self._loading = threading.Lock()

    @property
    def detector(self) -> Detector:
        """The detector, loaded on first use."""
        with self._loading:
            if self._detector is None:
                self._detector = load_detector(self._named, self._threads, self.settings.family)
            return self._detector

    def choose(self, images: Sequence[Pixels]) -> list[Chosen]:
        """Choose the vehicle of each image; images are (height, width, 3) uint8, RGB, upright."""
        detections = self.detector.detect(images, self.settings.score)
        return [self._chosen(found, image.shape[:2]) for image, found in zip(images, detections, strict=True)]

    def choose_in(self, image: DecodedImage) -> Chosen:
        """Choose the vehicle of one image; for a large image, the detector gets a reduced copy."""
        return self._chosen(self._detections(image, self.settings.score), image.size)

    def _detections(self, image: DecodedImage, score: float) -> list[Detection]:
        small, factor = image.reduced(_REDUCED) if is_large(image) else (image.pixels(), 1)
        detections = self.detector.detect([small], score)[0]
        return [replace(item, box=_enlarged(item.box, factor, image.size)) for item in detections]

    def _to_classify(self, image: DecodedImage) -> list[Detection]:
        """Return the detections above the minimum score, and those above a lower one that fill half of the image."""
        score, (height, width) = self.settings.score, image.size
        found = self._detections(image, _LOWER * score)
        return [item for item in found if item.score > score or item.box.area >= _FILLED * height * width]

    def _chosen(self, detections: Sequence[Detection], size: tuple[int, int]) -> Chosen:
        candidates = vehicles_among(detections, self.settings.classes, self.settings.min_size)
        reason = "" if candidates else self._no_vehicle(detections)
        return Chosen(main_vehicle(candidates, size, self.settings.choice), len(distinct(candidates)), reason)

    def _no_vehicle(self, detections: Sequence[Detection]) -> str:
        """Return why none of these counts as a vehicle."""
        small = distinct(vehicles_among(detections, self.settings.classes))
        return (
            f"{plural(len(small), 'vehicle')} smaller than {self.settings.min_size} pixels" if small else "no vehicle"
        )

    def box(self, chosen: Chosen, size: tuple[int, int]) -> Box | None:
        """Return the crop of an image of (height, width): the vehicle and its margin; None for the whole image."""
        return with_margin(chosen.vehicle.box, self.settings.margin, size) if chosen.vehicle else None

    def cropped(self, path: str, image: DecodedImage) -> tuple[Box | None, Crop]:
        """Return the crop of an image to classify (None if no vehicle was found: the whole image) and its record.

        Unlike in the crop stage, a vehicle that covers half of the image needs only half the minimum score.
        """
        chosen = self._chosen(self._to_classify(image), image.size)
        return self.box(chosen, image.size), described(path, image.size, chosen)

    def vehicles(self, path: str, image: DecodedImage) -> list[tuple[Box | None, Crop]]:
        """Return the crop of each vehicle in an image to classify, with its record, largest first.

        A vehicle that covers half of the image needs only half the minimum score. A vehicle detected as both a car and
        a truck counts once. If there is none, one record says why.
        """
        seen = self._to_classify(image)
        found = distinct(vehicles_among(seen, self.settings.classes, self.settings.min_size))
        if not found:
            return [(None, Crop(path, None, "", None, 0, f"skipped: {self._no_vehicle(seen)}"))]
        found.sort(key=lambda item: -item.box.area)
        return [
            (
                with_margin(item.box, self.settings.margin, image.size),
                replace(described(path, image.size, Chosen(item, len(found))), number=number),
            )
            for number, item in enumerate(found, 1)
        ]


def is_large(image: DecodedImage) -> bool:
    """Return whether an image is processed alone, with detection on a reduced copy, to save memory."""
    return image.size[0] * image.size[1] > _LARGE


def _enlarged(box: Box, factor: int, size: tuple[int, int]) -> Box:
    """Convert a box from an image reduced by `factor` to pixels of the full image, (height, width)."""
    right, bottom = min(size[1], box.right * factor), min(size[0], box.bottom * factor)
    return Box(box.left * factor, box.top * factor, right, bottom)


def described(path: str, size: tuple[int, int], chosen: Chosen) -> Crop:
    """Return the record of a crop, or of an image of (height, width) left whole because it has no vehicle."""
    vehicle, candidates, reason = chosen
    if vehicle is None:
        return Crop(path, Box(0, 0, size[1], size[0]), "", None, 0, f"whole: {reason}")
    return Crop(path, vehicle.box, vehicle.label, round(vehicle.score, 4), candidates, "cropped")
