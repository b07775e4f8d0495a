"""From an image file to an RGB array: the only place where images are opened.

A large image is decoded alone, and all threads together hold no more than `_BUDGET` of smaller ones.
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

# Pillow warns from 89 million pixels on, and of damaged EXIF parts, without naming the file. The first is an error of
# our own here, the second does no harm. Switched off once: `catch_warnings` around a call does not work in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it logs of a file, it raises too
# A large image in one piece goes back to the system when it is freed. In Pillow's own pieces of 16 MB it stays with
# the thread that held it, and sixteen threads keep sixteen of them.
Image.core.set_block_size(64 << 20)  # type: ignore[attr-defined]  # of the guide's part on the block allocator


_EMPTY = f"the file is empty; {COPY_AGAIN}"
# Of a JPEG; encoders write about ten, and those of previews and further frames count too.
_MOST_SCANS = 200
# Where one begins, and its length, 6 + 2 for each of 0 to 4 components, without which a decoder refuses it: the first
# two bytes alone occur by chance in every 64 kB of what may follow the image, such as the clip of a motion photo.
_SCAN = re.compile(rb"\xff\xda\x00[\x06\x08\x0a\x0c\x0e]")


class _Budget:
    """Bytes of decoded images that may be in memory at once. A larger image takes all of them: it is alone."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._changed, self._turn = threading.Condition(), threading.Lock()

    @contextlib.contextmanager
    def hold(self, wanted: int) -> Iterator[None]:
        wanted = min(wanted, self._most)
        with self._turn, self._changed:  # a large image that waits is not overtaken by small ones for ever
            self._changed.wait_for(lambda: self._used + wanted <= self._most)
            self._used += wanted
        try:
            yield
        finally:
            with self._changed:
                self._used -= wanted
                self._changed.notify()


_LARGE = 64_000_000  # bytes of a decoded image after which freed memory is given back to the system
_BUDGET = _Budget(200_000_000)  # two decoded images of 25 megapixels


def read_image(path: str | Path, at_least: tuple[int, int] | None = None) -> Pixels:
    """Read an image as it is meant to be seen.

    EXIF orientation is applied; colours become sRGB as the image's ICC profile says; grey, palette, CMYK and 16-bit
    images become 8-bit RGB; what is transparent becomes white; of an animation the first frame is taken. The suffix
    does not matter, the content does.

    Args:
        path: a file.
        at_least: (height, width) that will be needed. A larger image is then reduced to a half, a quarter, an eighth
            and so on, while both sides stay at least that long (a JPEG is decoded at that size, several times faster).
            Of an image that is very long or very high, no more than 16 times as many pixels are kept.

    Returns:
        (height, width, 3) uint8, RGB, writable.

    Raises:
        TruncatedImageError: the end of the image is missing.
        UnsupportedFormatError: it is an image of another format than those of `files.IMAGE_FORMATS`.
        ImageError: the file is missing, unreadable, empty, no image, or has 100 million pixels or more.
    """
    with decoded(path, at_least) as image:
        return image.pixels() if at_least is None else image.reduced(at_least)[0]


def read_resized(path: str | Path, size: tuple[int, int]) -> Pixels:
    """Read an image at the size a network takes: the one way from a file to a network's input.

    Training, validation, evaluation and prediction all read through this function, so that they see the same pixels.

    Args:
        path: a file.
        size: (height, width), both at least 1; bilinear with anti-aliasing, the aspect ratio is not kept.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: as `read_image`.
    """
    with decoded(path, enough_for(size)) as image:
        return image.resized(size)


def enough_for(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) at which to decode an image that is then resized to `size`.

    Resizing from twice the size or more gives what resizing the whole image gives, so that a JPEG file, its pixels in
    an array and a PNG of them are the same to a network. On photos at 224 x 224 a JPEG decoded at the size itself is
    up to 3 levels of 255 off in the mean; at twice the size, less than 0.01.
    """
    return 2 * size[0], 2 * size[1]


def read_format(path: str | Path) -> str:
    """Return Pillow's name of an image file's format (`JPEG`) without decoding the image.

    Raises:
        ImageError: as `read_image`, as far as the file's beginning shows it.
    """
    with _opened(Path(path), path) as image:
        return format_of(image)


def read_size(path: str | Path) -> tuple[int, int]:
    """Return (width, height) of an image in pixels, as it is stored, without decoding it.

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
    """Decode an image file once and give what is wanted of it while the block runs.

    Other threads may wait meanwhile for the memory of a large image; `DecodedImage.close` frees it earlier.

    Args:
        source: a file's path, or its content.
        at_least: (height, width) that will be needed; a JPEG may then be decoded at a half, a quarter or an eighth.
        name: what errors call it (default: the path).
        most_pixels: an image of that many is refused before it is decoded.

    Raises:
        ImageError: as `read_image`.
    """
    source = source if isinstance(source, bytes) else Path(source)
    name = name or ("image" if isinstance(source, bytes) else source)
    with _opened(source, name, most_pixels) as image:
        stored = image.size
        size = stored
        with reported(name, source):
            # Only of these is EXIF known before decoding. Pillow decodes a PNG to look for it, and an error is lost.
            if at_least is not None and format_of(image) in ("JPEG", "WEBP"):
                height, width = at_least if orientation_of(image) < 5 else at_least[::-1]
                image.draft(None, (width, height))
                size = _eighths(stored, (width, height)) if image.format == "WEBP" else image.size
        with _in_memory(image, name, stored, size, source) as found:
            yield found


