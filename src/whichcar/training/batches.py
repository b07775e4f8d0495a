"""Batches of decoded images, a pure function of (seed, epoch, batch index), so that training resumes anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np

from whichcar.config.recipe import Recipe
from whichcar.parallel import ordered_map, usable_cores
from whichcar.records import Skipped
from whichcar.training.mixup import cutmix, mixup
from whichcar.training.rand_augment import rand_augment

Batch = tuple[np.ndarray, np.ndarray]

AHEAD = 3  # batches prepared while the network works on one


class Rows(Protocol):
    """Inputs of the network by row number: decoded images, or features of the backbone."""

    key: str
    skipped: list[Skipped]

    def __len__(self) -> int:
        """Return the number of rows."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return these rows."""


class TrainingBatches:
    """The batches of each epoch, shuffled for that epoch, with the recipe's mixing and augmentation.

    Args:
        rows: rows of `images` to train on.
        classes: (len(rows),) class numbers.
        balanced: draw every class equally often, with replacement within small classes.
    """

    def __init__(
        self,
        images: Rows,
        rows: np.ndarray,
        classes: np.ndarray,
        class_count: int,
        batch_size: int,
        seed: int,
        recipe: Recipe,
        balanced: bool = False,
    ) -> None:
        self._images, self._rows, self._classes = images, rows, classes
        self._eye = np.eye(class_count, dtype=np.float32)
        self._batch_size, self._seed, self._recipe, self._balanced = batch_size, seed, recipe, balanced

    def __len__(self) -> int:
        """Return the number of batches per epoch: whole optimizer updates only; remaining images are left out.

        With too few images for one update, there are as many batches as they fill, or one smaller batch.
        """
        batches, accumulated = len(self._rows) // self._batch_size, self._recipe.gradient_accumulation
        return batches // accumulated * accumulated or max(1, batches)

    def epoch(self, number: int, start: int = 0, plain: bool = False) -> Iterator[Batch]:
        """Yield (images, labels) from batch `start` on: (n, h, w, 3) uint8 and (n, classes) float32.

        Args:
            number: index of the epoch, from 0.
            plain: leave out mixing and RandAugment.
        """
        order = self._order(np.random.default_rng([self._seed, number]))

        def make(place: int) -> Batch:
            chosen = order[place * self._batch_size : (place + 1) * self._batch_size]
            images, labels = self._images.take(self._rows[chosen]), self._eye[self._classes[chosen]]
            if plain:
                return images, labels
            return self._changed(images, labels, np.random.default_rng([self._seed, number, place]))

        return ordered_map(make, range(start, len(self)), workers=_workers(), ahead=AHEAD)

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        if not self._balanced:
            return rng.permutation(len(self._rows))
        total = len(self) * min(self._batch_size, len(self._rows))
        present = rng.permutation(np.unique(self._classes))
        share = -(-total // len(present))
        drawn = [np.resize(rng.permutation(np.flatnonzero(self._classes == number)), share) for number in present]
        # One image per class in each round, so that truncation drops at most one image per class.
        return rng.permutation(np.stack(drawn, axis=1).ravel()[:total])

    def _changed(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Batch:
        recipe = self._recipe
        if recipe.rand_augment is not None:
            images = rand_augment(images, recipe.rand_augment.num_ops, recipe.rand_augment.factor, rng)
        ways: list[Callable[..., Batch]] = [
            *([partial(mixup, alpha=recipe.mixup)] if recipe.mixup else []),
            *([partial(cutmix, alpha=recipe.cutmix)] if recipe.cutmix else []),
        ]
        if ways and rng.uniform() < recipe.mix_share:
            return ways[rng.integers(len(ways))](images, labels, rng=rng)
        return images, labels


def plain_batches(images: Rows, rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yield batches (batch_size, ...) of `rows` in order; the last one is padded by repeating its last image."""

    def make(start: int) -> np.ndarray:
        chosen = rows[start : start + batch_size]
        return images.take(np.concatenate([chosen, np.repeat(chosen[-1:], batch_size - len(chosen))]))

    return ordered_map(make, range(0, len(rows), batch_size), workers=_workers(), ahead=AHEAD)


def images_at_once(size: tuple[int, int]) -> int:
    """Return how many images of this size to predict at a time: 64 up to 256 x 256 pixels, fewer of larger ones.

    It is a power of two, which several devices can divide.
    """
    return 1 << min(6, max(1, 64 * 256**2 // (size[0] * size[1])).bit_length() - 1)


def _workers() -> int:
    # More workers would only use memory, since only a few batches are prepared ahead.
    return min(AHEAD + 1, usable_cores())
