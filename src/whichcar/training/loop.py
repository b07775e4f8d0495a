"""The training loop: one step at a time, so that it can be stopped between any two and resumed there."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import asdict, replace
from typing import NamedTuple, NoReturn, SupportsFloat

import numpy as np

from whichcar.config.experiment import Experiment
from whichcar.errors import Interrupted, TrainingError
from whichcar.files import CURVES, HISTORY
from whichcar.metrics import Score
from whichcar.progress import Bar
from whichcar.text import plural
from whichcar.training.hardware import Hardware
from whichcar.training.hosts import are_to_stop
from whichcar.training.network.models import Size, TrainingModels
from whichcar.training.network.optimizer import rate_factor, rate_share
from whichcar.training.remarks import disk_needed, remarks
from whichcar.training.resuming import check_class_folders, check_length
from whichcar.training.run.checkpointing import CheckpointManager
from whichcar.training.run.folder import ExperimentFolder
from whichcar.training.run.history import Epoch, EventLog, draw_curves, epoch_line, write_history
from whichcar.training.run.monitor import MetricMonitor, rate_after
from whichcar.training.run.progress import Progress
from whichcar.training.run.signals import graceful_shutdown
from whichcar.training.run.state import load_state, save_state
from whichcar.training.setup import TrainingData, make_batches, metadata_of, record_of
from whichcar.training.sizes import Sizes
from whichcar.training.tracking import Tracking
from whichcar.training.validation import settle, validate

log = logging.getLogger(__name__)
# The end of an epoch is a good point to resume from, but a state is 300 MB, so not every short epoch saves one.
EPOCH_SECONDS = 30.0
CURVES_SECONDS = 10.0  # between two drawings of the curves
STOPPING = "stopping after this step or validation; Ctrl-C again stops at once"


class Taken(NamedTuple):
    """A step that may still be running. `number` counts the epoch's steps from 1; `is_timed`: it compiled nothing."""

    loss: SupportsFloat
    accuracy: SupportsFloat
    images: int
    number: int
    is_timed: bool


