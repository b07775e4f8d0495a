"""What is worth saying about a run before it starts: settings that do not come out as they read."""

from __future__ import annotations

from collections.abc import Iterator

from whichcar.config import Experiment
from whichcar.text import plural
from whichcar.training.optimizer import warmup_updates
from whichcar.training.preparation import scaled

LONG_WARMUP = 0.5  # of all updates


def remarks(experiment: Experiment, updates: int) -> Iterator[str]:
    """Yield one sentence for each setting that the length of the run changes the effect of.

    Args:
        updates: optimizer updates of the whole run.
    """
    recipe, epochs = experiment.recipe, experiment.fit.epochs
    written = [stage.epochs for stage in recipe.stages]
    if written and sum(written) != epochs:
        counts = ", ".join(map(str, scaled(written, epochs)))
        yield f"recipe.stages: scaled from {', '.join(map(str, written))} to {counts} epochs, as fit.epochs is {epochs}"
    if recipe.plain_epochs >= epochs and (recipe.mixup or recipe.cutmix or recipe.rand_augment):
        count = "the only epoch is" if epochs == 1 else f"all {epochs} epochs are"
        yield f"recipe.plain_epochs is {recipe.plain_epochs}: {count} without mixup, CutMix and RandAugment"
    warmup = warmup_updates(updates, recipe)
    if warmup > LONG_WARMUP * updates:
        yield (
            f"the learning rate is warmed up for {warmup} of {plural(updates, 'update')}; for a shorter warm-up write "
            "recipe.warmup_share, for example 0.05, in the place of recipe.warmup_steps"
        )
