"""One image cut to its vehicle: what the crop stage and a classifier that crops by itself share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from whichcar.config.crop import CropSettings
from whichcar.config.section import suggestion
from whichcar.detection.coco import NAMES
from whichcar.detection.detection import Detector, load_detector, main_vehicle, vehicles_among, with_margin
from whichcar.errors import ConfigError
from whichcar.images.pixels import DecodedImage
from whichcar.records import Box, Crop, Detection

Picture = npt.NDArray[np.uint8]

_LARGE = 4_000_000  # pixels
_SHOWN = (1024, 1024)  # of a large image, at least: more than detectors look at


class Chosen(NamedTuple):
    """The vehicle chosen in an image (None: there is none) and how many there were to choose from."""

    vehicle: Detection | None
    candidates: int


class Cutter:
    """Finds the vehicle as the settings say. The detector is loaded at the first image, once; threads may share it.

    Args:
        settings: of the crop stage.
        threads: processors one call of the detector may use (default: all).
        detector: to use instead of the one the settings name.

    Raises:
        ConfigError: a class that COCO does not have, or a family for a detector that is no file.
    """

    def __init__(self, settings: CropSettings, threads: int | None = None, detector: Detector | None = None) -> None:
        """Check the settings."""
        if unknown := [name for name in settings.classes if name not in NAMES]:
            advice = suggestion(unknown[0], NAMES) or f"known are {', '.join(NAMES)}"
            raise ConfigError(f"crop: classes: {unknown[0]!r} is no class of COCO; {advice}")
        if detector is not None and settings.family is not None:
            raise ConfigError(f"crop: family: is for a detector's file, and {detector.name} is none; leave it out")
        self.settings = settings
        self._threads = threads
        self._detector = detector
        self._loading = threading.Lock()

    @property
    def detector(self) -> Detector:
        """The detector, loaded if it is not yet."""
        with self._loading:
            if self._detector is None:
                self._detector = load_detector(self.settings.detector, self._threads, self.settings.family)
            return self._detector

    def choose(self, images: Sequence[Picture]) -> list[Chosen]:
        """Return the vehicle of each image; images are (height, width, 3) uint8, RGB, upright."""
        found = self.detector.detect(images, self.settings.score)
        return [self._chosen(seen, image.shape[:2]) for image, seen in zip(images, found, strict=True)]

    def choose_in(self, image: DecodedImage) -> Chosen:
        """Return the vehicle of one image; the detector is shown a large one reduced."""
        small, factor = image.reduced(_SHOWN) if is_large(image) else (image.pixels(), 1)
        seen = self.detector.detect([small], self.settings.score)[0]
        return self._chosen([replace(one, box=_enlarged(one.box, factor, image.size)) for one in seen], image.size)

    def _chosen(self, seen: Sequence[Detection], size: tuple[int, int]) -> Chosen:
        candidates = vehicles_among(seen, self.settings.classes, self.settings.min_size)
        return Chosen(main_vehicle(candidates, size, self.settings.choice), len(candidates))

    def box(self, chosen: Chosen, size: tuple[int, int]) -> Box | None:
        """Return what to crop an image of (height, width) to: the vehicle and its margin; None for all of it."""
        return with_margin(chosen.vehicle.box, self.settings.margin, size) if chosen.vehicle else None

    def cropped(self, path: str, image: DecodedImage) -> tuple[Box | None, Crop]:
        """Return what to crop an image to, None for all of it where it shows no vehicle, and the record of that."""
        chosen = self.choose_in(image)
        return self.box(chosen, image.size), described(path, image.size, chosen)


def is_large(image: DecodedImage) -> bool:
    """True for an image that is shown to the detector alone and reduced, since it takes much memory."""
    return image.size[0] * image.size[1] > _LARGE


def _enlarged(box: Box, factor: int, size: tuple[int, int]) -> Box:
    """Return a box found in an image that was reduced by `factor` in pixels of the image, of (height, width)."""
    right, bottom = min(size[1], box.right * factor), min(size[0], box.bottom * factor)
    return Box(box.left * factor, box.top * factor, right, bottom)


def described(path: str, size: tuple[int, int], chosen: Chosen) -> Crop:
    """Return the record of a crop, or of an image of (height, width) that stays whole since it shows no vehicle."""
    vehicle, candidates = chosen
    if vehicle is None:
        return Crop(path, Box(0, 0, size[1], size[0]), "", None, 0, "whole: no vehicle")
    return Crop(path, vehicle.box, vehicle.label, round(vehicle.score, 4), candidates, "cropped")
