from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from whichcar.training.rand_augment import CHANGES, rand_augment

WITHOUT_STRENGTH = (1, 2)  # autocontrast and equalize are all or nothing, as in the paper


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Six smooth images with black and white in them."""
    rows, columns = np.mgrid[0:40, 0:56]
    waves = [np.sin(rows / (3 + i)) + np.cos(columns / (5 + i)) for i in range(6)]
    grey = np.stack([np.interp(wave, (wave.min(), wave.max()), (0, 255)) for wave in waves])
    return np.stack([grey, 255 - grey, grey // 2], axis=-1).astype(np.uint8)


def test_the_same_random_state_gives_the_same_images(images: np.ndarray) -> None:
    once, again, other = (rand_augment(images, 2, 0.5, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_shape_and_type_stay_and_the_input_too(images: np.ndarray) -> None:
    before = images.copy()
    out = rand_augment(images, 10, 1.0, np.random.default_rng(0))
    assert (out.shape, out.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(images, before)
    assert not np.shares_memory(out, images)


def test_every_image_draws_its_own_changes(images: np.ndarray) -> None:
    same = np.repeat(images[:1], 12, axis=0)
    out = rand_augment(same, 2, 0.8, np.random.default_rng(0))
    assert len(np.unique(out.reshape(12, -1), axis=0)) > 8


@pytest.mark.parametrize("which", [n for n in range(len(CHANGES)) if n not in WITHOUT_STRENGTH])
def test_strength_zero_changes_nothing(which: int, images: np.ndarray) -> None:
    for image in images:
        changed = np.asarray(CHANGES[which](Image.fromarray(image), 0.0))
        assert np.abs(changed.astype(int) - image).max() <= 1


@pytest.mark.parametrize("which", range(1, len(CHANGES)))
@pytest.mark.parametrize("strength", [-1.0, 1.0])
def test_full_strength_changes_something_and_keeps_the_size(which: int, strength: float, images: np.ndarray) -> None:
    changed = CHANGES[which](Image.fromarray(images[0] // 2 + 60), strength)
    assert (changed.size, changed.mode) == ((56, 40), "RGB")
    assert (np.asarray(changed) != images[0] // 2 + 60).any()


def test_more_strength_means_more_change(images: np.ndarray) -> None:
    def change(factor: float) -> float:
        out = rand_augment(np.repeat(images, 10, axis=0), 2, factor, np.random.default_rng(1))
        return float(np.abs(out.astype(float) - np.repeat(images, 10, axis=0)).mean())

    assert change(0.0) < change(0.3) < change(1.0)
