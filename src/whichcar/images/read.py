"""From an image file to an RGB array: the only place where images are opened.

A large image is decoded alone; smaller ones share a memory budget (`_BUDGET`) across all threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from whichcar.files import IMAGE_FORMATS
from whichcar.images import webp
from whichcar.images.pixels import DecodedImage, Pixels, format_of, orientation_of
from whichcar.images.problems import COPY_AGAIN, LARGEST_PIXELS, image_error, reported, too_large
from whichcar.text import one_line, reason_of

# Pillow warns about images of 89 million pixels or more and about damaged EXIF data, without naming the file. We raise
# our own error for large images, and damaged EXIF data is harmless. Both warnings are disabled once, globally:
# `catch_warnings` around a call does not work in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # Pillow also raises what it logs about a file
# A large image in a single block returns to the system when it is freed. In Pillow's default blocks of 16 MB, it stays
# with the thread that held it, so that sixteen threads retain sixteen images.
Image.core.set_block_size(64 << 20)  # type: ignore[attr-defined]  # of the guide's part on the block allocator


_EMPTY = f"the file is empty; {COPY_AGAIN}"
# Maximum number of scans in a JPEG. Encoders write about ten; those of previews and further frames count too.
_MOST_SCANS = 200
# The marker that begins a scan, and its length: 6, plus 2 for each of 0 to 4 components (decoders refuse any other).
# The marker alone occurs by chance every 64 kB in data after the image, such as the video of a motion photo.
_SCAN = re.compile(rb"\xff\xda\x00[\x06\x08\x0a\x0c\x0e]")


class _Budget:
    """Limit the bytes of decoded images in memory at once. A larger image takes the whole budget, so it is alone."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._changed, self._turn = threading.Condition(), threading.Lock()

    @contextlib.contextmanager
    def hold(self, wanted: int) -> Iterator[None]:
        wanted = min(wanted, self._most)
        with self._turn, self._changed:  # small images cannot keep overtaking a large one that waits
            self._changed.wait_for(lambda: self._used + wanted <= self._most)
            self._used += wanted
        try:
            yield
        finally:
            with self._changed:
                self._used -= wanted
                self._changed.notify()


_LARGE = 64_000_000  # bytes; after a larger decoded image, freed memory is returned to the system
_BUDGET = _Budget(200_000_000)  # two decoded images of 25 megapixels


def read_image(path: str | Path, at_least: tuple[int, int] | None = None) -> Pixels:
    """Read an image as it is meant to be displayed.

    EXIF orientation is applied, and colours are converted to sRGB by the image's ICC profile. Grey, palette, CMYK and
    16-bit images become 8-bit RGB, transparent areas become white, and only the first frame of an animation is read.
    The format is detected from the content, not from the suffix.

    Args:
        path: a file.
        at_least: the minimum (height, width). A larger image is reduced to 1/2, 1/4, 1/8 and so on while both sides
            stay at least this long (a JPEG is decoded at the reduced size, several times faster). A very wide or very
            tall image is reduced further, to at most 16 times the square of the longer of the two.

    Returns:
        (height, width, 3) uint8, RGB, writable.

    Raises:
        TruncatedImageError: the end of the image is missing.
        UnsupportedFormatError: the image's format is not one of `files.IMAGE_FORMATS`.
        ImageError: the file is missing, unreadable, empty or not an image, or has 100 million pixels or more.
    """
    with decoded(path, at_least) as image:
        return image.pixels() if at_least is None else image.reduced(at_least)[0]


def read_resized(path: str | Path, size: tuple[int, int]) -> Pixels:
    """Read an image at a network's input size.

    Training, validation, evaluation and prediction all use `DecodedImage.resized`, so they see the same pixels.

    Args:
        path: a file.
        size: (height, width), both at least 1; bilinear with anti-aliasing, ignoring the aspect ratio.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: as `read_image`.
    """
    with decoded(path, enough_for(size)) as image:
        return image.resized(size)


