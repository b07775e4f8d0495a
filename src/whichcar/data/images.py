"""From a picture file to an RGB array: the only place where pictures are opened."""

from __future__ import annotations

import contextlib
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from whichcar.errors import ImageError, TruncatedImageError
from whichcar.records import ImageHeader

LARGEST_PIXELS = 100_000_000
# Pillow warns from 89 million pixels on, and of damaged EXIF parts, without naming the file. The first is an error of
# our own here, the second does no harm. Switched off once: `catch_warnings` around a call does not work in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_COPY_AGAIN = "copy it again from its source or leave it out"


def read_image(path: Path, at_least: tuple[int, int] | None = None) -> np.ndarray:
    """Read a picture as it is meant to be seen.

    EXIF rotation is applied; grey, palette, CMYK and 16-bit pictures become 8-bit RGB; what is transparent becomes
    white; of an animation the first frame is taken. The suffix does not matter, the content does.

    Args:
        path: a file.
        at_least: (height, width) that will be needed. A large JPEG is then decoded at a half, a quarter or an eighth
            of its size, several times faster, while both sides stay at least that long.

    Returns:
        (height, width, 3) uint8, RGB, writable.

    Raises:
        TruncatedImageError: the end of the picture is missing.
        ImageError: the file is missing, unreadable, empty, no picture, or has 100 million pixels or more.
    """
    with _opened(path) as image:
        if at_least is not None:
            height, width = at_least if _orientation(image) < 5 else at_least[::-1]
            image.draft(None, (width, height))
        image.load()
        return np.array(_upright(_to_rgb(image), _orientation(image)))


def read_resized(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Read an image at the size a network takes: the one way from a file to a network's input.

    Training, validation, evaluation and prediction all read through this function, so that they see the same pixels.

    Args:
        path: a file.
        size: (height, width), both at least 1; the aspect ratio is not kept.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: as `read_image`.
    """
    return squeeze(read_image(Path(path), at_least=size), size)


def rgb_of(image: Image.Image, name: str | Path) -> np.ndarray:
    """Return an image that is open already as `read_image` returns a file.

    Raises:
        ImageError: it is damaged or closed, or has 100 million pixels or more; the message names it `name`.
    """
    with _blamed(name):
        _check_size(name, image)
        image.load()
        return np.array(_upright(_to_rgb(image), _orientation(image)))


def read_header(path: Path) -> ImageHeader:
    """Read what a picture file says of itself, without decoding it.

    Raises:
        ImageError: as `read_image`, as far as the file's beginning shows it.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        width, height = image.size if orientation < 5 else image.size[::-1]
        # A camera's JPEG with a preview behind it is an "MPO" of several frames to Pillow.
        form = "JPEG" if image.format == "MPO" else image.format or ""
        animated = form != "JPEG" and bool(getattr(image, "is_animated", False))
        return ImageHeader(form, image.mode, width, height, orientation, animated)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; whatever goes wrong with it while the block runs becomes an ImageError."""
    _check_file(path)
    with _blamed(path), Image.open(path) as image:
        _check_size(path, image)
        yield image


@contextlib.contextmanager
def _blamed(path: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong while the block runs into an ImageError that names `path`."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # broken files raise nearly anything from inside Pillow's readers
        kind = TruncatedImageError if "truncated" in str(error).lower() else ImageError
        raise kind(f"{_shown(path)}: {_reason(path, error)}") from error


def squeeze(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to (height, width), bilinear and anti-aliased, without keeping the aspect.

    Args:
        image: (height, width, 3) uint8; returned as it is when it has the size already.
        size: height and width, both at least 1.
    """
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    squeezed: np.ndarray = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return squeezed


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise ImageError(f"{_shown(path)}: no such file; check the name") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{_shown(path)}: cannot be reached ({error}); check name and permissions") from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
        raise ImageError(f"{_shown(path)}: not a file; name a picture")
    if status.st_size == 0:
        raise ImageError(f"{_shown(path)}: the file is empty; {_COPY_AGAIN}")


def _check_size(path: str | Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height >= LARGEST_PIXELS:
        millions = LARGEST_PIXELS // 1_000_000
        raise ImageError(f"{_shown(path)}: {width} x {height} has {millions} million pixels or more; make it smaller")


def _reason(path: str | Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "may not be read; change its permissions"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"{LARGEST_PIXELS // 1_000_000} million pixels or more; make it smaller"
    if isinstance(error, UnidentifiedImageError):
        with Path(path).open("rb") as file:
            return f"not a picture of a known format, it begins with {file.read(8)!r}; {_COPY_AGAIN}"
    if "truncated" in str(error).lower():
        return f"the picture is truncated; {_COPY_AGAIN}"
    return f"the picture is broken ({' '.join(str(error).split()) or type(error).__name__}); {_COPY_AGAIN}"


def _shown(path: str | Path) -> str:
    """Return the path on one line, also when its name holds line breaks or bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where it is missing or the EXIF part is broken."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the picture itself may be sound: Pillow raises anything from SyntaxError to struct.error here
        return 1
    return value if value in _UPRIGHT else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, seen).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(grey: np.ndarray, mode: str) -> np.ndarray:
    """Scale a grey picture of more than 8 bits: (height, width) numbers of `mode` to uint8.

    `I;16` runs to 65535. The range of `I` and `F` is not stored: the smallest usual one that holds the values is taken.
    """
    values = np.nan_to_num(grey.astype(np.float64), posinf=0, neginf=0)
    top = values.max(initial=0)
    usual = (65535.0,) if mode.startswith("I;16") else (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    full = next((limit for limit in usual if top <= limit), top)
    eight: np.ndarray = np.clip(np.rint(values / full * 255), 0, 255).astype(np.uint8)
    return eight
