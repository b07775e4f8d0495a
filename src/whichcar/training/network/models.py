"""The models of one run: the one saved in checkpoints, the one that trains, and the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from whichcar.training.network.jax_steps import JaxPredictions, JaxSteps
from whichcar.training.network.moments import recompute_moments, trained_norms
from whichcar.training.network.optimizer import averaged_weights

if TYPE_CHECKING:
    import keras

    from whichcar.training.network.random_crop import RandomResizedCrop

Size = tuple[int, int]


@dataclass(frozen=True)
class TrainingModels:
    """The models of one run: `export_model` is the plain model in checkpoints, `train_model` the one that trains.

    `main_model`, which predicts, is `train_model` without the co-tuning head, or the same object if there is none.
    `trained_layer` is the layer of `export_model`, or all of it, that has the same weights as `main_model`. `crop` is
    the first layer of `train_model`, which resizes images to the size of a step; None if the inputs are features.
    """

    export_model: keras.Model
    train_model: keras.Model
    main_model: keras.Model
    trained_layer: keras.Layer
    crop: RandomResizedCrop | None
    optimizer: keras.optimizers.Optimizer
    steps: JaxSteps | None = field(init=False)
    predictions: JaxPredictions | None = field(init=False)

    def __post_init__(self) -> None:
        """Use JAX functions for training steps and predictions if the backend is JAX."""
        import keras

        on_jax = keras.backend.backend() == "jax"
        object.__setattr__(self, "steps", JaxSteps(self.train_model) if on_jax else None)
        object.__setattr__(self, "predictions", JaxPredictions(self.main_model) if on_jax else None)

    def train_on_batch(
        self, images: np.ndarray, labels: np.ndarray, size: Size, rate: float
    ) -> tuple[SupportsFloat, SupportsFloat]:
        """Take one step on images resized to `size`.

        Returns:
            Loss and accuracy. On JAX the step may still be running, and `float` of either waits for it.
        """
        if self.crop and self.crop.train_size != size:
            self.crop.train_size = size
            if self.steps:  # the compiled step holds the old size
                self.steps.compile_again()
            else:
                self.train_model.make_train_function(force=True)
        targets = [labels] * len(self.train_model.outputs)
        if self.steps:
            return self.steps.take(images, targets, rate)
        self.optimizer.learning_rate = rate
        loss, *_, accuracy = self.train_model.train_on_batch(images, targets)
        return loss, accuracy

    def predict_on_batch(self, images: np.ndarray, size: Size) -> np.ndarray:
        """Return the (n, classes) probabilities for images resized to `size`."""
        if self.crop and self.crop.size != size:
            self.crop.size = size
            if self.predictions:
                self.predictions.compile_again()
            else:
                self.main_model.make_predict_function(force=True)
        if self.predictions:
            return self.predictions.predict(images)
        scores: np.ndarray = self.main_model.predict_on_batch(images)
        return scores

    def recompute_moments(self, batches: Iterable[np.ndarray], size: Size) -> None:
        """Recompute the moments of trainable batch norm layers on images resized to `size`.

        Each of `batches` is (n, height, width, 3) uint8 RGB, with the same n.
        """
        layers = trained_norms(self.main_model)
        if not layers or not self.crop:
            return
        before, self.crop.size = self.crop.size, size
        model = self.main_model
        fresh = JaxPredictions(model) if self.predictions else None
        try:
            recompute_moments(layers, batches, fresh.update if fresh else lambda batch: model(batch, training=False))
        finally:
            self.crop.size = before
        self.trained_layer.set_weights(model.get_weights())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the weights to be saved for predictions inside the block: their EMA if the recipe keeps one.

        They stay in `export_model`.
        """
        self._settle()
        self.trained_layer.set_weights(averaged_weights(self.main_model, self.optimizer))
        if not self.optimizer.use_ema:
            yield
            return
        trained = self.main_model.get_weights()
        self.main_model.set_weights(self.trained_layer.get_weights())
        try:
            yield
        finally:
            self.main_model.set_weights(trained)

    def state_variables(self) -> list[Any]:
        """Return all that changes during training: weights, random states of layers, variables of the optimizer."""
        self._settle()
        seeds = [v for v in self.train_model.variables if "seed_generator_state" in v.path]
        return [*self.train_model.weights, *seeds, *self.optimizer.variables]

    def _settle(self) -> None:
        """Write the results of all steps so far to the variables of `train_model`."""
        if self.steps:
            self.steps.settle()
