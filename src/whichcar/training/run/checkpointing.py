"""Which epochs are written as checkpoints, which checkpoints are kept, and which one evaluation uses.

best.json always describes the weights in the file that it names, whenever a run may be killed: that file is never
overwritten. If another epoch has the same file name, the best epoch's file is first linked as `best-NAME`, and
best.json then names the link.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from whichcar.config.experiment import ModelCheckpoint
from whichcar.files import checksum, link_or_copy
from whichcar.metrics import Score
from whichcar.records import Metadata
from whichcar.training.hosts import are_several
from whichcar.training.network.models import Size, TrainingModels
from whichcar.training.network.resnet50 import load_saved_model
from whichcar.training.run.checkpoint import read_best, save_checkpoint
from whichcar.training.run.folder import ExperimentFolder
from whichcar.training.run.history import Epoch
from whichcar.training.run.monitor import MetricMonitor
from whichcar.training.run.overwriting import SPARED

# Minimum time between checkpoints if only the best is kept: writing one takes half a second, and epochs may be short.
# Not on several hosts, whose clocks differ: to set weights there takes all of them.
WRITE_SECONDS = 10.0


class CheckpointManager:
    """Writes checkpoints into an experiment's folder. `best` is the content of best.json."""

    def __init__(
        self, folder: ExperimentFolder, settings: ModelCheckpoint, models: TrainingModels, about: Metadata
    ) -> None:
        self.best: dict[str, Any] = {}
        self.monitor = MetricMonitor(settings.monitor, settings.mode)
        self._written: dict[str, float] = {}  # the monitored value of each file
        self._waiting: tuple[Epoch, Size, list[Any]] | None = None  # a best epoch to be written, with its weights
        self._wrote = time.monotonic()
        self._folder, self._settings, self._models, self._about = folder, settings, models, about

    def keep(self, epoch: Epoch, size: Size) -> Epoch:
        """Write a checkpoint of this epoch if it is to be kept; return the epoch with the file's name.

        If only the best is kept, writing may be deferred until a better epoch or until `write`.
        """
        values, settings = asdict(epoch), self._settings
        improved = self.monitor.improved(values)
        best_only = settings.save_best_only or settings.keep == 1
        if not improved and (best_only or not self._is_among_best(values[settings.monitor])):
            return epoch
        epoch = replace(epoch, checkpoint=self._folder.pattern.format(**values))
        if settings.keep == 1 and not are_several() and time.monotonic() - self._wrote < WRITE_SECONDS:
            self._waiting = (epoch, size, self._models.trained_layer.get_weights())
            return epoch
        self._waiting = None
        self._keep(epoch, size, improved)
        return epoch

    def write(self) -> None:
        """Write the deferred checkpoint, if any."""
        if self._waiting:
            epoch, size, weights = self._waiting
            self._models.trained_layer.set_weights(weights)
            self._waiting = None
            self._keep(epoch, size, improved=True)

    def _keep(self, epoch: Epoch, size: Size, improved: bool) -> None:
        self._write(epoch.checkpoint, size)
        self._written.pop(epoch.checkpoint, None)
        self._written[epoch.checkpoint] = asdict(epoch)[self._settings.monitor]
        if improved:
            shown = {name: getattr(epoch, name) for name in ("checkpoint", "epoch", "val_loss", "val_accuracy")}
            self._name_best({**shown, "image_size": list(size)})
        self._forget()

    def load_best(self) -> None:
        """Load the best epoch's weights into both the exported and the training model."""
        self.write()
        weights = load_saved_model(self._folder.path / self.best["checkpoint"]).get_weights()
        self._models.export_model.set_weights(weights)
        self._models.main_model.set_weights(self._models.trained_layer.get_weights())

    def settle_size(self, scores: Mapping[Size, Score]) -> None:
        """Write the size with the lowest validation loss into the best checkpoint.

        The loss decides, since accuracy on a small validation split changes in coarse steps.
        """
        size = min(scores, key=lambda tried: scores[tried].loss)
        best, score = self.best, scores[size]
        best = best | {"image_size": list(size), "val_loss": score.loss, "val_accuracy": score.accuracy}
        if len(scores) > 1:
            best["test_sizes"] = {f"{height}x{width}": asdict(score) for (height, width), score in scores.items()}
        self._write(best["checkpoint"], size)
        self._name_best(best)

    def state(self) -> dict[str, Any]:
        """Return what must be saved to resume."""
        return {"best": self.best, "written": self._written, "monitor": self.monitor.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a saved state.

        After a kill, best.json may be newer than the state, and the state's best file may be gone: best.json decides.
        """
        self.monitor.restore(state["monitor"])
        self._written = dict(state["written"])
        self.best = read_best(self._folder.path) or state["best"]
        if self.best:
            self._written.setdefault(self.best["checkpoint"], math.nan)
            self._folder.write_best(self.best)

    def _is_among_best(self, value: float) -> bool:
        """Return whether fewer than `keep` files have a value at least as good."""
        as_good = [known for known in self._written.values() if self._rank(known) <= self._rank(value)]
        return self._settings.keep is None or len(as_good) < self._settings.keep

    def _rank(self, value: float) -> tuple[bool, float]:
        """Return a sort key that puts better values first and NaN last."""
        return math.isnan(value), 0.0 if math.isnan(value) else -value if self.monitor.larger_is_better else value

    def _write(self, name: str, size: Size) -> None:
        self._spare_best(name)
        self._wrote = time.monotonic()
        resize = self._models.export_model.get_layer("resize")
        resize.height, resize.width = size
        save_checkpoint(self._models.export_model, replace(self._about, image_size=size), self._folder.path / name)

    def _spare_best(self, name: str) -> None:
        """Link the best checkpoint under another name, and update best.json, if writing `name` would overwrite it."""
        path, spared = self._folder.path / name, self._folder.path / f"{SPARED}{name}"
        if self.best.get("checkpoint") != name or not path.exists():
            return
        spared.unlink(missing_ok=True)
        link_or_copy(path, spared)
        self._written[spared.name] = self._written.get(name, math.nan)
        self.best = {**self.best, "checkpoint": spared.name}
        self._folder.write_best(self.best)

    def _name_best(self, best: Mapping[str, Any]) -> None:
        """Point best.json to a newly written file, and delete the previous one if it is a `best-` link."""
        before = self.best.get("checkpoint", "")
        self.best = {**best, "blake2b": checksum(self._folder.path / best["checkpoint"])}
        self._folder.write_best(self.best)
        link = SPARED + self._folder.pattern.partition("{")[0]  # names of checkpoints themselves may begin with SPARED
        if before.startswith(link) and before != best["checkpoint"]:
            self._delete(before)

    def _forget(self) -> None:
        """Delete all but the `keep` best files; the one that best.json names is always kept."""
        best = self.best.get("checkpoint")
        ranked = sorted(self._written, key=lambda name: (name != best, self._rank(self._written[name])))
        for name in ranked[self._settings.keep :] if self._settings.keep else ():
            self._delete(name)

    def _delete(self, name: str) -> None:
        (self._folder.path / name).unlink(missing_ok=True)
        self._written.pop(name, None)