def enough_for(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) at which to decode an image that is then resized to `size`.

    Resizing from at least twice the size gives the same result as resizing the full image, so a JPEG file, its pixels
    as an array and a PNG of them look the same to a network. On photos at 224 x 224, a JPEG decoded at exactly that
    size differs by up to 3 of 255 levels in the mean; at twice the size, by less than 0.01.
    """
    return 2 * size[0], 2 * size[1]


def read_format(path: str | Path) -> str:
    """Return Pillow's name for an image file's format, such as `JPEG`, without decoding the image.

    Raises:
        ImageError: as `read_image`, if the problem shows without decoding.
    """
    with _opened(Path(path), path) as image:
        return format_of(image)


def read_size(path: str | Path) -> tuple[int, int]:
    """Return an image's (width, height) in pixels as stored, before EXIF rotation, without decoding it.

    Raises:
        ImageError: as `read_format`.
    """
    with _opened(Path(path), path) as image:
        return image.size


@contextlib.contextmanager
def decoded(
    source: str | Path | bytes,
    at_least: tuple[int, int] | None = None,
    name: str | Path | None = None,
    most_pixels: int = LARGEST_PIXELS,
) -> Iterator[DecodedImage]:
    """Decode an image file once and yield the result for the duration of the block.

    A large image may keep other threads waiting until the block ends; `DecodedImage.close` frees its memory earlier.

    Args:
        source: a file's path, or its content.
        at_least: the minimum (height, width); a JPEG or WebP may be decoded at 1/2, 1/4 or 1/8 of its size.
        name: the image's name in error messages (default: the path).
        most_pixels: an image of this many pixels or more is refused before it is decoded.

    Raises:
        ImageError: as `read_image`.
    """
    source = source if isinstance(source, bytes) else Path(source)
    name = name or ("image" if isinstance(source, bytes) else source)
    with _opened(source, name, most_pixels) as image:
        stored = image.size
        size = stored
        with reported(name, source):
            # Only these formats reveal EXIF before decoding. Pillow decodes a PNG to find it, which hides errors.
            if at_least is not None and format_of(image) in ("JPEG", "WEBP"):
                height, width = at_least if orientation_of(image) < 5 else at_least[::-1]
                image.draft(None, (width, height))
                size = _eighths(stored, (width, height)) if image.format == "WEBP" else image.size
        with _in_memory(image, name, stored, size, source) as found:
            yield found


@contextlib.contextmanager
def decoded_from(image: Image.Image, name: str | Path) -> Iterator[DecodedImage]:
    """Decode an image that Pillow has opened, as `decoded` does for a file.

    Raises:
        ImageError: the image is damaged or closed, or has 100 million pixels or more; the message calls it `name`.
    """
    with reported(name):
        _check_size(name, image)
    with _in_memory(image, name, image.size, image.size) as found:
        yield found


@contextlib.contextmanager
def _opened(source: Path | bytes, name: str | Path, most_pixels: int = LARGEST_PIXELS) -> Iterator[Image.Image]:
    """Open an image in one of the formats of `IMAGE_FORMATS` without decoding it."""
    if isinstance(source, Path):
        _check_file(source, name)
    elif not source:
        raise image_error(name, _EMPTY)
    with contextlib.ExitStack() as stack:
        with reported(name, source):
            # Given a path, Pillow memory-maps uncompressed files, and misreads a TIFF that is stored rotated.
            opened: BinaryIO = source.open("rb") if isinstance(source, Path) else io.BytesIO(source)
            file = stack.enter_context(opened)
            image = stack.enter_context(Image.open(file, formats=tuple(IMAGE_FORMATS)))
            _check_size(name, image, most_pixels)
            if format_of(image) == "JPEG":
                _check_scans(name, file)
        yield image


@contextlib.contextmanager
def _in_memory(
    image: Image.Image,
    name: str | Path,
    stored: tuple[int, int],
    size: tuple[int, int],
    source: Path | bytes | None = None,
) -> Iterator[DecodedImage]:
    """Decode an image once the budget allows it; `stored` and `size` are (width, height) in the file and decoded."""
    wanted = _bytes(image, stored, size)
    with _BUDGET.hold(wanted):
        with reported(name):
            # Loading a PNG reveals its EXIF; loading a TIFF rotates it upright and drops the orientation.
            before = 1 if image.format == "PNG" else orientation_of(image)
            mode = image.mode
            found = DecodedImage(_loaded(image, size, source), name, stored, before, mode)
        yield found
        if source and wanted > _LARGE:
            found.close()
            _trim()(0)  # else each thread retains the memory of its large image


@functools.cache
def _trim() -> Callable[[int], object]:
    """Return glibc's function that returns memory freed by threads to the system."""
    return getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)


def _loaded(image: Image.Image, size: tuple[int, int], source: Path | bytes | None) -> Image.Image:
    """Return the decoded image; a still WebP is decoded from the file `source` at `size`."""
    if source and image.format == "WEBP" and not getattr(image, "is_animated", False):
        content = source if isinstance(source, bytes) else source.read_bytes()
        still = webp.decode(content, size, size != image.size, image.mode)
        if still is not None:
            still.info, still.format = image.info, image.format
            return still
    image.load()
    return image


def _eighths(stored: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """Return 1, 1/2, 1/4 or 1/8 of `stored`, as a JPEG is decoded, with both sides at least as long as `wanted`."""
    whole = min(stored[0] // wanted[0], stored[1] // wanted[1])
    factor = 8 if whole >= 8 else 4 if whole >= 4 else 2 if whole >= 2 else 1
    return -(-stored[0] // factor), -(-stored[1] // factor)


def _check_file(path: Path, name: str | Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            target = one_line(path.readlink())
            raise image_error(name, f"a link to {target}, which is not there; restore that") from error
        raise image_error(name, "no such file; check the name") from error
    except (OSError, ValueError) as error:
        raise image_error(name, f"cannot be reached ({reason_of(error)}); check name and permissions") from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would block forever
        raise image_error(name, "not a file; name an image")
    if status.st_size == 0:
        raise image_error(name, _EMPTY)


def _check_size(name: str | Path, image: Image.Image, most_pixels: int = LARGEST_PIXELS) -> None:
    width, height = image.size
    if width * height >= most_pixels:
        raise image_error(name, f"{width} x {height} has {too_large(most_pixels)}")


def _check_scans(name: str | Path, file: BinaryIO) -> None:
    """Refuse a JPEG with more scans than any encoder writes: each covers all pixels, so a large number can stall it."""
    place, scans = file.tell(), 0
    file.seek(0)
    while part := file.read(1 << 20):
        scans += len(_SCAN.findall(part))
    file.seek(place)
    if scans > _MOST_SCANS:
        raise image_error(name, f"a JPEG of {scans:,} scans, more than {_MOST_SCANS}; save it again in an image editor")


def _bytes(image: Image.Image, stored: tuple[int, int], size: tuple[int, int]) -> int:
    """Return the maximum number of bytes for decoding an image of (width, height) `stored` at `size`."""
    whole, few = stored[0] * stored[1], size[0] * size[1]
    if image.format == "WEBP":  # an animation is decoded into two canvases and copied twice
        return 16 * whole if getattr(image, "is_animated", False) else 4 * whole + 4 * few
    if image.format == "TIFF" and orientation_of(image) != 1:  # Pillow makes an upright copy
        return 8 * whole
    if image.info.get("progressive"):  # all coefficients are kept, at full size
        return 4 * few + 6 * whole
    return 4 * few
