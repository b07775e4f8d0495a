"""One picture cut to its vehicle: what the crop stage and a classifier that crops by itself share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from whichcar.config_crop import CropSettings
from whichcar.config_section import suggestion
from whichcar.detection.coco import NAMES
from whichcar.detection.detection import Detector, load_detector, main_vehicle, vehicles_among, with_margin
from whichcar.errors import ConfigError
from whichcar.records import Box, Crop, Detection

Picture = npt.NDArray[np.uint8]


class Chosen(NamedTuple):
    """The vehicle chosen in a picture (None: there is none) and how many there were to choose from."""

    vehicle: Detection | None
    candidates: int


class Cutter:
    """Finds the vehicle as the settings say. The detector is loaded at the first picture, once; threads may share it.

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
        """Return the vehicle of each picture; pictures are (height, width, 3) uint8, RGB, upright."""
        settings = self.settings
        found = []
        for image, seen in zip(images, self.detector.detect(images, settings.score), strict=True):
            candidates = vehicles_among(seen, settings.classes, settings.min_size)
            found.append(Chosen(main_vehicle(candidates, image.shape[:2], settings.choice), len(candidates)))
        return found

    def cut(self, image: Picture, box: Box) -> Picture:
        """Return the picture inside the box and its margin."""
        wide = with_margin(box, self.settings.margin, image.shape[:2])
        return image[wide.top : wide.bottom, wide.left : wide.right]

    def cropped(self, path: str, image: Picture) -> tuple[Picture, Crop]:
        """Return the image cropped to its vehicle, or whole where it shows none, and which of the two it is."""
        chosen = self.choose([image])[0]
        cut = image if chosen.vehicle is None else self.cut(image, chosen.vehicle.box)
        return cut, described(path, image, chosen)


def described(path: str, image: Picture, chosen: Chosen) -> Crop:
    """Return the record of a crop, or of an image that stays whole since no vehicle was found."""
    vehicle, candidates = chosen
    if vehicle is None:
        return Crop(path, Box(0, 0, image.shape[1], image.shape[0]), "", None, 0, "whole: no vehicle")
    return Crop(path, vehicle.box, vehicle.label, round(vehicle.score, 4), candidates, "cropped")
