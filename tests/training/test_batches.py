from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image

from whichcar.config.recipe import RandAugment, Recipe
from whichcar.data.decoded_cache import DecodedCache, decode_all
from whichcar.parallel import THREAD_PREFIX
from whichcar.training.batches import Batch, TrainingBatches, images_at_once, plain_batches

MIXED = Recipe(mixup=0.2, cutmix=1.0, mix_share=0.7, rand_augment=RandAugment(num_ops=2, factor=0.5))
PLAIN = Recipe()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> DecodedCache:
    """Forty images; the first pixel of image i is (i, i, i)."""
    folder = tmp_path_factory.mktemp("batches")
    noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    for number, image in enumerate(noise):
        image[0, 0] = number
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    return decode_all(sorted(folder.glob("*.png")), (8, 8), folder / "cache")


def numbers(batches: Iterable[Batch]) -> list[list[int]]:
    return [shown[:, 0, 0, 0].tolist() for shown, _ in batches]


def made(images: DecodedCache, recipe: Recipe = PLAIN, balanced: bool = False, seed: int = 7) -> TrainingBatches:
    """Batches of eight over all images but the first; class 0 has three images, classes 1 and 2 the others."""
    rows = np.arange(1, 40)
    classes = np.where(rows < 4, 0, 1 + rows % 2)
    return TrainingBatches(images, rows, classes, 4, 8, seed, recipe, balanced)


def test_every_image_comes_once_an_epoch_with_its_class(images: DecodedCache) -> None:
    batches = made(images)
    assert len(batches) == 4
    for shown, labels in batches.epoch(0):
        assert (shown.shape, shown.dtype, labels.shape, labels.dtype) == ((8, 8, 8, 3), np.uint8, (8, 4), np.float32)
        rows = shown[:, 0, 0, 0]
        np.testing.assert_array_equal(labels.argmax(1), np.where(rows < 4, 0, 1 + rows % 2))
        np.testing.assert_array_equal(shown, images.take(rows))
    drawn = list(itertools.chain(*numbers(batches.epoch(0))))
    assert len(set(drawn)) == 32
    assert set(drawn) <= set(range(1, 40))


def test_over_the_epochs_no_image_is_left_out(images: DecodedCache) -> None:
    seen = {n for epoch in range(6) for n in itertools.chain(*numbers(made(images).epoch(epoch)))}
    assert seen == set(range(1, 40))


def test_order_depends_on_seed_and_epoch_alone(images: DecodedCache) -> None:
    assert numbers(made(images).epoch(3)) == numbers(made(images).epoch(3))
    assert numbers(made(images).epoch(3)) != numbers(made(images).epoch(4))
    assert numbers(made(images, seed=7).epoch(3)) != numbers(made(images, seed=8).epoch(3))


@pytest.mark.parametrize("recipe", [PLAIN, MIXED])
@pytest.mark.parametrize("balanced", [False, True])
def test_taking_up_at_a_place_gives_what_would_have_come(images: DecodedCache, recipe: Recipe, balanced: bool) -> None:
    whole = list(made(images, recipe, balanced).epoch(2))
    for start in range(5):
        rest = list(made(images, recipe, balanced).epoch(2, start))
        assert len(rest) == 4 - start
        for (shown, labels), (expected, truth) in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(shown, expected)
            np.testing.assert_array_equal(labels, truth)


def test_balanced_draws_each_class_equally(images: DecodedCache) -> None:
    totals = np.zeros(40)
    for epoch in range(30):
        drawn = np.array(list(itertools.chain(*numbers(made(images, balanced=True).epoch(epoch)))))
        counts = np.bincount(np.where(drawn < 4, 0, 1 + drawn % 2), minlength=3)
        assert counts.sum() == 32
        assert counts.max() - counts.min() <= 1
        of_small = np.bincount(drawn[drawn < 4], minlength=4)[1:]
        assert of_small.max() - of_small.min() <= 1
        assert np.bincount(drawn[drawn >= 4]).max() == 1
        totals += np.bincount(drawn, minlength=40)
    assert (totals[1:] > 0).all()
    assert totals[0] == 0


