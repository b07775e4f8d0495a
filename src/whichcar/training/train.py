"""The training loop: one step at a time, so that it can be stopped and taken up again between any two."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from whichcar.config import Experiment
from whichcar.config_file import read_experiment
from whichcar.errors import Interrupted, TrainingError
from whichcar.progress import Bar
from whichcar.training.batches import plain_batches
from whichcar.training.checkpoint import Metadata, save_checkpoint
from whichcar.training.experiment import ExperimentFolder, versions
from whichcar.training.hardware import Hardware, is_out_of_memory, make_deterministic, prepare
from whichcar.training.logs import Epoch, EventLog, draw_curves, write_history
from whichcar.training.optimizer import averaged_weights, rate_share
from whichcar.training.preparation import Network, Pictures, build_network, load_pictures, make_batches, sizes_of
from whichcar.training.state import load_state, save_state
from whichcar.training.watch import Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a training run left. `best` is the content of best.json: the checkpoint that evaluation uses."""

    folder: Path
    checkpoint: Path
    best: dict[str, Any]
    history: tuple[Epoch, ...]


@dataclass
class Progress:
    """How far a run is. Sums are over the pictures of the current epoch."""

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
    config_path: Path, overrides: Sequence[str] = (), resume: bool = False, overwrite: bool = False, exact: bool = False
) -> Trained:
    """Train as a config says, into its experiment's folder; a finished run is left as it is.

    Args:
        config_path: the experiment's `config.yml`.
        overrides: one-off settings such as `fit.epochs=3`.
        resume: go on from the last saved state, if there is one.
        overwrite: start anew in a folder that holds a run.
        exact: ask the backend for the same bits on every run; slower.

    Raises:
        ConfigError, DataError, CheckpointError: a setting, the pictures or the given weights are not usable.
        TrainingError: the folder is another run's, the loss is not a number, memory or disk is used up.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    experiment = read_experiment(config_path, overrides)
    folder = ExperimentFolder(Path(config_path), experiment)
    try:
        going_on = folder.open(resume, overwrite)
        hardware = prepare(experiment.hardware.precision)
        import keras

        keras.utils.set_random_seed(experiment.seed)
        if exact:
            make_deterministic()
        pictures = load_pictures(experiment)
        network = build_network(experiment, hardware, len(pictures.tree.class_folders))
        run = Run(experiment, folder, hardware, pictures, network)
        if going_on:
            run.restore()
        return run.finish() if folder.finished else run.train()
    finally:
        folder.close()


class Run:
    """One training run in memory."""

    def __init__(
        self, experiment: Experiment, folder: ExperimentFolder, hardware: Hardware, pictures: Pictures, network: Network
    ) -> None:
        self.experiment, self.folder, self.hardware = experiment, folder, hardware
        self.pictures, self.network = pictures, network
        self.sizes = sizes_of(experiment)
        self.batches = make_batches(experiment, pictures)
        self.progress, self.history, self.best = Progress(), list[Epoch](), dict[str, Any]()
        callbacks = experiment.fit.callbacks
        saving, stopping, plateau = callbacks.model_checkpoint, callbacks.early_stopping, callbacks.reduce_on_plateau
        self.saving = Watch(saving.monitor, saving.mode)
        self.stopping = Watch(stopping.monitor, stopping.mode, stopping.min_delta) if stopping else None
        self.plateau = Watch(plateau.monitor, plateau.mode, plateau.min_delta) if plateau else None
        optimizer = experiment.compile.optimizer
        self.rate = float(getattr(optimizer, next(iter(optimizer.model_fields_set))).learning_rate)
        self._stop = threading.Event()

    def train(self) -> Trained:
        """Train to the end, or until a signal asks to stop."""
        self._describe(finished=False)
        events = EventLog(
            self.folder.logs, self.experiment.fit.callbacks.tensor_board.histogram_freq, self.progress.epoch
        )
        with _stopping(self._stop):
            try:
                while self.progress.epoch < len(self.sizes) and not self._stopped_early():
                    self._one_epoch(events)
            finally:
                events.close()
        self._choose_test_size()
        self._describe(finished=True)
        return self.finish()

    def finish(self) -> Trained:
        """Say what lies in the folder."""
        path = self.folder.path
        return Trained(path, path / self.best["checkpoint"], self.best, tuple(self.history))

    def save(self) -> None:
        """Write the state."""
        watches = {name: watch.state() for name, watch in self._watches().items()}
        record = {
            "progress": asdict(self.progress),
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
            "watches": watches,
        }
        save_state(self.folder.state, self.network.state_variables(), record)

    def restore(self) -> None:
        """Go on from the saved state."""
        record = load_state(self.folder.state, self.network.state_variables())
        self.progress = Progress(**record["progress"])
        self.history = [Epoch(**row) for row in record["history"]]
        self.best = record["best"]
        for name, watch in self._watches().items():
            watch.restore(record["watches"][name])

    def _watches(self) -> dict[str, Watch]:
        named = {"saving": self.saving, "stopping": self.stopping, "plateau": self.plateau}
        return {name: watch for name, watch in named.items() if watch is not None}

    def _stopped_early(self) -> bool:
        stopping = self.experiment.fit.callbacks.early_stopping
        # Keras' rule: training ends after `patience` epochs without improvement, after one where patience is 0.
        return bool(self.stopping and stopping and self.history and self.stopping.waited >= max(1, stopping.patience))

    def _one_epoch(self, events: EventLog) -> None:
        progress, recipe = self.progress, self.experiment.recipe
        size = self.sizes[progress.epoch]
        evaluation_size = size if recipe.stages else self.experiment.data.image_size
        self.network.set_sizes(size, evaluation_size)
        plain = progress.epoch >= len(self.sizes) - recipe.plain_epochs
        label = f"epoch {progress.epoch + 1}/{len(self.sizes)} at {size[0]}x{size[1]}"
        batch_size = min(self.experiment.data.batch_size, len(self.pictures.train_rows))
        started = last_save = time.monotonic()
        began = progress.seconds
        with Bar(label, len(self.batches) * batch_size) as bar:
            bar.update(progress.step * batch_size)
            for images, labels in self.batches.epoch(progress.epoch, progress.step, plain):
                self._step(images, labels)
                bar.update(len(images), loss=self._mean_loss(), accuracy=progress.correct / progress.seen)
                progress.seconds = began + time.monotonic() - started
                if self._stop.is_set():
                    self.save()
                    raise Interrupted(f"{self.folder.path}: stopped in epoch {progress.epoch + 1}; everything is saved")
                if time.monotonic() - last_save > 60 * self.experiment.hardware.save_minutes:
                    self.save()
                    last_save = time.monotonic()
        self._end_epoch(events, evaluation_size, began, started)

    def _step(self, images: np.ndarray, labels: np.ndarray) -> None:
        progress = self.progress
        step = progress.epoch * len(self.batches) + progress.step
        share = rate_share(step, len(self.sizes) * len(self.batches), self.experiment.recipe)
        self.network.optimizer.learning_rate = self.rate * share * progress.rate_factor
        start = time.monotonic()
        try:
            loss, accuracy = self.network.computing.train_on_batch(images, labels)
        except Exception as error:
            if is_out_of_memory(error):
                raise self._out_of_memory(len(images)) from error
            raise
        if not math.isfinite(loss):
            raise TrainingError(
                f"{self.folder.path}: the loss became {loss} in epoch {progress.epoch + 1}, batch {progress.step + 1}; lower "
                f"the learning rate ({self.rate:g}), or lengthen recipe.warmup_steps, and start anew with --overwrite"
            )
        if progress.seen:  # an epoch's first step may compile
            progress.timed += len(images)
            progress.timed_seconds += time.monotonic() - start
        progress.loss_sum += float(loss) * len(images)
        progress.correct += float(accuracy) * len(images)
        progress.seen += len(images)
        progress.step += 1

    def _out_of_memory(self, batch_size: int) -> TrainingError:
        smaller = max(1, batch_size // 2)
        return TrainingError(
            f"{self.folder.path}: out of memory with batches of {batch_size}; try --set data.batch_size={smaller} --set "
            f"recipe.gradient_accumulation={2 * self.experiment.recipe.gradient_accumulation} (the same step in two halves)"
        )

    def _mean_loss(self) -> float:
        return self.progress.loss_sum / self.progress.seen

    def _end_epoch(self, events: EventLog, size: tuple[int, int], began: float, started: float) -> None:
        progress, network = self.progress, self.network
        trained = time.monotonic() - started
        before = network.computing.get_weights() if network.optimizer.use_ema else None
        network.saved.set_weights(averaged_weights(network.computing, network.optimizer))
        if before is not None:
            network.computing.set_weights(network.saved.get_weights())
        val_loss, val_accuracy = self._validate()
        if before is not None:
            network.computing.set_weights(before)
        progress.seconds = began + time.monotonic() - started
        epoch = Epoch(
            epoch=progress.epoch + 1,
            loss=self._mean_loss(),
            accuracy=progress.correct / progress.seen,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=float(network.optimizer.learning_rate),
            image_size="x".join(map(str, self.sizes[progress.epoch])),
            images_per_second=progress.timed / progress.timed_seconds if progress.timed else progress.seen / trained,
            seconds=progress.seconds,
            checkpoint="",
        )
        epoch = self._checkpoint(epoch, size)
        self.history.append(epoch)
        log.info("epoch %d: %s", epoch.epoch, _line(epoch))
        self._after_epoch(epoch)
        self.progress = Progress(epoch.epoch, seconds=progress.seconds, rate_factor=progress.rate_factor)
        self.save()
        write_history(self.folder.path / "history.csv", self.history)
        draw_curves(self.folder.path / "curves.png", self.history, self.folder.path.name)
        events.add(epoch, network.computing)

    def _after_epoch(self, epoch: Epoch) -> None:
        if self.stopping:
            self.stopping.improved(asdict(epoch))
        settings = self.experiment.fit.callbacks.reduce_on_plateau
        if self.plateau and settings:
            self.plateau.improved(asdict(epoch))
            if self.plateau.waited >= max(1, settings.patience):
                lowest = settings.min_lr / self.rate
                self.progress.rate_factor = max(self.progress.rate_factor * settings.factor, lowest)
                self.plateau.waited, self.plateau.cooldown = 0, settings.cooldown

    def _validate(self) -> tuple[float, float]:
        """Cross-entropy and accuracy on the validation part; NaN where there is none."""
        pictures = self.pictures
        rows, truth = pictures.validation_rows, pictures.validation_classes
        if not len(rows):
            return math.nan, math.nan
        batches = plain_batches(pictures.images, rows, self.experiment.data.batch_size)
        scores = np.concatenate([self.network.computing.predict_on_batch(images) for images in batches])[: len(rows)]
        chosen = scores[np.arange(len(rows)), truth]
        return float(-np.log(np.maximum(chosen, 1e-7)).mean()), float((scores.argmax(1) == truth).mean())

    def _checkpoint(self, epoch: Epoch, size: tuple[int, int]) -> Epoch:
        """Write the model if it is to be written, and note the best; gives the epoch with its file's name."""
        settings = self.experiment.fit.callbacks.model_checkpoint
        values = asdict(epoch)
        improved = self.saving.improved(values)
        if settings.save_best_only and not improved:
            return epoch
        name = self.folder.pattern.format(**values)
        squeeze = self.network.saved.get_layer("squeeze")
        squeeze.height, squeeze.width = size
        save_checkpoint(self.network.saved, self._metadata(size), self.folder.path / name)
        epoch = replace(epoch, checkpoint=name)
        if improved:
            self._note_best(epoch, size)
        self._forget_worse(settings.keep)
        return epoch

    def _note_best(self, epoch: Epoch, size: tuple[int, int]) -> None:
        self.best = {
            "checkpoint": epoch.checkpoint,
            "epoch": epoch.epoch,
            "val_loss": epoch.val_loss,
            "val_accuracy": epoch.val_accuracy,
            "image_size": list(size),
        }
        self.folder.write_best(self.best)

    def _forget_worse(self, keep: int | None) -> None:
        """Delete the checkpoints written before the last `keep`, except the best."""
        if keep is None:
            return
        written = [epoch.checkpoint for epoch in self.history if epoch.checkpoint]
        for name in written[: max(0, len(written) + 1 - keep)]:
            if name != self.best.get("checkpoint"):
                (self.folder.path / name).unlink(missing_ok=True)

    def _choose_test_size(self) -> None:
        """Try the recipe's test sizes on validation with the best checkpoint, and write the best size into it."""
        import keras

        sizes = self.experiment.recipe.test_sizes
        if not sizes or not len(self.pictures.validation_rows):
            return
        path = self.folder.path / self.best["checkpoint"]
        model = keras.models.load_model(path, compile=False)
        self.network.saved.set_weights(model.get_weights())
        self.network.computing.set_weights(model.get_weights())
        tried = {}
        for size in dict.fromkeys((tuple(self.best["image_size"]), *sizes)):
            self.network.set_sizes(self.network.crop.train_size, size)
            tried[size] = self._validate()
            log.info("test size %dx%d: validation accuracy %.4f, loss %.4f", *size, tried[size][1], tried[size][0])
        # Accuracy on a validation part moves in steps; the loss, which does not, chooses.
        size = min(tried, key=lambda s: tried[s][0])
        squeeze = self.network.saved.get_layer("squeeze")
        squeeze.height, squeeze.width = size
        save_checkpoint(self.network.saved, self._metadata(size), path)
        val_loss, val_accuracy = tried[size]
        self.best |= {"image_size": list(size), "val_loss": val_loss, "val_accuracy": val_accuracy}
        self.best["test_sizes"] = {f"{s[0]}x{s[1]}": {"val_loss": v[0], "val_accuracy": v[1]} for s, v in tried.items()}
        self.folder.write_best(self.best)
        self.save()

    def _metadata(self, size: tuple[int, int]) -> Metadata:
        tree = self.pictures.tree
        settings = self.experiment.model_dump(mode="json")
        return Metadata(
            tree.class_names, tree.class_folders, size, versions(), settings, str(tree.root.resolve())
        )

    def _describe(self, finished: bool) -> None:
        tree, pictures = self.pictures.tree, self.pictures
        about = {
            "class_names": tree.class_names,
            "class_folders": tree.class_folders,
            "data_root": str(tree.root.resolve()),
            "train_images": len(pictures.train_rows),
            "validation_images": len(pictures.validation_rows),
            "left_out": [skipped.reason for skipped in pictures.images.skipped],
        }
        self.folder.describe(self.hardware, about, finished)


def _line(epoch: Epoch) -> str:
    return (
        f"loss {epoch.loss:.4f}, accuracy {epoch.accuracy:.4f}, validation loss {epoch.val_loss:.4f}, "
        f"validation accuracy {epoch.val_accuracy:.4f}, {epoch.images_per_second:.1f} pictures/s, {epoch.seconds:.0f} s"
    )


@contextmanager
def _stopping(event: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set `event` instead of breaking a step; a second Ctrl-C breaks it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
