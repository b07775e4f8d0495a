"""A decoded image and its pixels as they are meant to be displayed: upright, sRGB, 8 bits per channel, on white.

A decoded pixel takes four bytes, so nothing else is created at an image's full size: reducing, and anything that must
be done to every pixel before it, works in strips, and colours are converted after reducing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from whichcar.images.colour import lab_to_srgb, to_srgb
from whichcar.images.problems import reported
from whichcar.records import Box, ImageHeader

Pixels = npt.NDArray[np.uint8]

_ORIENTATION = 0x0112
_PLAIN = ("L", "RGB", "CMYK")  # modes that can be reduced without conversion
_STRIP = 1 << 18  # pixels per strip
# An image is first averaged over whole pixels down to three times the target size, then resampled, which is several
# times faster than resampling directly. The mean difference is below 1 of 255 levels on photos, up to 1.5 on noise.
_RESERVE = 3
_AREA = 16  # maximum pixels of a reduced image, as a multiple of the square of the longer requested side


class DecodedImage:
    """A decoded image, kept as stored in its file, that returns pixels as they are meant to be displayed.

    Boxes are in pixels of the upright image.
    """

    def __init__(
        self, image: Image.Image, name: str | Path, stored: tuple[int, int], orientation: int, mode: str
    ) -> None:
        self._name, self._image, self._mode = name, image, mode
        self._profile = image.info.get("icc_profile")
        self._top = _largest(image) if image.mode in ("F", "I") else 0.0
        self._plain = image.mode in _PLAIN and not image.has_transparency_data
        self._plain &= (
            image.mode != "CMYK" or self._profile is not None
        )  # without a profile, averaging inks does not average colours
        self._orientation = orientation_of(image)
        self._width, self._height = stored if self._orientation < 5 else stored[::-1]
        self._file_orientation = max(orientation, self._orientation)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the upright image as it was decoded."""
        width, height = self._image.size
        return (height, width) if self._orientation < 5 else (width, height)

    @property
    def header(self) -> ImageHeader:
        """The file's header; read it after the pixels, since it looks for further frames."""
        form = format_of(self._image)
        animated = form != "JPEG" and _is_animated(self._image)
        return ImageHeader(form, self._mode, self._width, self._height, self._file_orientation, animated)

    def pixels(self, box: Box | None = None, factor: int = 1) -> Pixels:
        """Return the pixels in `box` (default: all) as a new array, each the mean of `factor` x `factor` pixels."""
        with reported(self._name):
            left, top, right, bottom = self._stored_box(box)
            height, width = -((top - bottom) // factor), -((left - right) // factor)
            upright = (height, width) if self._orientation < 5 else (width, height)
            out = np.empty((*upright, 3), np.uint8)
            stored = _as_stored(out, self._orientation)
            for start, strip in self._strips((left, top, right, bottom), factor):
                few = strip.reduce(factor) if factor > 1 else strip
                stored[start // factor : start // factor + few.height] = np.asarray(to_srgb(few, self._profile))
            return out

    def reduced(self, at_least: tuple[int, int]) -> tuple[Pixels, int]:
        """Return the image at 1, 1/2, 1/4 ... of its size, as `read_image` does, and the reduction factor."""
        (height, width), factor = self.size, 1
        while min(height // at_least[0], width // at_least[1]) >= 2 * factor or (
            height * width > _AREA * (max(at_least) * factor) ** 2
        ):
            factor *= 2
        return self.pixels(factor=factor), factor

    def resized(self, size: tuple[int, int], box: Box | None = None) -> Pixels:
        """Return the pixels in `box` (default: all) resized to (height, width), bilinear with anti-aliasing."""
        with reported(self._name):
            stored_size = size if self._orientation < 5 else size[::-1]
            left, top, right, bottom = self._stored_box(box)
            across, down = _factors((right - left, bottom - top), stored_size)
            small = self._reduced((left, top, right, bottom), across, down)
            inside = (0.0, 0.0, (right - left) / across, (bottom - top) / down)
            if small.size != stored_size[::-1] or inside != (0, 0, *small.size):  # resize would make a copy
                small = small.resize(stored_size[::-1], Image.Resampling.BILINEAR, inside)
            out = np.empty((*size, 3), np.uint8)
            _as_stored(out, self._orientation)[:] = np.asarray(to_srgb(small, self._profile))
            return out

    def close(self) -> None:
        """Free the memory; the image cannot be used afterwards."""
        self._image.close()

    def _reduced(self, box: tuple[int, int, int, int], across: int, down: int) -> Image.Image:
        """Return the stored pixels in `box` in a mode of `_PLAIN`, each the mean of `across` x `down` pixels."""
        if self._plain and across == down == 1:
            return self._image if box == (0, 0, *self._image.size) else self._image.crop(box)
        if self._plain:
            return self._image.reduce((across, down), box)
        strips = [(start // down, strip.reduce((across, down))) for start, strip in self._strips(box, down)]
        whole = Image.new(strips[0][1].mode, (strips[0][1].width, -((box[1] - box[3]) // down)))
        for row, strip in strips:
            whole.paste(strip, (0, row))
        return whole

    def _strips(self, box: tuple[int, int, int, int], multiple: int) -> Iterator[tuple[int, Image.Image]]:
        """Yield the first row and the pixels of each stored strip in `box`, top to bottom, in a mode of `_PLAIN`."""
        left, top, right, bottom = box
        rows = max(1, _STRIP // (right - left) // multiple) * multiple
        for start in range(top, bottom, rows):
            part = (left, start, right, min(bottom, start + rows))
            strip = self._image if part == (0, 0, *self._image.size) else self._image.crop(part)
            yield start - top, strip if self._plain else _to_plain(strip, self._top)

    def _stored_box(self, box: Box | None) -> tuple[int, int, int, int]:
        """Return (left, top, right, bottom) in the stored image."""
        width, height = self._image.size
        if box is None:
            return 0, 0, width, height
        rows, columns = (box.top, box.bottom), (box.left, box.right)
        if self._orientation >= 5:
            rows, columns = columns, rows
        if self._orientation in (3, 4, 6, 7):
            rows = (height - rows[1], height - rows[0])
        if self._orientation in (2, 3, 7, 8):
            columns = (width - columns[1], width - columns[0])
        return columns[0], rows[0], columns[1], rows[1]


def format_of(image: Image.Image) -> str:
    """Return Pillow's name for an image's format."""
    # To Pillow, a camera's JPEG with an appended preview is an "MPO" of several frames.
    return "JPEG" if image.format == "MPO" else image.format or ""


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, or 1 (upright) if it is missing or the EXIF data is broken."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the image itself may be sound: Pillow raises anything from SyntaxError to struct.error here
        return 1
    return value if value in range(1, 9) else 1


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # there is a second frame, but it is damaged; only the first one is used
        return True


def _as_stored(upright: Pixels, orientation: int) -> Pixels:
    """Return a view of an upright array in the pixel order of a file with this orientation."""
    view = upright.transpose(1, 0, 2) if orientation >= 5 else upright
    if orientation in (3, 4, 6, 7):
        view = view[::-1]
    return view[:, ::-1] if orientation in (2, 3, 7, 8) else view


def _factors(pixels: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return how many pixels to average in x and in y before resizing from (width, height) to (height, width)."""
    return max(1, pixels[0] // (_RESERVE * size[1])), max(1, pixels[1] // (_RESERVE * size[0]))


def _to_plain(strip: Image.Image, top: float) -> Image.Image:
    """Return a strip in a mode of `_PLAIN`; transparent areas become white."""
    if strip.mode == "F" or strip.mode.startswith("I"):
        return Image.fromarray(_to_eight_bits(np.asarray(strip), strip.mode, top))
    if strip.has_transparency_data:
        seen = strip.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        flat = Image.alpha_composite(white, seen)
        return flat.convert("L" if strip.mode in ("L", "LA", "La") else "RGB")
    if strip.mode == "LAB":
        return lab_to_srgb(strip)
    return strip.convert("L" if strip.mode == "1" else "RGB")


def _largest(image: Image.Image) -> float:
    """Return the largest finite value of a grey image with more than 8 bits, or 0 if none is positive."""
    rows = max(1, _STRIP // image.width)
    parts = (image.crop((0, top, image.width, min(image.height, top + rows))) for top in range(0, image.height, rows))
    return max(float(_finite(np.asarray(part)).max(initial=0)) for part in parts)


def _finite(grey: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    return np.nan_to_num(grey.astype(np.float64), posinf=0, neginf=0)


def _to_eight_bits(grey: npt.NDArray[np.generic], mode: str, top: float) -> Pixels:
    """Scale a grey image of more than 8 bits, with values in the range of `mode` and at most `top`, to uint8.

    `I;16` runs to 65535. The range of `I` and `F` is not stored, so the smallest usual one that holds `top` is used.
    """
    usual = (65535.0,) if mode.startswith("I;16") else (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    full = next((limit for limit in usual if top <= limit), top)
    eight: Pixels = np.clip(np.rint(_finite(grey) / full * 255), 0, 255).astype(np.uint8)
    return eight
