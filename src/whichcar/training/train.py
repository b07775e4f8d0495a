"""The training loop: one step at a time, so that it can be stopped and taken up again between any two."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from whichcar.config.experiment import Experiment
from whichcar.config.load import read_experiment
from whichcar.data.labels import renamed
from whichcar.detection.crop import read_record
from whichcar.errors import Interrupted, TrainingError, WhichcarError
from whichcar.files import is_disk_full
from whichcar.metrics import Score
from whichcar.progress import Bar
from whichcar.text import nfc, plural, shell_command
from whichcar.training.feature_cache import on_features
from whichcar.training.hardware import Hardware, is_out_of_memory, make_deterministic, prepare
from whichcar.training.memory import out_of_memory
from whichcar.training.network.models import Size, TrainingModels
from whichcar.training.network.optimizer import rate_share
from whichcar.training.remarks import disk_needed, remarks
from whichcar.training.run.checkpoint import Metadata, read_best
from whichcar.training.run.checkpointing import CheckpointManager
from whichcar.training.run.folder import ExperimentFolder, config_in, versions
from whichcar.training.run.history import (
    HISTORY,
    Epoch,
    EventLog,
    check_packages,
    draw_curves,
    epoch_line,
    read_history,
    undamaged_history,
    write_history,
)
from whichcar.training.run.monitor import MetricMonitor, rate_after
from whichcar.training.run.overwriting import BEST
from whichcar.training.run.signals import graceful_shutdown
from whichcar.training.run.state import load_state, save_state
from whichcar.training.setup import TrainingData, build_models, load_data, make_batches, sizes_of
from whichcar.training.tracking.tracker import Tracking, tracking_of
from whichcar.training.validation import score_sizes, validate
from whichcar.training.weights import check_weights

log = logging.getLogger(__name__)
# An epoch's end is a good place to resume from, but a state is 300 MB: short epochs share one.
EPOCH_SECONDS = 30.0
TIMED_STEPS, TIMED_SECONDS = 5, 1.0  # one of them is needed for a rate that says something
CURVES_SECONDS = 10.0  # between two drawings of the curves


@dataclass(frozen=True)
class Trained:
    """What a training run left. `best` is the content of best.json: the checkpoint that evaluation uses."""

    folder: Path
    checkpoint: Path
    best: dict[str, Any]
    history: tuple[Epoch, ...]


@dataclass
class Progress:
    """How far a run is. Sums and `seen`, `timed` (images) are of the current epoch; `seconds` of the whole run."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    seen: int = 0
    timed: int = 0
    timed_seconds: float = 0.0
    seconds: float = 0.0
    rate_factor: float = 1.0


