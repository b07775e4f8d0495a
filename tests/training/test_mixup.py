from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from whichcar.training.mixup import cutmix, mixup

Mix = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], tuple[np.ndarray, np.ndarray]]


ALL = pytest.mark.parametrize("mix", [mixup, cutmix])


def batch(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Image i is one grey level, 20 + 40 i, everywhere; its class is i."""
    levels = 20 + 40 * np.arange(count, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, 24, 30, 3)).copy(), np.eye(count, dtype=np.float32)


@ALL
@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_labels_are_the_share_of_each_image(mix: Mix, alpha: float) -> None:
    images, labels = batch()
    for seed in range(20):
        mixed, soft = mix(images, labels, alpha, np.random.default_rng(seed))
        np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
        assert (soft >= 0).all()
        # The mean level of the mixture is that of its images, weighted as the labels say; mixup rounds a level.
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), soft @ images[:, 0, 0, 0].astype(float), atol=0.51)


@ALL
def test_shapes_and_types_stay_and_the_inputs_too(mix: Mix) -> None:
    images, labels = batch()
    mixed, soft = mix(images, labels, 1.0, np.random.default_rng(0))
    assert (mixed.shape, mixed.dtype, soft.shape, soft.dtype) == (images.shape, np.uint8, labels.shape, np.float32)
    np.testing.assert_array_equal(images, batch()[0])
    np.testing.assert_array_equal(labels, batch()[1])


@ALL
def test_the_same_random_state_gives_the_same_mixture(mix: Mix) -> None:
    once, again, other = (mix(*batch(), 1.0, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(once[0], again[0])
    np.testing.assert_array_equal(once[1], again[1])
    assert (once[0] != other[0]).any()


def test_mixup_blends_every_pixel_alike_and_cutmix_pastes_one_box() -> None:
    mixed, _ = mixup(*batch(), 1.0, np.random.default_rng(1))
    assert all(len(np.unique(image)) == 1 for image in mixed)
    mixed, soft = cutmix(*batch(), 1.0, np.random.default_rng(1))
    for number, image in enumerate(mixed):
        pasted = image[..., 0] != batch()[0][number, ..., 0]
        if pasted.any():
            rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
            assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            np.testing.assert_allclose(pasted.mean(), 1 - soft[number, number], atol=1e-6)


def test_mixup_does_not_darken_on_the_whole() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    means = [mixup(noise, np.eye(8, dtype=np.float32), 1.0, np.random.default_rng(s))[0].mean() for s in range(20)]
    assert abs(np.mean(means) - noise.mean()) < 0.1


@ALL
def test_one_image_alone_stays_as_it_is(mix: Mix) -> None:
    images, labels = batch(1)
    mixed, soft = mix(images, labels, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_allclose(soft, labels, rtol=1e-6)
