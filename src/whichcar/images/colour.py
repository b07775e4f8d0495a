"""Colours as sRGB: what an image's ICC profile says its numbers mean is converted, once its pixels are few."""

from __future__ import annotations

import functools
import io
import itertools
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:  # few images need it
    from PIL import ImageCms

# Modes of Pillow that profiles can describe, by the colour space a profile names.
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_STEPS = 9  # of each channel on which a profile is compared with sRGB
_EQUAL = 3  # of 255: a profile that changes no colour by more is sRGB, in another writing


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image of mode L, RGB or CMYK as RGB.

    Args:
        image: with 8 bits a channel, without transparency.
        profile: the ICC profile its file holds. One that is broken, or made for another kind of image, is ignored.
    """
    if profile and (transform := _transform(profile, image.mode)):
        return transform.apply(image)
    # A profile of colours belongs to a grey image too, whose colours are those with three equal channels.
    if profile and image.mode == "L" and (transform := _transform(profile, "RGB")):
        return transform.apply(image.convert("RGB"))
    return image if image.mode == "RGB" else image.convert("RGB")


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return how images of this profile and mode become sRGB; None where nothing is to be done, or nothing can be."""
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
    """Return an image of mode LAB as RGB; Pillow converts it through profiles only."""
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
    """True for the profiles of sRGB, which most cameras write: their images are spared the conversion."""
    steps = [round(255 * step / (_STEPS - 1)) for step in range(_STEPS)]
    colours = bytes(value for colour in itertools.product(steps, repeat=3) for value in colour)
    probes = Image.frombytes("RGB", (_STEPS**2, _STEPS), colours).convert(mode)
    pairs = zip(transform.apply(probes).tobytes(), probes.convert("RGB").tobytes(), strict=True)
    return all(abs(one - other) <= _EQUAL for one, other in pairs)
