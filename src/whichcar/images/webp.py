"""Decode still WebP images with libwebp into a single buffer, reducing them while decoding.

Pillow decodes every WebP as an animation, into two canvases and two copies: 16 bytes per pixel instead of 4. The
library is the one bundled with Pillow.
"""

from __future__ import annotations

import ctypes
import functools

import numpy as np
from PIL import Image

_VERSION = 0x0209  # libwebp's ABI version; only the high byte must match
_RGBA = 1
_ANIMATION = 4  # UNSUPPORTED_FEATURE
_NOT_ENOUGH = (5, 7)  # SUSPENDED, NOT_ENOUGH_DATA


# webp/decode.h: WebPDecBuffer with its RGBA half, WebPDecoderOptions, WebPDecoderConfig.
class _Buffer(ctypes.Structure):
    _fields_ = (
        ("colours", ctypes.c_int),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("is_ours", ctypes.c_int),
        ("pixels", ctypes.c_void_p),
        ("stride", ctypes.c_int),
        ("size", ctypes.c_size_t),
        ("further", ctypes.c_uint8 * 80),
    )


class _Options(ctypes.Structure):
    _fields_ = (
        ("filtering_and_crop", ctypes.c_int * 7),
        ("use_scaling", ctypes.c_int),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("further", ctypes.c_int * 9),
    )


class _Config(ctypes.Structure):
    _fields_ = (
        ("input", ctypes.c_uint32 * 10),
        ("output", _Buffer),
        ("options", _Options),
        ("room", ctypes.c_uint8 * 256),  # for fields added in later versions
    )


def decode(content: bytes, size: tuple[int, int], reduced: bool, mode: str) -> Image.Image | None:
    """Decode a WebP file.

    Args:
        content: the file.
        size: (width, height) of the result.
        reduced: whether `size` is smaller than the image.
        mode: the image's mode, RGB or RGBA.

    Returns:
        An image of mode RGBX or RGBA; None if the library cannot be called directly, or the file is an animation,
        though it may have one frame.

    Raises:
        OSError: the image is damaged.
    """
    library, config = _library(), _Config()
    if library is None or not library.WebPInitDecoderConfigInternal(ctypes.byref(config), _VERSION):
        return None
    pixels = np.empty((size[1], size[0], 4), np.uint8)
    if reduced:  # not at full size, where scaling would cost quality
        config.options.use_scaling, config.options.width, config.options.height = 1, *size
    output = config.output
    output.colours, output.is_ours, output.stride, output.size = _RGBA, 1, pixels.strides[0], pixels.nbytes
    output.pixels = pixels.ctypes.data
    status = library.WebPDecode(content, ctypes.c_size_t(len(content)), ctypes.byref(config))
    if status == _ANIMATION:
        return None
    if status:
        raise OSError("image file is truncated" if status in _NOT_ENOUGH else f"WebP decoder error {status}")
    kind = "RGBX" if mode == "RGB" else mode
    return Image.frombuffer(kind, size, pixels, "raw", kind, 0, 1)


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        from PIL import _webp

        library = ctypes.CDLL(_webp.__file__)
        _ = library.WebPDecode, library.WebPInitDecoderConfigInternal
    except (ImportError, OSError, AttributeError):  # built without WebP, or with hidden symbols
        return None
    return library
