"""Mixup, CutMix and ResizeMix: two images and their labels combined."""

from __future__ import annotations

import numpy as np


def mixup(
    images: np.ndarray, labels: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Blend each image with another of the batch (Zhang et al. 2018).

    Args:
        images: (n, h, w, 3) uint8.
        labels: (n, classes) float32 that sum to one.
        alpha: of the Beta distribution the share is drawn from, once a batch.

    Returns:
        New arrays of the same shapes and types.
    """
    share = np.float32(rng.beta(alpha, alpha))
    order = rng.permutation(len(images))
    mixed = images * share
    mixed += images[order] * (1 - share)
    return (mixed + 0.5).astype(np.uint8), labels * share + labels[order] * (1 - share)


def cutmix(
    images: np.ndarray, labels: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste a box of another image of the batch into each (Yun et al. 2019); labels mix by area.

    Arguments and results as for `mixup`.
    """
    height, width = images.shape[1:3]
    side = np.sqrt(1.0 - rng.beta(alpha, alpha))
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = (int(np.clip(y + sign * side * height / 2, 0, height)) for sign in (-1, 1))
    left, right = (int(np.clip(x + sign * side * width / 2, 0, width)) for sign in (-1, 1))
    order = rng.permutation(len(images))
    return _pasted(images, labels, order, images[order, top:bottom, left:right], (top, left))


def resizemix(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paste the whole of another image of the batch, made smaller, into each (Qin et al. 2020); labels mix by area.

    Its side is 0.1 to 0.8 of the image's, drawn once a batch. Arguments and results as for `mixup`.
    """
    height, width = images.shape[1:3]
    share = rng.uniform(0.1, 0.8)
    small = max(1, round(share * height)), max(1, round(share * width))
    corner = int(rng.integers(height - small[0] + 1)), int(rng.integers(width - small[1] + 1))
    order = rng.permutation(len(images))
    return _pasted(images, labels, order, _reduced(images[order], small), corner)


def _reduced(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Make images smaller by taking the pixel in the middle of each box."""
    rows, columns = (
        ((np.arange(small) + 0.5) * full / small).astype(int)
        for small, full in zip(size, images.shape[1:3], strict=True)
    )
    return images[:, rows[:, None], columns]


def _pasted(
    images: np.ndarray, labels: np.ndarray, order: np.ndarray, patches: np.ndarray, corner: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Paste patches of the images in this order with their upper left corner there."""
    (top, left), (height, width) = corner, patches.shape[1:3]
    mixed = images.copy()
    mixed[:, top : top + height, left : left + width] = patches
    share = np.float32(1.0 - height * width / (images.shape[1] * images.shape[2]))
    return mixed, labels * share + labels[order] * (1 - share)
