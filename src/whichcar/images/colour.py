"""Convert colours to sRGB by an image's ICC profile, after the image has been reduced."""

from __future__ import annotations

import functools
import io
import itertools
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:  # few images need it
    from PIL import ImageCms

# Pillow modes that ICC profiles can describe, by the colour space that a profile names.
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_STEPS = 9  # levels per channel at which a profile is compared with sRGB
_EQUAL = 3  # of 255: a profile that changes no colour by more than this counts as sRGB


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image of mode L, RGB or CMYK as RGB.

    Args:
        image: 8 bits per channel, without transparency.
        profile: the ICC profile in its file. A broken profile, or one for another kind of image, is ignored.
    """
    if profile and (transform := _transform(profile, image.mode)):
        return transform.apply(image)
    # An RGB profile also applies to a grey image, whose three channels are then equal.
    if profile and image.mode == "L" and (transform := _transform(profile, "RGB")):
        return transform.apply(image.convert("RGB"))
    return image if image.mode == "RGB" else image.convert("RGB")


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from this profile and mode to sRGB; None if it is not needed or not possible."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _MODES.get(source.profile.xcolor_space) != mode:
            return None
        transform = _build(source, mode)
        return None if mode in ("RGB", "L") and _changes_nothing(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """Return an image of mode LAB as RGB; Pillow can convert it only through profiles."""
    return _lab().apply(image)


@functools.cache
def _lab() -> ImageCms.ImageCmsTransform:
    from PIL import ImageCms

    return _build(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


def _build(source: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    from PIL import ImageCms

    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, srgb, mode, "RGB", intent, flags=flags)


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return True for sRGB profiles, which most cameras write: their images need no conversion."""
    steps = [round(255 * step / (_STEPS - 1)) for step in range(_STEPS)]
    colours = bytes(value for colour in itertools.product(steps, repeat=3) for value in colour)
    probes = Image.frombytes("RGB", (_STEPS**2, _STEPS), colours).convert(mode)
    pairs = zip(transform.apply(probes).tobytes(), probes.convert("RGB").tobytes(), strict=True)
    return all(abs(one - other) <= _EQUAL for one, other in pairs)
