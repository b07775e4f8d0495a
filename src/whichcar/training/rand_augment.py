"""RandAugment (Cubuk et al. 2020): a few random changes of colour and shape, drawn separately for every image.

Keras' layer draws one change for the whole batch and computes all eleven to select it. Here each image gets its own
changes, and Pillow, which releases the GIL, computes only these.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Change = Callable[[Image.Image, float], Image.Image]
GREY = (124, 116, 104)  # ImageNet's mean, which fills the areas that a shift uncovers


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Change:
    return lambda image, strength: kind(image).enhance(1.0 + 0.9 * strength)


def _affine(a: float, b: float, c: float, d: float, e: float, f: float) -> Change:
    """Return a change by the map (1 + a s, b s, c s w; d s, 1 + e s, f s h) of strength s."""

    def change(image: Image.Image, strength: float) -> Image.Image:
        s, (width, height) = strength, image.size
        matrix = (1 + a * s, b * s, c * s * width, d * s, 1 + e * s, f * s * height)
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY)

    return change


# Strength is -1 … 1; changes without a direction use its absolute value.
CHANGES: tuple[Change, ...] = (
    lambda image, strength: image,
    lambda image, strength: ImageOps.autocontrast(image),
    lambda image, strength: ImageOps.equalize(image),
    lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    lambda image, strength: ImageOps.solarize(image, round(256 * (1 - abs(strength)))),
    lambda image, strength: image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=GREY),
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    _affine(0, 0.3, -0.15, 0, 0, 0),
    _affine(0, 0, 0, 0.3, 0, -0.15),
    _affine(0, 0, 0.3, 0, 0, 0),
    _affine(0, 0, 0, 0, 0, 0.3),
)


def rand_augment(images: np.ndarray, num_ops: int, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Apply `num_ops` random changes of strength up to `factor` to every image.

    Args:
        images: (n, h, w, 3) uint8.
        factor: 0 … 1, the largest strength.

    Returns:
        A new array of the same shape and type.
    """
    out = np.empty_like(images)
    for place, image in zip(out, images, strict=True):
        changed = Image.fromarray(image)
        for which in rng.integers(len(CHANGES), size=num_ops):
            changed = CHANGES[which](changed, float(rng.uniform(-factor, factor)))
        place[:] = np.asarray(changed)
    return out
