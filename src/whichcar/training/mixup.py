"""Mixup and CutMix: two images and their labels combined."""

from __future__ import annotations

import numpy as np


def mixup(
    images: np.ndarray, labels: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Blend each image with another of the batch (Zhang et al. 2018).

    Args:
        images: (n, h, w, 3) uint8.
        labels: (n, classes) float32 that sum to one.
        alpha: parameter of the Beta distribution that the share is drawn from, once per batch.

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

    The area is that of the cached image: `RandomResizedCrop`, a layer of the network, crops afterwards and shows
    somewhat more of the box than the labels say (with sides of 0.75 to 1, 0.03 more on average).

    Arguments and results as for `mixup`.
    """
    height, width = images.shape[1:3]
    side = np.sqrt(1.0 - rng.beta(alpha, alpha))
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = (int(np.clip(y + sign * side * height / 2, 0, height)) for sign in (-1, 1))
    left, right = (int(np.clip(x + sign * side * width / 2, 0, width)) for sign in (-1, 1))
    order = rng.permutation(len(images))
    mixed = images.copy()
    mixed[:, top:bottom, left:right] = images[order, top:bottom, left:right]
    share = np.float32(1.0 - (bottom - top) * (right - left) / (height * width))
    return mixed, labels * share + labels[order] * (1 - share)
