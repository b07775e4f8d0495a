"""The image sizes of a run: for training and validation in each epoch, and those tried at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whichcar.config.experiment import Data
from whichcar.config.recipe import Recipe
from whichcar.training.network.models import Size


@dataclass(frozen=True)
class Sizes:
    """Image sizes of a run, (height, width).

    `train` and `validation` hold one size per epoch, `tried` those in `recipe.test_sizes`. `cache` is the size of the
    decoded images that batches are drawn from.
    """

    train: tuple[Size, ...]
    validation: tuple[Size, ...]
    tried: tuple[Size, ...]
    cache: Size

    @property
    def scored(self) -> list[Size]:
        """Every size that the validation images are scored at, ascending."""
        return sorted({*self.validation, *self.tried})


def sizes_of(data: Data, recipe: Recipe, epochs: int) -> Sizes:
    """Return the sizes of a run of `epochs` epochs."""
    train, validation = [data.image_size] * epochs, [data.image_size] * epochs
    if recipe.stages:
        counts = scaled([stage.epochs for stage in recipe.stages], epochs)
        train = [s.image_size for s, count in zip(recipe.stages, counts, strict=True) for _ in range(count)]
        validation = train
    tried = recipe.test_sizes
    used = [*train, *tried, data.image_size]
    largest = data.cache_size or (max(height for height, _ in used), max(width for _, width in used))
    # With cached features nothing is cropped: images are read at the size that the backbone sees.
    cache = data.image_size if recipe.cached_features else largest
    if tried and not data.held_out_share:  # no validation images to choose by: use the only size
        validation, tried = [tried[0]] * epochs, ()
    return Sizes(tuple(train), tuple(validation), tried, cache)


def scaled(counts: Sequence[int], total: int) -> list[int]:
    """Scale counts in proportion to add up to `total`; each stays at least 1, or as many of the last as possible."""
    left_out = max(0, len(counts) - total)
    if left_out:
        return [0] * left_out + [1] * total
    exact = [count * total / sum(counts) for count in counts]
    rounded = [max(1, int(share)) for share in exact]
    while sum(rounded) != total:
        # Adjust the count that is furthest from its exact share by one; on a tie, the first.
        change = 1 if sum(rounded) < total else -1
        free = [number for number, count in enumerate(rounded) if count + change >= 1]
        rounded[max(free, key=lambda number: change * (exact[number] - rounded[number]))] += change
    return rounded
