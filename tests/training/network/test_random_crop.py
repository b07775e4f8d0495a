from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from whichcar.training.hardware import prepare

prepare("float32")
import keras  # noqa: E402

from whichcar.training.network.random_crop import RandomResizedCrop  # noqa: E402

SIZES = [(32, 48), (24, 20), (64, 40), (90, 100), (48, 64), (50, 7)]
PILLOW = 1.5  # grey levels: Pillow rounds twice, once after each direction


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Five images of noise under a slope, (5, 48, 64, 3) uint8."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 200, 64)[None, None, :, None]
    return (slope + rng.integers(0, 56, (5, 48, 64, 3))).astype(np.uint8)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", SIZES)
def test_prediction_resizes_the_whole_image_as_pillow_does(images: np.ndarray, size: tuple[int, int]) -> None:
    out = np.asarray(RandomResizedCrop(size, (0.5, 0.8))(images, training=False))
    assert (out.shape, out.dtype) == ((5, *size, 3), np.float32)
    expected = np.stack([resized(image, size) for image in images]).astype(float)
    assert np.abs(out - expected).max() < PILLOW
    assert abs((out - expected).mean()) < 0.1


@pytest.mark.parametrize("size", SIZES)
def test_prediction_equals_the_resizing_layer_of_the_saved_model(images: np.ndarray, size: tuple[int, int]) -> None:
    resizing = keras.layers.Resizing(*size, interpolation="bilinear", antialias=True)
    out = np.asarray(RandomResizedCrop(size)(images, training=False))
    np.testing.assert_allclose(out, np.asarray(resizing(images.astype(np.float32))), atol=2e-3)


def test_training_with_whole_sides_resizes_to_the_training_size(images: np.ndarray) -> None:
    layer = RandomResizedCrop((20, 20), (1.0, 1.0))
    layer.train_size = (30, 16)
    out = np.asarray(layer(images, training=True))
    expected = np.stack([resized(image, (30, 16)) for image in images]).astype(float)
    assert np.abs(out - expected).max() < PILLOW
    assert np.asarray(layer(images, training=False)).shape == (5, 20, 20, 3)


@pytest.mark.parametrize("training", [True, False])
def test_an_image_of_the_right_size_is_left_as_it_is(images: np.ndarray, training: bool) -> None:
    out = np.asarray(RandomResizedCrop((48, 64))(images, training=training))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize("target", [(16, 16), (48, 48), (24, 80)])
def test_boxes_lie_inside_the_image_and_keep_the_shares_asked_for(target: tuple[int, int]) -> None:
    """In an image whose levels are the pixels' places, a crop says where it was taken."""
    height, width, count = 60, 90, 200
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.float32)
    out = np.asarray(RandomResizedCrop(target, (0.5, 0.9), seed=3)(np.repeat(image[None], count, 0), training=True))
    assert out[..., 0].max() <= height - 1 + 1e-3
    assert out[..., 1].max() <= width - 1 + 1e-3
    shares = []
    for place, side, length in ((out[:, :, 0, 0], target[0], height), (out[:, 0, :, 1], target[1], width)):
        # A line through the middle; the ends may be bent where the filter meets the image's border.
        middle = np.arange(side // 4, side - side // 4)
        step, start = np.polyfit(middle + 0.5, place[:, middle].T + 0.5, 1)
        share, end = step * side / length, start + step * side
        # The filter has few taps: a level may be off by a twentieth.
        assert share.min() == pytest.approx(0.51, abs=0.015)
        assert share.max() == pytest.approx(0.89, abs=0.015)
        assert -0.15 < start.min() < 0.03 * length
        assert 0.97 * length < end.max() < length + 0.15
        shares.append(share)
    assert abs(np.corrcoef(shares)[0, 1]) < 0.25, "height and width are drawn apart"


def test_every_output_pixel_is_between_the_darkest_and_the_lightest(images: np.ndarray) -> None:
    extreme = np.where(images > 120, 255, 0).astype(np.uint8)
    out = np.asarray(RandomResizedCrop((40, 40), (0.4, 1.0))(extreme, training=True))
    assert out.dtype == np.float32
    assert out.min() >= -1e-3
    assert out.max() <= 255.001
    white = np.full_like(images, 255)
    cut = np.asarray(RandomResizedCrop((40, 40), (0.4, 1.0))(white, training=True))
    np.testing.assert_allclose(cut, 255, atol=0.01)


def test_what_is_drawn_depends_on_the_state_of_the_seed_alone(images: np.ndarray) -> None:
    first, second, other = (RandomResizedCrop((20, 20), (0.5, 1.0), seed=seed) for seed in (1, 1, 2))
    once = np.asarray(first(images, training=True))
    np.testing.assert_array_equal(np.asarray(second(images, training=True)), once)
    assert (np.asarray(other(images, training=True)) != once).any()
    kept = np.asarray(first.generator.state)
    next_one = np.asarray(first(images, training=True))
    assert (next_one != once).any()
    first.generator.state.assign(kept)
    np.testing.assert_array_equal(np.asarray(first(images, training=True)), next_one)
    assert [variable.path for variable in first.variables if "seed_generator_state" in variable.path]


def test_each_image_of_a_batch_has_its_own_crop(images: np.ndarray) -> None:
    same = np.repeat(images[:1], 6, axis=0)
    out = np.asarray(RandomResizedCrop((20, 20), (0.5, 1.0))(same, training=True))
    assert len(np.unique(out.reshape(6, -1), axis=0)) == 6


def test_bfloat16_stays_within_three_grey_levels(images: np.ndarray) -> None:
    """Half a level each for the weights and the sums of two products and for the output; the order of sums differs."""
    for training in (True, False):
        exact, short = (
            np.asarray(RandomResizedCrop((32, 32), (0.6, 1.0), seed=4, dtype=policy)(images, training=training))
            for policy in ("float32", "mixed_bfloat16")
        )
        assert short.dtype == np.float32
        assert np.abs(exact - short).max() < 3.0
        assert np.abs(exact - short).mean() < 1.0