@contextlib.contextmanager
def decoded_from(image: Image.Image, name: str | Path) -> Iterator[DecodedImage]:
    """Take an image that Pillow has opened as `decoded` takes a file.

    Raises:
        ImageError: it is damaged or closed, or has 100 million pixels or more; the message names it `name`.
    """
    with reported(name):
        _check_size(name, image)
    with _in_memory(image, name, image.size, image.size) as found:
        yield found


@contextlib.contextmanager
def _opened(source: Path | bytes, name: str | Path, most_pixels: int = LARGEST_PIXELS) -> Iterator[Image.Image]:
    """Open an image of a format that is named in `IMAGE_FORMATS`, not decoded."""
    if isinstance(source, Path):
        _check_file(source, name)
    elif not source:
        raise image_error(name, _EMPTY)
    with contextlib.ExitStack() as stack:
        with reported(name, source):
            # Given a name, Pillow maps uncompressed files into memory, and misreads a TIFF that is stored turned.
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
    """Decode an image as soon as there is room for it, of (width, height) `stored` in the file `source` at `size`."""
    wanted = _bytes(image, stored, size)
    with _BUDGET.hold(wanted):
        with reported(name):
            # Loading a PNG finds its EXIF; loading a TIFF turns it upright and forgets that it was not.
            before = 1 if image.format == "PNG" else orientation_of(image)
            mode = image.mode
            found = DecodedImage(_loaded(image, size, source), name, stored, before, mode)
        yield found
        if source and wanted > _LARGE:
            found.close()
            _trim()(0)  # else each thread keeps the memory of its large image


@functools.cache
def _trim() -> Callable[[int], object]:
    """Return the function of glibc that gives the system the memory back that threads have freed."""
    return getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)


def _loaded(image: Image.Image, size: tuple[int, int], source: Path | bytes | None) -> Image.Image:
    """Return the decoded image, a WebP in the file `source` at `size`."""
    if source and image.format == "WEBP" and not getattr(image, "is_animated", False):
        content = source if isinstance(source, bytes) else source.read_bytes()
        still = webp.decode(content, size, size != image.size, image.mode)
        if still is not None:
            still.info, still.format = image.info, image.format
            return still
    image.load()
    return image


def _eighths(stored: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """Return a half, a quarter or an eighth of `stored`, as a JPEG is decoded, both sides at least as `wanted`."""
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
    if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
        raise image_error(name, "not a file; name an image")
    if status.st_size == 0:
        raise image_error(name, _EMPTY)


def _check_size(name: str | Path, image: Image.Image, most_pixels: int = LARGEST_PIXELS) -> None:
    width, height = image.size
    if width * height >= most_pixels:
        raise image_error(name, f"{width} x {height} has {too_large(most_pixels)}")


def _check_scans(name: str | Path, file: BinaryIO) -> None:
    """Refuse a JPEG with more scans than any encoder writes, made to block its reader: each covers all pixels again."""
    place, scans = file.tell(), 0
    file.seek(0)
    while part := file.read(1 << 20):
        scans += len(_SCAN.findall(part))
    file.seek(place)
    if scans > _MOST_SCANS:
        raise image_error(name, f"a JPEG of {scans:,} scans, more than {_MOST_SCANS}; save it again in an image editor")


def _bytes(image: Image.Image, stored: tuple[int, int], size: tuple[int, int]) -> int:
    """Return how many bytes decoding an image of (width, height) `stored` at `size` takes, at most."""
    whole, few = stored[0] * stored[1], size[0] * size[1]
    if image.format == "WEBP":  # an animation is decoded into two canvases, copied, copied again
        return 16 * whole if getattr(image, "is_animated", False) else 4 * whole + 4 * few
    if image.format == "TIFF" and orientation_of(image) != 1:  # Pillow makes an upright copy
        return 8 * whole
    if image.info.get("progressive"):  # all coefficients are kept, at full size
        return 4 * few + 6 * whole
    return 4 * few
