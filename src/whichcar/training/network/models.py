"""The models of one run: the one that checkpoints hold, the one that trains, and the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from whichcar.training.network.random_crop import RandomResizedCrop

Size = tuple[int, int]


@dataclass(frozen=True)
class Network:
    """`saved` is the plain model that checkpoints hold, `computing` the one that trains.

    `trained` is that layer of `saved`, or all of it, whose weights are those of `computing`; `crop` is the first layer
    of `computing`, None where it is not fed with images.
    """

    saved: keras.Model
    computing: keras.Model
    trained: keras.Layer
    crop: RandomResizedCrop | None
    optimizer: keras.optimizers.Optimizer

    def set_sizes(self, train_size: Size, size: Size) -> None:
        """Train at `train_size` and predict at `size` from now on."""
        if self.crop and (self.crop.train_size, self.crop.size) != (train_size, size):
            self.crop.train_size, self.crop.size = train_size, size
            # The compiled steps hold the old sizes.
            self.computing.make_train_function(force=True)
            self.computing.make_predict_function(force=True)

    def predict_at(self, size: Size) -> None:
        """Predict at `size` from now on."""
        if self.crop:
            self.set_sizes(self.crop.train_size, size)

    def state_variables(self) -> list[Any]:
        """Everything that changes while training: weights, the layers' random states, the optimizer's variables."""
        seeds = [v for v in self.computing.variables if "seed_generator_state" in v.path]
        return [*self.computing.weights, *seeds, *self.optimizer.variables]