def test_balanced_is_equal_also_where_classes_do_not_fill_the_epoch(images: DecodedCache) -> None:
    batches = TrainingBatches(images, np.arange(40), np.arange(40) % 7, 7, 24, 1, PLAIN, balanced=True)
    extra = set()
    for epoch in range(30):
        drawn = np.array(list(itertools.chain(*numbers(batches.epoch(epoch)))))
        counts = np.bincount(drawn % 7)
        assert sorted(counts) == [3, 3, 3, 3, 4, 4, 4]
        extra |= set(np.flatnonzero(counts == 4).tolist())
    assert extra == set(range(7))


@pytest.mark.parametrize("balanced", [False, True])
def test_fewer_images_than_a_batch_make_one_batch(images: DecodedCache, balanced: bool) -> None:
    few = TrainingBatches(images, np.array([4, 9, 2, 3]), np.array([0, 1, 1, 0]), 2, 8, 1, PLAIN, balanced)
    assert len(few) == 1
    assert [sorted(batch) for batch in numbers(few.epoch(0))] == [[2, 3, 4, 9]]


@pytest.mark.parametrize(
    ("size", "count"), [((32, 32), 64), ((256, 256), 64), ((257, 256), 32), ((518, 518), 8), ((2048, 2048), 1)]
)
def test_of_large_images_fewer_are_predicted_at_once(size: tuple[int, int], count: int) -> None:
    assert images_at_once(size) == count


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_of_a_batch_hold_the_images_of_the_whole_one(images: DecodedCache, parts: int) -> None:
    rows, classes = np.arange(39), np.arange(39) % 2
    whole = TrainingBatches(images, rows, classes, 2, 8, 7, PLAIN)
    split = TrainingBatches(images, rows, classes, 2, 8 // parts, 7, Recipe(gradient_accumulation=parts))
    assert len(split) == parts * len(whole)
    for place, batch in enumerate(numbers(whole.epoch(3))):
        small = numbers(split.epoch(3))[place * parts : (place + 1) * parts]
        assert list(itertools.chain(*small)) == batch


def test_images_for_less_than_one_update_are_all_the_full_batches_there_are(images: DecodedCache) -> None:
    few = TrainingBatches(images, np.arange(20), np.arange(20) % 2, 2, 8, 1, Recipe(gradient_accumulation=4))
    assert len(few) == 2


def test_mixing_and_changes_follow_the_recipe(images: DecodedCache) -> None:
    def mixed_batches(recipe: Recipe, plain: bool = False) -> int:
        batches = made(images, recipe)
        found = [labels for epoch in range(25) for _, labels in batches.epoch(epoch, plain=plain)]
        assert all(np.allclose(labels.sum(1), 1) for labels in found)
        return sum(bool((labels.max(1) < 0.999).any()) for labels in found)

    assert mixed_batches(PLAIN) == 0
    assert mixed_batches(MIXED, plain=True) == 0
    assert mixed_batches(Recipe(rand_augment=RandAugment())) == 0
    # Of 100 batches 70 are mixed on average; a few of those by a share so near to 0 or 1 that it does not show.
    assert 40 < mixed_batches(MIXED) < 85
    assert mixed_batches(Recipe(mixup=1.0)) > 90


def test_every_batch_draws_its_own_mixture(images: DecodedCache) -> None:
    shares = [np.unique(labels)[1] for _, labels in made(images, Recipe(mixup=1.0)).epoch(0)]
    assert len(np.unique(np.round(shares, 4))) == 4


def test_plain_batches_are_full_and_in_order(images: DecodedCache) -> None:
    found = list(plain_batches(images, np.arange(5, 24), 8))
    assert [batch[:, 0, 0, 0].tolist() for batch in found] == [
        list(range(5, 13)),
        list(range(13, 21)),
        [21, 22, 23, 23, 23, 23, 23, 23],
    ]
    assert list(plain_batches(images, np.arange(0), 8)) == []


def test_an_epoch_left_early_ends_its_threads(images: DecodedCache) -> None:
    epoch = made(images).epoch(0)
    next(epoch)
    epoch.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]