class Run:
    """One training run in memory."""

    def __init__(
        self,
        experiment: Experiment,
        folder: ExperimentFolder,
        hardware: Hardware,
        sizes: Sizes,
        data: TrainingData,
        models: TrainingModels,
        tracking: Tracking,
    ) -> None:
        self.experiment, self.folder, self.hardware = experiment, folder, hardware
        self.data, self.models, self.tracking = data, models, tracking
        self.sizes = sizes
        self.epochs = experiment.fit.last_epoch
        self.batches = make_batches(data, experiment.data, experiment.recipe, experiment.seed)
        self.batch_size = min(experiment.data.batch_size, len(data.train_rows))
        self.progress = Progress()
        self.history: list[Epoch] = []
        self.saved = ""  # where the run was when its state was last saved
        self.asked_to_stop = False  # after `train`: whether a signal came too late to stop it
        self._saved = self._began = self._drawn = time.monotonic()
        self._compiled_for: Size | None = None  # the size of the last step, if this process has taken one
        self._taken: Taken | None = None  # the step whose results have not been read yet
        self._read = self._began  # when the results of a step were last read, or could have been
        callbacks = experiment.fit.callbacks
        metadata = metadata_of(experiment, data)
        self._fingerprint = metadata.fingerprints["train"]
        self.checkpoints = CheckpointManager(folder, callbacks.model_checkpoint, models, metadata)
        stopping, plateau = callbacks.early_stopping, callbacks.reduce_on_plateau
        self.stopping = MetricMonitor(stopping.monitor, stopping.mode, stopping.min_delta) if stopping else None
        self.plateau = MetricMonitor(plateau.monitor, plateau.mode, plateau.min_delta) if plateau else None
        self.rate = experiment.compile.optimizer.chosen.learning_rate

    def train(self) -> None:
        """Train to the end, or until a signal asks to stop."""
        self._began = time.monotonic() - self.progress.seconds
        batches, accumulated = self.epochs * len(self.batches), self.experiment.recipe.gradient_accumulation
        if batches < accumulated:
            raise TrainingError(
                f"{self.folder.path}: recipe.gradient_accumulation is {accumulated}, but the run has "
                f"{plural(batches, 'batch', 'batches')}, so that the network would never be updated; lower it"
            )
        for remark in remarks(self.experiment, len(self.data.train_rows), self._updates()):
            log.warning("%s", remark)
        log.info("%s", disk_needed(self.experiment, self.models))
        self._describe(finished=False)
        if self.history:  # a run killed after saving its state may have left a table that lacks epochs
            write_history(self.folder.path / HISTORY, self.history)
        self.tracking.begin(self.history)
        histograms = self.experiment.fit.callbacks.tensor_board.histogram_freq
        events = EventLog(self.folder.logs, histograms, self.progress.epoch)
        try:
            with graceful_shutdown(STOPPING) as stop:
                while not self._is_done():
                    self._one_epoch(stop, events)
                    if not self._is_done() and are_to_stop(stop.is_set(), 1):
                        self._stop(self.progress.epoch)
                # Save the last epoch's state, which an extended run resumes from, before the best weights are loaded.
                self.save()
                self._settle()
                self.asked_to_stop = are_to_stop(stop.is_set(), 1)
        finally:
            events.close()
            self.checkpoints.write()
        self._draw()
        self._describe(finished=True)

    def save(self) -> None:
        """Write the state, and the checkpoint it names."""
        self._read_results()
        self.checkpoints.write()
        record = {
            "images": self.data.images.key,
            "fingerprint": self._fingerprint,
            "cache_size": list(self.sizes.cache),
            "progress": asdict(self.progress),
            "history": [asdict(epoch) for epoch in self.history],
            "checkpoints": self.checkpoints.state(),
            "plateau": self.plateau.state() if self.plateau else None,
        }
        save_state(self.folder.state, self.models.state_variables(), record)
        self._saved, self.saved = time.monotonic(), str(self.progress)

    def _save_after(self, seconds: float) -> None:
        """Write the state if the last one is older than `seconds`."""
        if time.monotonic() - self._saved > seconds:
            self.save()

    def restore(self) -> None:
        """Resume from the saved state.

        Raises:
            TrainingError: the state is damaged, or does not match the images or the new settings.
        """
        directory = self.experiment.data.directory
        check_class_folders(self.folder, self.data.tree, directory)
        record = load_state(self.folder.state, self.models.state_variables())
        is_same = record.get("fingerprint", self._fingerprint) == self._fingerprint  # earlier versions saved none
        size = list(self.sizes.cache)  # larger if a larger stage was added, which changes the key
        if not is_same or (record["cache_size"] == size and record["images"] != self.data.images.key):
            raise TrainingError(
                f"{self.folder.path}: the images of {directory} changed since this run was stopped; put them back, or "
                "start over with --overwrite"
            )
        self.progress = Progress(**record["progress"])
        self.saved = str(self.progress)
        self.history = [Epoch(**row) for row in record["history"]]
        self.checkpoints.restore(record["checkpoints"])
        if self.plateau:
            self.plateau.restore(record["plateau"])
        if self.stopping:
            for epoch in self.history:  # the settings of early stopping may have changed
                self.stopping.improved(asdict(epoch))
        if self.folder.changed:
            check_length(self.folder, self.experiment, self.sizes.train, self.history, self._stopped_early())

    def _one_epoch(self, stop: threading.Event, events: EventLog) -> None:
        progress, epochs = self.progress, len(self.sizes.train)
        height, width = self.sizes.train[progress.epoch]
        plain = progress.epoch >= epochs - self.experiment.recipe.plain_epochs
        label = f"epoch {progress.epoch + 1}/{self.epochs} at {height}x{width}"
        done = progress.step * self.batch_size
        with Bar(label, len(self.batches) * self.batch_size, "images", stays=False, done=done) as bar:
            for images, labels in self.batches.epoch(progress.epoch, progress.step, plain):
                self._step(images, labels)
                bar.update(len(images), **progress.shown)
                progress.seconds = self._elapsed()
                if are_to_stop(stop.is_set(), progress.step):
                    self._stop(progress.epoch + 1)
                self._save_after(60 * self.experiment.hardware.save_minutes)
            self._read_results()
        size = self.sizes.validation[progress.epoch]
        with self.models.averaged():
            score = validate(self.models, self.data, self.experiment.data.batch_size, size)
        self._end_epoch(score, size, events)

    def _stop(self, epoch: int) -> NoReturn:
        self.save()
        raise Interrupted(f"{self.folder.path}: stopped in epoch {epoch}; everything is saved")

    def _is_done(self) -> bool:
        return self.progress.epoch >= self.epochs or self._stopped_early()

    def _elapsed(self) -> float:
        """Return the wall-clock seconds of training so far, including those before a stop."""
        return time.monotonic() - self._began

    def _step(self, images: np.ndarray, labels: np.ndarray) -> None:
        progress, size = self.progress, self.sizes.train[self.progress.epoch]
        if self._taken is None:
            self._read = time.monotonic()
        results = self.models.train_on_batch(images, labels, size, self._rate_of(progress.step))
        progress.step += 1
        # One step late, so that a GPU already has its next step while this process waits for the results of the last.
        self._read_results()
        self._taken = Taken(*results, len(images), progress.step, is_timed=self._compiled_for == size)
        self._compiled_for = size

    def _rate_of(self, step: int) -> float:
        """Return the learning rate of a step of this epoch, counted from 0."""
        progress, recipe = self.progress, self.experiment.recipe
        update = (progress.epoch * len(self.batches) + step) // recipe.gradient_accumulation
        factor = progress.rate_factor * rate_factor(progress.epoch + 1, recipe)
        return self.rate * rate_share(update, self._updates(), recipe) * factor

    def _read_results(self) -> None:
        """Wait for the last step, unless its results have been read, and add them."""
        taken, self._taken = self._taken, None
        if taken is None:
            return
        progress, loss = self.progress, float(taken.loss)
        if not math.isfinite(loss):
            raise TrainingError(
                f"{self.folder.path}: the loss became {loss} in epoch {progress.epoch + 1}, batch {taken.number}; "
                f"lower the learning rate ({self.rate:g}) or warm up for longer, and start again with --overwrite"
            )
        progress.add(loss, float(taken.accuracy), taken.images)
        now = time.monotonic()
        if taken.is_timed:
            progress.add_time(taken.images, now - self._read)
        self._read = now

    def _updates(self) -> int:
        """Return the number of optimizer updates in the whole run."""
        return len(self.sizes.train) * len(self.batches) // self.experiment.recipe.gradient_accumulation

    def _end_epoch(self, score: Score, size: Size, events: EventLog) -> None:
        progress = self.progress
        epoch = Epoch(
            epoch=progress.epoch + 1,
            loss=progress.loss,
            accuracy=progress.accuracy,
            val_loss=score.loss,
            val_accuracy=score.accuracy,
            learning_rate=self._rate_of(progress.step - 1),
            image_size="x".join(map(str, self.sizes.train[progress.epoch])),
            images_per_second=progress.images_per_second(self.batch_size),
            seconds=math.nan,
            checkpoint="",
        )
        epoch = self.checkpoints.keep(epoch, size)
        progress.seconds = self._elapsed()  # includes the checkpoint; the state counts towards the next epoch
        epoch = replace(epoch, seconds=progress.seconds)
        self.history.append(epoch)
        log.info("%s", epoch_line(self.history, self.sizes.train[: self.epochs]))
        self._monitor(epoch)
        self.progress = progress.next_epoch()
        self._save_after(min(EPOCH_SECONDS, 60 * self.experiment.hardware.save_minutes))
        write_history(self.folder.path / HISTORY, self.history)
        if time.monotonic() - self._drawn > CURVES_SECONDS:
            self._draw()
        events.add(epoch, self.models.train_model)
        self.tracking.epochs(self.history)

    def _draw(self) -> None:
        recipe = self.experiment.recipe
        kinds = {
            "mixed images": recipe.mixup or recipe.cutmix,
            "smoothed labels": recipe.label_smoothing,
            "co-tuning": recipe.co_tuning,
        }
        harder = [kind for kind, used in kinds.items() if used]
        draw_curves(self.folder.path / CURVES, self.history, self.folder.path.name, harder)
        self._drawn = time.monotonic()

    def _monitor(self, epoch: Epoch) -> None:
        """Count epochs without improvement and lower the rate if the settings ask for it."""
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

    def _settle(self) -> None:
        """With the best epoch's weights, recompute moments and choose the size to predict at, if the settings ask."""
        tried = self.sizes.tried if len(self.data.validation_classes) else ()
        if tried or self.experiment.recipe.precise_batch_norm:
            self.checkpoints.load_best()
            height, width = self.checkpoints.best["image_size"]
            sizes = sorted({(height, width), *tried})
            self.checkpoints.settle_size(settle(self.models, self.data, self.experiment, sizes))

    def _describe(self, finished: bool) -> None:
        self.folder.describe(self.hardware, record_of(self.data), finished)
