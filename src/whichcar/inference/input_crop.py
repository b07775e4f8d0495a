"""Whether images reach a classifier in the form of its training images: whole, or cropped to the vehicle."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, get_args

from whichcar.errors import ConfigError, DetectorError
from whichcar.files import CROP_RECORD
from whichcar.images.inputs import Given
from whichcar.images.pixels import DecodedImage
from whichcar.records import Box, Crop, Skipped

if TYPE_CHECKING:
    from whichcar.detection.cropper import Cropper

log = logging.getLogger(__name__)

LEAST_SIDE = 32  # pixels of a box's shorter side; below this, a make cannot be recognised

CropFunction = Callable[[str, DecodedImage], Sequence[tuple[Box | None, Crop]]]
CropChoice = Callable[[Path | str], CropFunction | None]
Vehicles = Literal["all", "largest"]


class InputCrop:
    """Whether images are cropped before classification; warns if that differs from training.

    Vehicles smaller than `LEAST_SIDE` pixels are ignored.

    Args:
        model: the model's name in warnings.
        trained: how the training images were cropped (`detection.crop.read_record`); None: not by whichcar.
        crop: whether to crop the images, with the settings of the training images; None: crop if these were cropped,
            except images that `whichcar crop` wrote.
        detector: a name or file (default: the detector of the training images or, if there was none or its file is
            gone, as for `find_detector`). A detector other than in training causes a warning.
        family: for a detector file whose outputs fit several families (default: as in training, for the same file).

    Raises:
        DetectorError: the detector for cropping is unavailable; or one, or a family, is given but nothing is cropped.
    """

    def __init__(
        self,
        model: str | Path,
        trained: dict[str, Any] | None,
        crop: bool | None,
        detector: str | None = None,
        family: str | None = None,
    ) -> None:
        """Load the detector if it is certain to be needed."""
        self.crops = trained is not None if crop is None else crop
        for option, value in (("detector", detector), ("family", family)):
            if value is not None and not self.crops:
                raise DetectorError(f"{option} {value}: is used only when images are cropped; add --crop (crop=True)")
        self._model, self._trained, self._crop = model, trained, crop
        self._detector, self._family = detector, family
        self._loading = Lock()
        self._loaded: tuple[Cropper, dict[str, Any]] | None = None
        if crop or (detector or family) is not None:
            _ = self._cropper.detector  # its errors are raised now, not in the middle of the work

    @property
    def record(self) -> dict[str, Any] | None:
        """Settings and detector, for the record of a result; None if nothing is cropped."""
        return self._load()[1] if self.crops else None

    def origin(self, vehicles: Vehicles | None) -> dict[str, Any] | None:
        """Return `record` for the origin of rows, with `all` if images that `whichcar crop` wrote are cropped too."""
        also = {"all": True} if self._crop and vehicles is None else {}
        return self.record and {**self.record, **also}

    @property
    def margin(self) -> float:
        """Margin around a vehicle's box, as a fraction of its sides."""
        return self._cropper.settings.margin

    def choice(self, path: Path | str) -> CropFunction | None:
        """Return the function that crops the image at this path; None if the image is used as it is."""
        if not self.crops or (self._crop is None and isinstance(path, Path) and _is_crop(path)):
            return None
        return lambda name, image: [self._cropper.cropped(name, image)]

    def each_vehicle(self, vehicles: Vehicles) -> CropChoice:
        """Return a choice that crops every image to each of its vehicles, or to the largest.

        Raises:
            ConfigError: `vehicles` has another value, or cropping is turned off.
            DetectorError: the detector is unavailable.
        """
        if vehicles not in get_args(Vehicles):
            raise ConfigError(f"vehicles: must be all or largest; got {vehicles!r}")
        if self._crop is False:
            raise ConfigError(f"vehicles {vehicles}: images are cropped to them; leave --no-crop (crop=False) out")
        cropper, last = self._cropper, None if vehicles == "all" else 1
        _ = cropper.detector

        return lambda _: lambda name, image: cropper.vehicles(name, image)[:last]

    @property
    def _cropper(self) -> Cropper:
        return self._load()[0]

    def _load(self) -> tuple[Cropper, dict[str, Any]]:
        """Return the cropper and its record, made on first use, under a lock because threads share it."""
        with self._loading:
            if self._loaded is None:
                self._loaded = self._made()
            return self._loaded

    def _made(self) -> tuple[Cropper, dict[str, Any]]:
        from whichcar.config.crop import crop_settings, recorded_settings
        from whichcar.detection.cropper import Cropper
        from whichcar.detection.detection import find_detector

        before = self._trained or {"settings": {}, "detector": {"name": "", "sha256": None}}
        named = _still_there(before["settings"].get("detector")) if self._detector is None else self._detector
        found = find_detector(named)
        now = {"name": found.name, "sha256": found.sha256}
        given: dict[str, str | None] = {"detector": str(found.file or found.name)}
        if self._family is not None or before["detector"]["sha256"] != now["sha256"]:
            given["family"] = self._family  # the recorded family was given for another file
        least = max(LEAST_SIDE, before["settings"].get("min_size", LEAST_SIDE))
        made = recorded_settings if self._family is None else crop_settings  # the family is not checked yet
        settings = made(**before["settings"] | given | {"min_size": least})
        key = "name" if before["detector"]["sha256"] is None else "sha256"  # objects and detectron2 have no file
        if before["detector"][key] not in ("", now[key]):
            log.warning(
                "%s: was trained on images cropped by %s, now %s crops them; --detector names another",
                self._model, before["detector"]["name"], found.name,
            )  # fmt: skip
        content = settings.as_json()
        del content["detector"]
        return Cropper(settings, threads=1, file=found), {"settings": content, "detector": now}

    def warned(self, images: Iterable[Given | Skipped]) -> Iterator[Given | Skipped]:
        """Yield the images; warn at the first file that is cropped, or whole, unlike the training images.

        With `crop=False`, a network trained on crops gets no warning, since whole images were asked for.
        """
        quiet = self._trained is not None and not self._crop
        for image in images:
            if not quiet and isinstance(image.path, Path):
                message = self.disagreement(image.path)
                if message:
                    log.warning("%s: %s", self._model, message)
                    quiet = True
            yield image

    def disagreement(self, path: Path) -> str:
        """Return how this image differs in cropping from the training images; "" if it does not."""
        already_cropped = _is_crop(path)
        if self._crop and already_cropped:
            return "these images are cropped to the vehicle already, and cropped again; leave out --crop or --vehicles"
        if self._trained and not self.crops and not already_cropped:
            return "was trained on images cropped to the vehicle, and these seem to be whole: add --crop"
        if already_cropped and not self._crop and not self._trained:
            return "was not trained on images that `whichcar crop` wrote, and these are"
        if self._crop and not self._trained:
            return "was not trained on images that `whichcar crop` wrote; cropping may give it other images than those"
        return ""


def _is_crop(path: Path) -> bool:
    return is_cropped(path.absolute().parent)


def _still_there(detector: str | None) -> str | None:
    """Return the detector, or None if it is a file that no longer exists."""
    return None if detector and Path(detector).is_absolute() and not Path(detector).is_file() else detector


@lru_cache(maxsize=1024)
def is_cropped(folder: Path) -> bool:
    """True if `whichcar crop` wrote this folder or a parent of it."""
    # False for a folder without access, for which Path raises
    return any(os.path.isfile(above / CROP_RECORD) for above in (folder, *folder.parents))  # noqa: PTH113
