"""Training an experiment: opening its folder, starting or resuming its run, and reporting how it ended."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whichcar.config.experiment import Experiment
from whichcar.config.load import config_in, read_experiment
from whichcar.data.split.tree import check_outside
from whichcar.environment import expanded
from whichcar.errors import Interrupted, TrainingError, WhichcarError
from whichcar.files import BEST, DISK_FULL, HISTORY, checksum, is_disk_full
from whichcar.text import plural, shell_command
from whichcar.training.feature_cache import on_features
from whichcar.training.hardware import is_out_of_memory, prepare
from whichcar.training.hosts import agree, are_several
from whichcar.training.loop import Run
from whichcar.training.memory import out_of_memory
from whichcar.training.run.checkpoint import read_best
from whichcar.training.run.folder import ExperimentFolder
from whichcar.training.run.history import Epoch, check_packages, read_history
from whichcar.training.setup import build_models, load_data, load_tree
from whichcar.training.sizes import sizes_of
from whichcar.training.tracking import Tracking, tracking_of
from whichcar.training.weights import check_weights, plain_model
from whichcar.version import VERSION

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """The results of a training run.

    `best` is the content of best.json: the checkpoint that evaluation uses. `asked_to_stop`: Ctrl-C, SIGTERM or SIGHUP
    came when only the end of the training was left, which was completed.
    """

    folder: Path
    checkpoint: Path
    best: dict[str, Any]
    history: tuple[Epoch, ...]
    asked_to_stop: bool = False


def train(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    track: str | None = None,
    then_refit: bool = False,
) -> Trained:
    """Train an experiment in its folder with the settings of its config; a finished run is left unchanged.

    Args:
        config_path: the experiment's `config.yml`, or its folder.
        overrides: one-off settings such as `fit.epochs=3`.
        resume: resume from the last saved state, if there is one. With another `fit.epochs` (or stages, or early
            stopping), a run is trained to that length, even if it was finished.
        overwrite: start over in a folder that holds a run, which is deleted once the new one has a checkpoint.
        track: the tracking service to log the run to as well, such as `mlflow`.
        then_refit: a refit follows, so that there is something to do after a finished run.

    Raises:
        ConfigError, DataError, CheckpointError: a setting, the images or the given weights are not usable.
        TrackingError: the tracking service refuses; one that is down is tried again later instead.
        TrainingError: the folder holds another run, the loss is not finite, or memory or disk space ran out.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the state is saved.
    """
    if resume and overwrite:
        raise TrainingError("resume and overwrite exclude each other: resume resumes a run, overwrite replaces it")
    config_path = config_in(Path(config_path))
    experiment = read_experiment(config_path, overrides)
    folder, run = ExperimentFolder(config_path, experiment), None
    try:
        check_outside(folder.path, expanded(experiment.data.directory))
        is_resumed = folder.open(resume, overwrite)
        tracking = tracking_of(track, folder.path, new_run=overwrite)
        if folder.finished:
            with tracking.training():
                return _trained_before(folder, overrides, experiment, then_refit)
        run = _prepare(experiment, folder, is_resumed, tracking)
        if overwrite:
            folder.set_aside()
        with tracking.training():
            run.train()
        return replace(trained_in(folder.path), asked_to_stop=run.asked_to_stop)
    except (Interrupted, KeyboardInterrupt) as error:
        if folder.is_replacing or (overwrite and run is None):
            raise Interrupted(f"{folder.path}: stopped before the first checkpoint", saved=False) from error
        if isinstance(error, KeyboardInterrupt):  # before the first step, or a second signal while saving
            if run is not None and run.saved:
                kept = f"the last state was saved {run.saved}"
            else:
                kept = "it resumes from the last saved state" if folder.state.exists() else "nothing has been saved yet"
            raise Interrupted(f"{folder.path}: stopped at once; {kept}") from error
        raise
    except Exception as error:
        if not isinstance(error, WhichcarError) and is_out_of_memory(error):
            saved = folder.state.exists() and not folder.is_replacing and not (overwrite and run is None)
            raise out_of_memory(config_path, experiment, overrides, track, saved) from error
        if isinstance(error, OSError) and is_disk_full(error):
            again = "start it again" if folder.is_replacing else "resume with --resume"
            raise TrainingError(
                f"{folder.path}: {DISK_FULL}; what was saved is untouched: make room and {again}"
            ) from error
        raise
    finally:
        folder.close()


def _prepare(experiment: Experiment, folder: ExperimentFolder, is_resumed: bool, tracking: Tracking) -> Run:
    """Do everything that may fail before the first step, without changing the folder."""
    check_packages()
    check_weights(experiment.model.weights)
    sizes = sizes_of(experiment.data, experiment.recipe, experiment.fit.epochs)
    tree = load_tree(experiment.data, experiment.model.classes, experiment.seed)
    wanted = experiment.hardware
    hardware = prepare(
        wanted.precision, devices=wanted.devices, batch_size=experiment.data.batch_size, exact=wanted.exact
    )
    import keras

    from whichcar.training.network.co_tuning import relate

    if are_several():
        settings = experiment.model_dump(exclude={"hardware", "refit_of"})
        weights = expanded(experiment.model.weights or "")
        blake2b = checksum(weights) if weights.is_file() else ""
        agree(f"{VERSION} {settings} {blake2b} {tree.fingerprints} {hardware.precision}", "settings, images or weights")
        agree(f"{is_resumed}", "saved state")
    keras.utils.set_random_seed(experiment.seed)
    # Build the network first, so that errors in it or in its weights are found before images are decoded.
    if experiment.recipe.cached_features:
        if are_several():
            raise TrainingError("recipe.cached_features: such a head trains on one host; leave out --hosts")
        plain = plain_model(experiment.model, experiment.data.image_size, tree.class_names)
        data = load_data(tree, sizes, experiment.data.held_out_share)
        data, models = on_features(experiment, hardware, data, plain)
    else:
        models = build_models(experiment, hardware, tree.class_names)
        data = load_data(tree, sizes, experiment.data.held_out_share)
        if not is_resumed:
            relate(models, data.images, data.train_rows, data.train_classes, sizes.train[0])
    run = Run(experiment, folder, hardware, sizes, data, models, tracking)
    if is_resumed:
        run.restore()
    agree(f"{run.progress}", "saved state")
    return run


def _trained_before(
    folder: ExperimentFolder, overrides: Sequence[str], experiment: Experiment, then_refit: bool
) -> Trained:
    """Return the results of a finished run, and log that it is; unless a refit follows, also what could be done."""
    trained = trained_in(folder.path)
    done = len(trained.history)
    if then_refit:
        log.info("%s: already trained for %s", folder.path, plural(done, "epoch"))
        return trained
    # With stages, another number of epochs would rescale those done; a run that ended sooner was ended by another
    # setting.
    is_extensible = folder.state.exists() and done == experiment.fit.epochs and not experiment.recipe.stages
    others = [text for text in overrides if not text.replace(" ", "").startswith("fit.epochs=")]
    words = [word for text in (*others, f"fit.epochs={2 * done}") for word in ("--set", text)]
    longer = shell_command(["whichcar", "train", folder.config_path, "--resume", *words])
    log.info(
        "%s: already trained for %s: nothing to do; %sstart over with --overwrite",
        *(folder.path, plural(done, "epoch"), f"train on with: {longer}, or " if is_extensible else ""),
    )
    return trained


def trained_in(folder: Path) -> Trained:
    """Return the results of the finished run in a folder."""
    best = read_best(folder)
    if best is None:
        raise TrainingError(f"{folder / BEST}: is missing; put it back, or start over with --overwrite")
    return Trained(folder, folder / best["checkpoint"], best, read_history(folder / HISTORY))
