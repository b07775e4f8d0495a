"""Refitting: after validation has chosen epoch and size, the same training again, including the validation images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from whichcar.config.experiment import Experiment
from whichcar.config.load import config_in, folder_of, lay_over, read_experiment, read_settings
from whichcar.data.split.tree import Tree, read_tree
from whichcar.environment import expanded
from whichcar.errors import DataError, Interrupted, TrainingError
from whichcar.files import CONFIG, REFIT, RESOLVED, checksum, read_json, write_text
from whichcar.text import one_line, plural, shell_command
from whichcar.training.run.checkpoint import read_metadata
from whichcar.training.run.history import Epoch
from whichcar.training.run.monitor import MetricMonitor, rate_after
from whichcar.training.run.overwriting import recover
from whichcar.training.run.refits import current_refit
from whichcar.training.sizes import sizes_of
from whichcar.training.train import Trained, train, trained_in

log = logging.getLogger(__name__)


def refit(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    track: str | None = None,
) -> Trained:
    """Train an experiment, unless it is already trained, and train it again on its training and validation images.

    The refit is a separate experiment in the folder `refit/`. Its `config.yml` has the same settings, except for what
    validation decides, which is taken from the first training: the epoch to stop at (with a cosine schedule that was
    not stopped early, the last one), the epochs at which the learning rate was lowered on a plateau, and the size to
    predict at. A finished refit of the experiment's current checkpoint is left unchanged.

    Args:
        config_path, overrides, track: as for `train`.
        resume: resume whichever of the two trainings was stopped.
        overwrite: start over with both.

    Returns:
        The results of the refit.

    Raises:
        TrainingError: there are no validation images, the images have changed since, the experiment is a refit, or its
            refit is unfinished and not resumed. Also everything that `train` raises.
        Interrupted: as in `train`; also between the two trainings.
    """
    config = config_in(Path(config_path))
    experiment = read_experiment(config, overrides)
    tree = _refittable(config, experiment)
    before = train(config, overrides, resume, overwrite, track, then_refit=True)
    if (done := current_refit(before.folder)) is not None:
        log.info("%s: already trained", done)
        with _with_refit_alone(done):
            return trained_in(done)
    if before.asked_to_stop:
        raise Interrupted(f"{before.folder}: trained; stopped before its refit")
    if read_metadata(before.checkpoint).fingerprints.get("train") != tree.fingerprints["train"]:
        raise TrainingError(
            f"{before.folder}: the training or validation images of {tree.root} have changed since this training; put "
            "them back, or start over with --overwrite"
        )
    changes = dict(_changes(experiment, before))
    settings = read_settings(config, overrides)
    for name, value in changes.items():
        settings = lay_over(settings, name.split("."), value)
    folder = before.folder / REFIT
    recover(folder)  # a kill may have left a stale refit set aside by a run without a checkpoint
    earlier = _earlier(folder)
    is_stale = earlier is not None and earlier["settings"].get("refit_of") != changes["refit_of"]
    if earlier is not None and not (earlier["finished"] or is_stale or resume):
        sets = [word for override in overrides for word in ("--set", override)]
        again = shell_command(["whichcar", "train", config_path, *sets, "--refit", "--resume"])
        raise TrainingError(
            f"{folder}: holds an unfinished refit; resume with: {again}, or start it over with: {_started_over(folder)}"
        )
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    head = f"# {one_line(config)}, trained on the validation images too; written by whichcar train --refit"
    write_text(folder / CONFIG, f"{head}\n{text}")
    log.info(
        "%s: training on %s, those of validation included",
        *(folder, plural(len(tree.train) + len(tree.validation), "image")),
    )
    chosen, epochs = before.best["epoch"], changes.get("fit.stop_after", len(before.history))
    if chosen <= epochs / 2:
        log.warning(
            "validation chose epoch %d of %d, but the refit trains all %d, as the cosine schedule ends there; a run of "
            "fewer epochs (fit.epochs) or a lower learning rate fits better",
            *(chosen, epochs, epochs),
        )
    try:
        with _with_refit_alone(folder):
            return train(folder, (), resume and not is_stale, is_stale, track)
    except Interrupted as error:  # the first training is kept in any case
        raise Interrupted(str(error)) from error


def _refittable(config: Path, experiment: Experiment) -> Tree:
    """Return the images of an experiment, after checking that it can be refitted.

    Raises:
        TrainingError: there are no validation images, or the experiment is a refit.
    """
    if experiment.refit_of is not None:
        command = shell_command(["whichcar", "train", folder_of(config).parent, "--refit"])
        raise TrainingError(f"{config}: is a refit itself; refit the experiment that it lies in with: {command}")
    data = experiment.data
    tree = read_tree(expanded(data.directory), data.validation_split, experiment.seed)
    if data.train_on_validation or not tree.validation:
        raise TrainingError(
            f"{config}: has no validation images to add to the training images, which are all of {tree.root} already; "
            "train without --refit"
        )
    return tree


def _changes(experiment: Experiment, before: Trained) -> Iterator[tuple[str, Any]]:
    """Yield the settings that differ in the refit, by dotted name; None removes a callback."""
    recipe, fit, data = experiment.recipe, experiment.fit, experiment.data
    best, history = before.best, before.history
    yield "refit_of", best.get("blake2b") or checksum(before.checkpoint)
    yield "data.train_on_validation", True
    is_whole = recipe.schedule == "cosine" and len(history) == fit.epochs
    if not is_whole:  # the rate was not lowered to zero: training stops at the epoch that was chosen
        history = history[: best["epoch"]]
        yield "fit.stop_after", best["epoch"]
    files = fit.callbacks.model_checkpoint.filepath, fit.callbacks.tensor_board.log_dir
    name, logs = (Path(file).name for file in files)
    yield "fit.callbacks.model_checkpoint", {"filepath": name.replace("{val_", "{"), "monitor": "epoch", "keep": 1}
    yield "fit.callbacks.tensor_board.log_dir", logs
    yield "fit.callbacks.early_stopping", None
    yield "fit.callbacks.reduce_on_plateau", None
    if factors := _plateau_factors(experiment, history):
        yield "recipe.rate_factors", factors
    if recipe.test_sizes:
        yield "recipe.test_sizes", [best["image_size"]]
        yield "data.cache_size", list(sizes_of(data, recipe, fit.epochs).cache)


def _plateau_factors(experiment: Experiment, history: Sequence[Epoch]) -> list[list[float]]:
    """Return the epochs from which the learning rate was lowered on a plateau, each with its factor."""
    settings, rate = experiment.fit.callbacks.reduce_on_plateau, experiment.compile.optimizer.chosen.learning_rate
    factors: list[list[float]] = []
    if settings is None:
        return factors
    monitor, now = MetricMonitor(settings.monitor, settings.mode, settings.min_delta), rate
    for epoch in history[:-1]:  # not from its learning rates, which a warm-up changes too
        monitor.improved(asdict(epoch))
        before, now = now, rate_after(monitor, settings, now)
        if now < before:
            factors.append([epoch.epoch + 1, float(f"{now / rate:.5g}")])
    return factors


@contextmanager
def _with_refit_alone(folder: Path) -> Iterator[None]:
    """Add a command to an error that advises --overwrite, which with --refit would start the first training over."""
    try:
        yield
    except (DataError, TrainingError) as error:
        if not str(error).endswith("with --overwrite"):
            raise
        raise type(error)(f"{error}: {_started_over(folder)}") from error


def _started_over(folder: Path) -> str:
    """Return the command that starts the refit over, and leaves the first training as it is."""
    return shell_command(["whichcar", "train", folder, "--overwrite"])


def _earlier(folder: Path) -> dict[str, Any] | None:
    """Return the content of resolved.json in the folder of a refit, or None if there is none."""
    path = folder / RESOLVED
    if not path.is_file():
        return None
    return read_json(path, {"finished": bool, "settings": dict}, f"delete {folder}, and run the same command again")
