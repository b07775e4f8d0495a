"""From images to the encoded bytes of their crops and a row for each, independent of where these are written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from PIL import Image

from whichcar.detection.cropper import Chosen, Cropper, described, is_large
from whichcar.errors import DataError, ImageError
from whichcar.images.inputs import Given
from whichcar.images.pixels import DecodedImage, Pixels
from whichcar.records import Crop

_LOSSY = frozenset({".jpg", ".jpeg", ".webp"})


class Cropped(NamedTuple):
    """The row of an image and the content of its crop's file; None if the image is left out."""

    row: Crop
    content: bytes | None


class CropImages:
    """Takes images through detecting, cropping and encoding.

    Args:
        cropper: a cropper with the settings of the stage.
    """

    def __init__(self, cropper: Cropper) -> None:
        self._cropper, self._settings = cropper, cropper.settings

    def work(self, images: Sequence[tuple[str, Given]]) -> list[Cropped]:
        """Take a batch of images through all steps; a large image alone, to save memory.

        Args:
            images: for each image, its path in boxes.csv, whose suffix is the crop's format, and how to open it.

        Raises:
            DataError: an image has no vehicle, and the settings treat this as an error.
        """
        done: dict[str, Cropped] = {}
        read: dict[str, Pixels] = {}
        for path, given in images:
            try:
                with given.open(None) as image:
                    if is_large(image):
                        done[path] = self._large(given, path, image)
                    else:
                        read[path] = image.pixels()
            except ImageError as error:
                done[path] = skipped(path, error.reason)
        try:
            choices = self._cropper.choose(list(read.values())) if read else []
        except ImageError as error:
            if len(images) > 1:  # find the faulty one
                return [one for image in images for one in self.work([image])]
            return [skipped(images[0][0], error.reason)]
        givens = dict(images)
        for (path, pixels), chosen in zip(read.items(), choices, strict=True):
            box = self._cropper.box(chosen, pixels.shape[:2])
            cropped = pixels if box is None else pixels[box.top : box.bottom, box.left : box.right]
            done[path] = self._done(givens[path], path, pixels.shape[:2], chosen, Image.fromarray(cropped))
        return [done[path] for path, _ in images]

    def _large(self, given: Given, path: str, image: DecodedImage) -> Cropped:
        chosen, size = self._cropper.choose_in(image), image.size
        pixels = image.pixels(self._cropper.box(chosen, size))
        image.close()
        cropped = Image.fromarray(pixels)
        del pixels  # encoding takes memory of its own
        return self._done(given, path, size, chosen, cropped)

    def _done(self, given: Given, path: str, size: tuple[int, int], chosen: Chosen, cropped: Image.Image) -> Cropped:
        """Encode the crop of an image of (height, width), or leave it out."""
        if chosen.vehicle is None and self._settings.missing != "whole":
            return self._without(given, path, chosen.reason)
        try:
            return Cropped(described(path, size, chosen), self._encoded(path, cropped))
        except ImageError as error:
            return skipped(path, error.reason)

    def _without(self, given: Given, path: str, reason: str) -> Cropped:
        """Leave out an image without a vehicle, or stop, as configured."""
        if self._settings.missing == "fail":
            problem, option = f"only {reason}", "--min-size"
            if reason == "no vehicle":
                problem = f"no {' or '.join(self._settings.classes)} above score {self._settings.score}"
                option = "--score"
            raise DataError(f"{given.path}: {problem}; lower {option}, or use --missing whole or skip")
        return skipped(path, reason)

    def _encoded(self, path: str, image: Image.Image) -> bytes:
        """Encode an image in the format of its suffix, without the metadata of its source."""
        kind = PurePath(path).suffix.lower()
        encoded = io.BytesIO()
        options = {"quality": self._settings.quality} if kind in _LOSSY else {}
        form = Image.registered_extensions()[kind]
        try:
            image.save(encoded, form, **options)
        except (OSError, ValueError) as error:  # not a disk error, since the target is memory
            raise ImageError(f"{image.width} x {image.height} cannot be written as {form} ({error})") from error
        return encoded.getvalue()


def skipped(path: str, reason: str) -> Cropped:
    """Return the row of an image that is left out, with the reason."""
    return Cropped(Crop(path, None, "", None, 0, f"skipped: {reason}"), None)
