"""Which epochs' models are written, which of them are kept, and which one evaluation uses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from whichcar.config import ModelCheckpoint
from whichcar.training.checkpoint import Metadata, save_checkpoint
from whichcar.training.experiment import ExperimentFolder
from whichcar.training.logs import Epoch
from whichcar.training.preparation import Network, Size
from whichcar.training.resnet50 import load_saved_model
from whichcar.training.validation import Score
from whichcar.training.watch import Watch

# A checkpoint takes half a second to write: where epochs are short and only the best is kept, some are passed over.
WRITE_SECONDS = 10.0


class Keeper:
    """Writes checkpoints into an experiment's folder. `best` is the content of best.json."""

    def __init__(self, folder: ExperimentFolder, settings: ModelCheckpoint, network: Network, about: Metadata) -> None:
        self.best: dict[str, Any] = {}
        self.watch = Watch(settings.monitor, settings.mode)
        self._written: list[str] = []
        self._waiting: tuple[Epoch, Size, list[Any]] | None = None  # the best so far, with the weights
        self._wrote = time.monotonic()
        self._folder, self._settings, self._network, self._about = folder, settings, network, about

    def keep(self, epoch: Epoch, size: Size) -> Epoch:
        """Write the network's saved form if this epoch's is to be written; gives the epoch with the file's name.

        Where only the best is kept it may wait for a better one or for `write`.
        """
        improved, settings = self.watch.improved(asdict(epoch)), self._settings
        if settings.save_best_only and not improved:
            return epoch
        epoch = replace(epoch, checkpoint=self._folder.pattern.format(**asdict(epoch)))
        only_best = settings.save_best_only and settings.keep == 1
        if only_best and time.monotonic() - self._wrote < WRITE_SECONDS:
            self._waiting = (epoch, size, self._network.trained.get_weights())
            return epoch
        self._waiting = None
        self._keep(epoch, size, improved)
        return epoch

    def write(self) -> None:
        """Write what waits."""
        if self._waiting:
            epoch, size, weights = self._waiting
            self._network.trained.set_weights(weights)
            self._waiting = None
            self._keep(epoch, size, improved=True)

    def _keep(self, epoch: Epoch, size: Size, improved: bool) -> None:
        self._write(epoch.checkpoint, size)
        if improved:
            self._name_best(epoch, size)
        self._written.append(epoch.checkpoint)
        self._forget()

    def load_best(self) -> None:
        """Put the best epoch's weights into both forms of the network."""
        self.write()
        weights = load_saved_model(self._folder.path / self.best["checkpoint"]).get_weights()
        self._network.saved.set_weights(weights)
        self._network.computing.set_weights(self._network.trained.get_weights())

    def settle_size(self, scores: Mapping[Size, Score]) -> None:
        """Write the size with the lowest validation loss into the best checkpoint.

        The loss chooses, since accuracy on a small validation part moves in steps.
        """
        size = min(scores, key=lambda tried: scores[tried].loss)
        self._write(self.best["checkpoint"], size)
        self.best |= {"image_size": list(size), "val_loss": scores[size].loss, "val_accuracy": scores[size].accuracy}
        self.best["test_sizes"] = {f"{height}x{width}": asdict(score) for (height, width), score in scores.items()}
        self._folder.write_best(self.best)

    def state(self) -> dict[str, Any]:
        """What must be saved to go on."""
        return {"best": self.best, "written": self._written, "watch": self.watch.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.best, self._written = state["best"], state["written"]
        self.watch.restore(state["watch"])

    def _write(self, name: str, size: Size) -> None:
        self._wrote = time.monotonic()
        squeeze = self._network.saved.get_layer("squeeze")
        squeeze.height, squeeze.width = size
        save_checkpoint(self._network.saved, replace(self._about, image_size=size), self._folder.path / name)

    def _name_best(self, epoch: Epoch, size: Size) -> None:
        self.best = {
            "checkpoint": epoch.checkpoint,
            "epoch": epoch.epoch,
            "val_loss": epoch.val_loss,
            "val_accuracy": epoch.val_accuracy,
            "image_size": list(size),
        }
        self._folder.write_best(self.best)

    def _forget(self) -> None:
        """Delete all but the last `keep` files and the best."""
        keep = self._settings.keep
        if keep is None:
            return
        for name in self._written[:-keep]:
            if name != self.best.get("checkpoint"):
                (self._folder.path / name).unlink(missing_ok=True)
        self._written = [name for name in self._written if (self._folder.path / name).exists()]