def train(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    track: str | None = None,
) -> Trained:
    """Train as a config says, into its experiment's folder; a finished run is left as it is.

    Args:
        config_path: the experiment's `config.yml`, or its folder.
        overrides: one-off settings such as `fit.epochs=3`.
        resume: resume from the last saved state, if there is one; with another `fit.epochs` (or stages, or early
            stopping) a run, also a finished one, is trained for that long.
        overwrite: start over in a folder that holds a run, which is deleted once the new one has a checkpoint.
        track: the tracking service that the run is logged to as well, such as `mlflow`.

    Raises:
        ConfigError, DataError, CheckpointError: a setting, the images or the given weights are not usable.
        TrackingError: the tracking service refuses; one that is down is waited for instead.
        TrainingError: the folder is another run's, the loss is not a number, memory or disk is used up.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    if resume and overwrite:
        raise TrainingError("resume and overwrite exclude each other: resume resumes a run, overwrite replaces it")
    config_path = config_in(Path(config_path))
    experiment = read_experiment(config_path, overrides)
    folder, run = ExperimentFolder(config_path, experiment), None
    try:
        going_on = folder.open(resume, overwrite)
        tracking = tracking_of(track, folder.path, new_run=overwrite)
        if folder.finished:
            with tracking.training(folder.path):
                return _trained_before(folder, overrides)
        run = _prepare(experiment, folder, going_on, tracking)
        if overwrite:
            folder.set_aside()
        with tracking.training(folder.path):
            return run.train()
    except (Interrupted, KeyboardInterrupt) as error:
        if folder.is_replacing or (overwrite and run is None):
            raise Interrupted(f"{folder.path}: stopped before the first checkpoint", saved=False) from error
        if isinstance(error, KeyboardInterrupt):  # before the first step, or a second signal while saving
            kept = "nothing was saved yet" if run is None or not run.saved else f"kept is what was saved {run.saved}"
            raise Interrupted(f"{folder.path}: stopped at once; {kept}") from error
        raise
    except Exception as error:
        if not isinstance(error, WhichcarError) and is_out_of_memory(error):
            raise out_of_memory(config_path, experiment, overrides, track) from error
        if isinstance(error, OSError) and is_disk_full(error):
            again = "start it again" if folder.is_replacing else "resume with --resume"
            raise TrainingError(
                f"{folder.path}: the disk is full; what was saved is untouched: make room and {again}"
            ) from error
        raise
    finally:
        folder.close()


def _prepare(experiment: Experiment, folder: ExperimentFolder, going_on: bool, tracking: Tracking) -> Run:
    """Do all that may fail before the first step, and leave the folder as it is."""
    check_packages()
    check_weights(experiment.model.weights)
    data = load_data(experiment)
    hardware = prepare(experiment.hardware.precision)
    import keras

    keras.utils.set_random_seed(experiment.seed)
    if experiment.hardware.exact:
        make_deterministic()
    if experiment.recipe.cached_features:
        data, models = on_features(experiment, hardware, data)
    else:
        models = build_models(experiment, hardware, data.tree.class_names)
    run = Run(experiment, folder, hardware, data, models, tracking)
    if going_on:
        run.restore()
    return run


class Run:
    """One training run in memory."""

    def __init__(
        self,
        experiment: Experiment,
        folder: ExperimentFolder,
        hardware: Hardware,
        data: TrainingData,
        models: TrainingModels,
        tracking: Tracking,
    ) -> None:
        self.experiment, self.folder, self.hardware = experiment, folder, hardware
        self.data, self.models, self.tracking = data, models, tracking
        self.sizes = sizes_of(experiment)
        self.batches = make_batches(experiment, data)
        self.progress = Progress()
        self.history: list[Epoch] = []
        self.saved = ""  # where the run was when its state was saved last
        self._saved = self._began = time.monotonic()
        self._drawn = -math.inf
        self._compiled_for: Size | None = None  # the size of the last step, if this process has taken one
        callbacks = experiment.fit.callbacks
        self.checkpoints = CheckpointManager(folder, callbacks.model_checkpoint, models, self._about())
        stopping, plateau = callbacks.early_stopping, callbacks.reduce_on_plateau
        self.stopping = MetricMonitor(stopping.monitor, stopping.mode, stopping.min_delta) if stopping else None
        self.plateau = MetricMonitor(plateau.monitor, plateau.mode, plateau.min_delta) if plateau else None
        self.rate = experiment.compile.optimizer.chosen.learning_rate

    def train(self) -> Trained:
        """Train to the end, or until a signal asks to stop."""
        self._began = time.monotonic() - self.progress.seconds
        for remark in remarks(self.experiment, self._updates()):
            log.warning("%s", remark)
        log.info("%s", disk_needed(self.experiment, self.models))
        self._describe(finished=False)
        self._mend_history()
        self.tracking.begin(self.history)
        histograms = self.experiment.fit.callbacks.tensor_board.histogram_freq
        events = EventLog(self.folder.logs, histograms, self.progress.epoch)
        try:
            with graceful_shutdown() as stop:
                while self.progress.epoch < len(self.sizes) and not self._stopped_early():
                    self._one_epoch(stop, events)
                # What the last epoch left is what an extended run resumes from; the best weights are loaded next.
                self.save()
                self._settle_size()
        finally:
            events.close()
            self.checkpoints.write()
        self._draw()
        self._describe(finished=True)
        return _trained(self.folder)

    def _mend_history(self) -> None:
        """Write the history of a resumed run again where the file is damaged, and say so: the state has it too."""
        path = self.folder.path / HISTORY
        damage = undamaged_history(path)[1] if self.history else ""
        if damage:
            log.warning("%s: damaged (%s); it is written again from the saved state", path, damage)
            write_history(path, self.history)

    def save(self) -> None:
        """Write the state, and the checkpoint it names."""
        self.checkpoints.write()
        record = {
            "images": self.data.images.key,
            "progress": asdict(self.progress),
            "history": [asdict(epoch) for epoch in self.history],
            "checkpoints": self.checkpoints.state(),
            "plateau": self.plateau.state() if self.plateau else None,
        }
        save_state(self.folder.state, self.models.state_variables(), record)
        self._saved, self.saved = time.monotonic(), self._place()

    def _place(self) -> str:
        progress = self.progress
        return (
            f"in epoch {progress.epoch + 1}, batch {progress.step}"
            if progress.step
            else f"after epoch {progress.epoch}"
        )

    def _save_after(self, seconds: float) -> None:
        """Write the state if the last one is older than this."""
        if time.monotonic() - self._saved > seconds:
            self.save()

    def restore(self) -> None:
        """Resume from the saved state."""
        known = list(map(nfc, self.folder.class_folders))
        if changes := renamed(known, self.data.tree.class_folders) if known else "":
            raise TrainingError(
                f"{self.folder.path}: the class folders of {self.experiment.data.directory} changed since this run was "
                f"stopped ({changes}); put the old names back, or start over with --overwrite"
            )
        record = load_state(self.folder.state, self.models.state_variables())
        if record["images"] != self.data.images.key:
            raise TrainingError(
                f"{self.folder.path}: the images of {self.experiment.data.directory} changed since this run was "
                "stopped; put them back, or start over with --overwrite"
            )
        self.progress = Progress(**record["progress"])
        self.saved = self._place()
        self.history = [Epoch(**row) for row in record["history"]]
        self.checkpoints.restore(record["checkpoints"])
        if self.plateau:
            self.plateau.restore(record["plateau"])
        if self.stopping:
            for epoch in self.history:  # early stopping may be another one than before
                self.stopping.improved(asdict(epoch))
        if self.folder.changed:
            self._check_length()

    def _check_length(self) -> None:
        """Raise where a run cannot take up another length; tell what changes with it.

        Raises:
            TrainingError: it has trained for longer, was trained at other sizes, or would stop early at once.
        """
        done, epochs, path, recipe = self.progress.epoch, len(self.sizes), self.folder.path, self.experiment.recipe
        if done > epochs:
            raise TrainingError(f"{path}: has trained for {plural(done, 'epoch')} already; set fit.epochs to more")
        for epoch, (height, width) in zip(self.history, self.sizes, strict=False):
            if epoch.image_size != f"{height}x{width}":
                raise TrainingError(
                    f"{path}: epoch {epoch.epoch} was trained at {epoch.image_size}, and would be at {height}x{width} "
                    "now; set recipe.stages so that the epochs done stay as they were, or start over with --overwrite"
                )
        if self._stopped_early():
            raise TrainingError(
                f"{path}: early stopping has ended this run after {plural(done, 'epoch')}; to train on, change that "
                "too, for example with --set fit.callbacks.early_stopping=null"
            )
        log.info("%s: trained for %s so far, going on to %d", path, plural(done, "epoch"), epochs)
        if recipe.schedule != "constant" and self.history:
            log.warning(
                "the %s schedule is computed for %s now: the learning rate resumes from its value there, not from "
                "%.3g, where it was",
                *(recipe.schedule, plural(epochs, "epoch"), self.history[-1].learning_rate),
            )
        if recipe.plain_epochs:
            log.warning("recipe.plain_epochs: the last %s of the new length", plural(recipe.plain_epochs, "epoch"))

    def _one_epoch(self, stop: threading.Event, events: EventLog) -> None:
        progress, batch_size = self.progress, min(self.experiment.data.batch_size, len(self.data.train_rows))
        train_size = self.sizes[progress.epoch]
        size = train_size if self.experiment.recipe.stages else self.experiment.data.image_size
        plain = progress.epoch >= len(self.sizes) - self.experiment.recipe.plain_epochs
        label = f"epoch {progress.epoch + 1}/{len(self.sizes)} at {train_size[0]}x{train_size[1]}"
        with Bar(label, len(self.batches) * batch_size, "images", stays=False) as bar:
            bar.update(progress.step * batch_size)
            for images, labels in self.batches.epoch(progress.epoch, progress.step, plain):
                self._step(images, labels)
                loss, accuracy = progress.loss_sum / progress.seen, progress.correct / progress.seen
                bar.update(len(images), loss=loss, accuracy=accuracy)
                progress.seconds = self._elapsed()
                if stop.is_set():
                    self.save()
                    raise Interrupted(f"{self.folder.path}: stopped in epoch {progress.epoch + 1}; everything is saved")
                self._save_after(60 * self.experiment.hardware.save_minutes)
        score = self._validate(size)
        self._end_epoch(score, size, events)

    def _elapsed(self) -> float:
        """Seconds of training so far, by the clock on the wall; those before a stop count too."""
        return time.monotonic() - self._began

    def _step(self, images: np.ndarray, labels: np.ndarray) -> None:
        progress, recipe = self.progress, self.experiment.recipe
        step = progress.epoch * len(self.batches) + progress.step
        share = rate_share(step // recipe.gradient_accumulation, self._updates(), recipe)
        self.models.optimizer.learning_rate = self.rate * share * progress.rate_factor
        start = time.monotonic()
        loss, accuracy = self.models.train_on_batch(images, labels, self.sizes[progress.epoch])
        if not math.isfinite(loss):
            raise TrainingError(
                f"{self.folder.path}: the loss became {loss} in epoch {progress.epoch + 1}, batch {progress.step + 1}; "
                f"lower the learning rate ({self.rate:g}) or warm up for longer, and start again with --overwrite"
            )
        if self._compiled_for == self.sizes[progress.epoch]:
            progress.timed += len(images)
            progress.timed_seconds += time.monotonic() - start
        self._compiled_for = self.sizes[progress.epoch]
        progress.loss_sum += loss * len(images)
        progress.correct += accuracy * len(images)
        progress.seen += len(images)
        progress.step += 1

    def _updates(self) -> int:
        """Optimizer updates of the whole run."""
        return -(-len(self.sizes) * len(self.batches) // self.experiment.recipe.gradient_accumulation)

    def _validate(self, size: Size) -> Score:
        """Score the weights that would be saved."""
        with self.models.averaged():
            return validate(self.models, self.data, self.experiment.data.batch_size, size)

    def _end_epoch(self, score: Score, size: Size, events: EventLog) -> None:
        progress = self.progress
        epoch = Epoch(
            epoch=progress.epoch + 1,
            loss=progress.loss_sum / progress.seen,
            accuracy=progress.correct / progress.seen,
            val_loss=score.loss,
            val_accuracy=score.accuracy,
            learning_rate=float(self.models.optimizer.learning_rate),
            image_size="x".join(map(str, self.sizes[progress.epoch])),
            images_per_second=self._rate(),
            seconds=math.nan,
            checkpoint="",
        )
        epoch = self.checkpoints.keep(epoch, size)
        progress.seconds = self._elapsed()  # with the checkpoint; the state is written in the next epoch's time
        epoch = replace(epoch, seconds=progress.seconds)
        self.history.append(epoch)
        log.info("%s", epoch_line(self.history, self.sizes))
        self._look(epoch)
        self.progress = Progress(epoch.epoch, seconds=progress.seconds, rate_factor=progress.rate_factor)
        self._save_after(min(EPOCH_SECONDS, 60 * self.experiment.hardware.save_minutes))
        write_history(self.folder.path / HISTORY, self.history)
        if time.monotonic() - self._drawn > CURVES_SECONDS:
            self._draw()
        events.add(epoch, self.models.train_model)
        self.tracking.epochs(self.history)

    def _rate(self) -> float:
        """Return the images per second of this epoch's training steps; NaN where too little was timed to tell."""
        progress = self.progress
        steps = progress.timed / min(self.experiment.data.batch_size, len(self.data.train_rows))
        is_enough = steps >= TIMED_STEPS or progress.timed_seconds >= TIMED_SECONDS
        return progress.timed / progress.timed_seconds if is_enough else math.nan

    def _draw(self) -> None:
        draw_curves(self.folder.path / "curves.png", self.history, self.folder.path.name)
        self._drawn = time.monotonic()

    def _look(self, epoch: Epoch) -> None:
        """Count epochs without improvement and lower the rate where that is asked for."""
        if self.stopping:
            self.stopping.improved(asdict(epoch))
        settings = self.experiment.fit.callbacks.reduce_on_plateau
        if not (self.plateau and settings):
            return
        self.plateau.improved(asdict(epoch))
        progress = self.progress
        progress.rate_factor = rate_after(self.plateau, settings, self.rate * progress.rate_factor) / self.rate

    def _stopped_early(self) -> bool:
        settings = self.experiment.fit.callbacks.early_stopping
        return bool(self.stopping and settings and self.history and self.stopping.has_waited(settings.patience))

    def _settle_size(self) -> None:
        sizes = self.experiment.recipe.test_sizes
        if not sizes or not len(self.data.validation_classes):
            return
        self.checkpoints.load_best()
        height, width = self.checkpoints.best["image_size"]
        batch_size = self.experiment.data.batch_size
        self.checkpoints.settle_size(score_sizes(self.models, self.data, batch_size, [(height, width), *sizes]))

    def _about(self) -> Metadata:
        tree, settings = self.data.tree, self.experiment.model_dump(mode="json")
        size, cut = self.experiment.data.image_size, read_record(tree.root)
        return Metadata(
            tree.class_names,
            tree.class_folders,
            size,
            versions(),
            settings,
            str(tree.root.resolve()),
            cut,
            tree.fingerprints,
            None if tree.drawn is None else tuple(sorted(tree.drawn)),
        )

    def _describe(self, finished: bool) -> None:
        tree, data = self.data.tree, self.data
        about = {
            "class_names": tree.class_names,
            "class_folders": tree.class_folders,
            "data_root": str(tree.root.resolve()),
            "train_images": len(data.train_rows),
            "validation_images": len(data.validation_classes),
            "left_out": [skipped.reason for skipped in data.images.skipped],
        }
        self.folder.describe(self.hardware, about, finished)


def _trained_before(folder: ExperimentFolder, overrides: Sequence[str]) -> Trained:
    """Return what a finished run has left, and tell that there is nothing to do and what else could be done."""
    trained = _trained(folder)
    done = len(trained.history)
    others = [text for text in overrides if not text.replace(" ", "").startswith("fit.epochs=")]
    words = [word for text in (*others, f"fit.epochs={2 * done}") for word in ("--set", text)]
    longer = shell_command(["whichcar", "train", folder.config_path, "--resume", *words])
    log.info(
        "%s: already trained for %s: nothing to do; %sstart over with --overwrite",
        *(folder.path, plural(done, "epoch"), f"train on with: {longer}, or " if folder.state.exists() else ""),
    )
    return trained


def _trained(folder: ExperimentFolder) -> Trained:
    best = read_best(folder.path)
    if best is None:
        raise TrainingError(f"{folder.path / BEST}: is missing; put it back, or start over with --overwrite")
    return Trained(folder.path, folder.path / best["checkpoint"], best, read_history(folder.path / HISTORY))
