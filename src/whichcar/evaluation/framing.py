"""Whether pictures are shown to a classifier as it was trained: whole, or cut to the vehicle."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whichcar.config_crop import crop_settings
from whichcar.detection.crop import RECORD
from whichcar.detection.cutter import Cutter
from whichcar.detection.zoo import FILE_VARIABLE

log = logging.getLogger(__name__)


class Framing:
    """How pictures reach a classifier.

    Args:
        checkpoint: named in warnings.
        trained: settings of the crop stage that cut the pictures it was trained on; None: they were not cut by it.
        crop: cut pictures now. The detector is the one trained with, or that of `WHICHCAR_DETECTOR`.

    Raises:
        DetectorError: `crop`, and the detector cannot be had.
    """

    def __init__(self, checkpoint: Path, trained: dict[str, Any] | None, crop: bool) -> None:
        """Load the detector where pictures are to be cut."""
        self._checkpoint, self._trained, self._crop = checkpoint, trained, crop
        self.cut: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]] | None = None
        if crop:
            other = {"detector": None} if os.environ.get(FILE_VARIABLE) else {}
            cutter = Cutter(crop_settings(**(trained or {}) | other), threads=1)
            _ = cutter.detector  # what is wrong with it shows now, not in the middle of the work
            self.cut = cutter.cropped

    def watched(self, paths: Iterable[Path]) -> Iterator[Path]:
        """Yield the paths; warn at the first picture that is framed in another way than those trained on."""
        quiet = False
        for path in paths:
            if not quiet and (said := self._disagreement(is_cut(path.absolute().parent))):
                log.warning("%s: %s", self._checkpoint, said)
                quiet = True
            yield path

    def _disagreement(self, already_cut: bool) -> str:
        if self._crop and already_cut:
            return "these pictures are cut to the vehicle already, and --crop cuts them again; leave it out"
        if self._trained and not self._crop and not already_cut:
            return "was trained on pictures cut to the vehicle, and these seem to be whole: add --crop"
        if self._crop and not self._trained:
            return "was not trained on pictures that `whichcar crop` cut; --crop may show it something else"
        return ""


@lru_cache(maxsize=1024)
def is_cut(folder: Path) -> bool:
    """True when `whichcar crop` wrote this folder, or one that it lies in."""
    return any((above / RECORD).is_file() for above in (folder, *folder.parents))
