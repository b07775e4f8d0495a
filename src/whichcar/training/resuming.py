"""Checks that a run matches the saved one that it resumes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from whichcar.config.experiment import Experiment
from whichcar.data.labels import renamed
from whichcar.data.split.tree import Tree
from whichcar.errors import TrainingError
from whichcar.text import nfc, plural
from whichcar.training.network.models import Size
from whichcar.training.run.folder import ExperimentFolder
from whichcar.training.run.history import Epoch

log = logging.getLogger(__name__)


def check_class_folders(folder: ExperimentFolder, tree: Tree, directory: str) -> None:
    """Check that the class folders are the same as when the run was started.

    Raises:
        TrainingError: they differ; the message says which are missing and which are new.
    """
    before = list(map(nfc, folder.class_folders))
    if changes := renamed(before, tree.class_folders) if before else "":
        raise TrainingError(
            f"{folder.path}: the class folders of {directory} changed since this run was stopped ({changes}); put the "
            "old names back, or start over with --overwrite"
        )


def check_length(
    folder: ExperimentFolder,
    experiment: Experiment,
    sizes: Sequence[Size],
    history: Sequence[Epoch],
    is_stopped_early: bool,
) -> None:
    """Check that a run can be resumed with another length, and log what changes with it.

    Args:
        folder: the experiment's folder, opened.
        experiment: the new settings.
        sizes: training size of each epoch in the new settings.
        history: the epochs done.
        is_stopped_early: whether early stopping, with the new settings, ends the run here.

    Raises:
        TrainingError: the run was trained for longer or at other sizes, or would stop early at once.
    """
    path, recipe, fit = folder.path, experiment.recipe, experiment.fit
    done, epochs = len(history), fit.last_epoch
    if done > epochs:
        name = "fit.epochs" if epochs == fit.epochs else "fit.stop_after"
        raise TrainingError(f"{path}: has trained for {plural(done, 'epoch')} already; set {name} to more")
    for epoch, (height, width) in zip(history, sizes, strict=False):
        if epoch.image_size != f"{height}x{width}":
            raise TrainingError(
                f"{path}: epoch {epoch.epoch} was trained at {epoch.image_size}, and would be at {height}x{width} "
                "now; set recipe.stages so that the epochs done stay as they were, or start over with --overwrite"
            )
    if is_stopped_early:
        raise TrainingError(
            f"{path}: early stopping has ended this run after {plural(done, 'epoch')}; to train on, change that "
            f"too, for example with --set fit.callbacks.early_stopping.patience={epochs}"
        )
    log.info("%s: trained for %s so far, resuming until %d", path, plural(done, "epoch"), epochs)
    if not folder.rescheduled:
        return
    if history and (recipe.schedule != "constant" or done < recipe.warmup_share * fit.epochs):
        log.warning(
            "the %s schedule is computed for %s now: the learning rate resumes from its value there, not from "
            "%.3g, where it was",
            *(recipe.schedule, plural(fit.epochs, "epoch"), history[-1].learning_rate),
        )
    if recipe.plain_epochs:
        log.warning("recipe.plain_epochs: the last %s of the new length", plural(recipe.plain_epochs, "epoch"))
