"""Explain why an image cannot be read: name unsupported formats and other files often saved as images."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from whichcar.errors import ImageError, TruncatedImageError, UnsupportedFormatError
from whichcar.text import one_line

LARGEST_PIXELS = 100_000_000
COPY_AGAIN = "copy it again from its source or leave it out"

# Formats whose files begin with an `ftyp` box (as videos do), by the brand in it.
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "Canon raw",
}
_FORMATS = (
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\x01\0", "ICO"),
    (b"DDS ", "DDS"),
    (b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    *((b"P%d%c" % (number, blank), "Netpbm") for number in range(1, 8) for blank in b"\n "),
)
_SUPPORTED = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "BMP": re.compile(rb"BM....\0\0\0\0", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
}
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with: git lfs pull"),
    (b"pk\x03\x04", "a zip archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"<!doctype html", "a web page; download the image itself"),
    (b"<html", "a web page; download the image itself"),
)


@contextlib.contextmanager
def reported(name: str | Path, source: Path | bytes | None = None) -> Iterator[None]:
    """Make an ImageError of whatever goes wrong with an image while the block runs; `source` is its file."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # broken files raise nearly anything from inside Pillow's readers
        if source and isinstance(error, UnidentifiedImageError):
            raise _unidentified(source, name) from error
        raise _error(name, error) from error


def image_error(name: str | Path, reason: str, kind: type[ImageError] = ImageError) -> ImageError:
    """Return the error for an image: what is wrong with it, and what to do."""
    return kind(f"{one_line(name)}: {reason}", reason)


def too_large(most_pixels: int = LARGEST_PIXELS) -> str:
    """Return the reason for refusing an image of this many pixels or more."""
    return f"{most_pixels // 1_000_000} million pixels or more; make it smaller"


def is_passing(error: ImageError) -> bool:
    """Return True if the system lacked memory, a file handle or the like, which says nothing about the content."""
    cause = error.__cause__
    if isinstance(cause, OSError):  # EINVAL and EOVERFLOW come from wrong offsets in a file
        return cause.errno not in (None, errno.EINVAL, errno.EOVERFLOW)
    return isinstance(cause, MemoryError)


def _error(name: str | Path, error: Exception) -> ImageError:
    if isinstance(error, PermissionError):
        return image_error(name, "may not be read; change its permissions")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return image_error(name, too_large())
    if "truncated" in str(error).lower():
        return image_error(name, f"the image is truncated; {COPY_AGAIN}", TruncatedImageError)
    return image_error(name, f"the image is damaged ({one_line(error) or type(error).__name__}); {COPY_AGAIN}")


def _unidentified(source: Path | bytes, name: str | Path) -> ImageError:
    if isinstance(source, bytes):
        beginning = source[:1024]
    else:
        with source.open("rb") as file:
            beginning = file.read(1024)
    if form := _format_of(beginning):
        return image_error(name, f"{form} is not supported; convert it to JPEG", UnsupportedFormatError)
    if form := next((form for form, start in _SUPPORTED.items() if start.match(beginning)), ""):
        return image_error(name, f"a damaged {form}, whose header cannot be read; {COPY_AGAIN}")
    return image_error(name, f"not an image of a known format, {_described(beginning)}")


def _format_of(beginning: bytes) -> str:
    """Return the name of an unsupported image format, recognized by its first bytes, or "" for anything else."""
    if beginning[4:8] == b"ftyp":
        return _BRANDS.get(beginning[8:12], "video")
    text = _text_of(beginning)
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return "SVG"
    return next((name for start, name in _FORMATS if beginning.startswith(start)), "")


def _described(beginning: bytes) -> str:
    """Return what a file of no known image format is and what to do with it, or else its first bytes."""
    text = _text_of(beginning)
    known = next((what for start, what in _OTHERS if text.startswith(start)), "")
    return known or f"it begins with {_start(beginning[:8])}; {COPY_AGAIN}"


def _start(beginning: bytes) -> str:
    if beginning.isascii() and (text := beginning.decode("ascii")).isprintable():
        return f'"{text}"'
    return f"the bytes {beginning.hex(' ')}"


def _text_of(beginning: bytes) -> bytes:
    """Return the beginning of a text in lower case, without byte order mark and leading whitespace."""
    return beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
