"""Remarks on a run before it starts: settings whose effect differs from what they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from whichcar.config.experiment import Experiment
from whichcar.text import plural
from whichcar.training.network.models import TrainingModels
from whichcar.training.network.optimizer import warmup_updates
from whichcar.training.sizes import scaled

LONG_WARMUP = 0.5  # share of all updates


def remarks(experiment: Experiment, images: int, updates: int) -> Iterator[str]:
    """Yield a sentence for each setting whose effect the length of the run, or a lack of images, changes.

    Args:
        images: number of training images.
        updates: number of optimizer updates in the whole run.
    """
    recipe, epochs, batch_size = experiment.recipe, experiment.fit.epochs, experiment.data.batch_size
    if images < batch_size:
        yield f"data.batch_size is {batch_size}, but there are {images} training images: each batch has {images}"
    sizes, size = [stage.image_size for stage in recipe.stages], experiment.data.image_size
    if sizes and size not in sizes and experiment.is_written("data.image_size"):
        shown = "x".join(map(str, size))
        yield f"data.image_size is {shown}, but recipe.stages sets the size of each epoch; change the stages instead"
    if recipe.cached_features and experiment.data.cache_size not in (None, size):
        yield "data.cache_size has no effect with recipe.cached_features: images are read at data.image_size"
    written = [stage.epochs for stage in recipe.stages]
    if written and sum(written) != epochs:
        counts = ", ".join(map(str, scaled(written, epochs)))
        yield f"recipe.stages: scaled from {', '.join(map(str, written))} to {counts} epochs, as fit.epochs is {epochs}"
    if recipe.plain_epochs >= epochs and (recipe.mixup or recipe.cutmix or recipe.rand_augment):
        count = "the only epoch is" if epochs == 1 else f"all {epochs} epochs are"
        yield f"recipe.plain_epochs is {recipe.plain_epochs}: {count} without mixup, CutMix and RandAugment"
    warmup = warmup_updates(updates, recipe)
    if warmup > LONG_WARMUP * updates:
        shorter = "recipe.warmup_share: 0.05" + (" instead of recipe.warmup_steps" if recipe.warmup_steps else "")
        yield (
            f"the learning rate is warmed up for {warmup} of {plural(updates, 'update')}; for a shorter warm-up write, "
            f"for example, {shorter}"
        )


def disk_needed(experiment: Experiment, models: TrainingModels) -> str:
    """Return one line on how much disk space the run needs at most, and the setting that limits it."""
    keep, epochs = experiment.fit.callbacks.model_checkpoint.keep, experiment.fit.last_epoch
    count = epochs if keep is None else min(keep, epochs)
    size, state = _megabytes(models.export_model.weights), _megabytes(models.state_variables())
    kept = "every epoch's is kept" if keep is None else f"the best {keep} are kept" if keep > 1 else "the best is kept"
    gigabytes = (count * size + state) / 1000
    return (
        f"disk: up to {gigabytes:.1f} GB for {plural(count, 'checkpoint')} of {size:.0f} MB ({kept}: "
        f"fit.callbacks.model_checkpoint.keep) and {state:.0f} MB for --resume"
    )


def _megabytes(variables: Iterable[Any]) -> float:
    return float(sum(4 * math.prod(variable.shape) for variable in variables)) / 1e6
