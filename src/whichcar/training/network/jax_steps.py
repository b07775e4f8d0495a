"""Training steps on JAX that follow each other without waiting.

Keras' `train_on_batch` writes some thousand variables back after each step and waits for the loss. On a GPU that takes
as long as the step itself. Here the values stay in JAX's hands from step to step, as in Keras' own `fit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


class JaxSteps:
    """The steps of one compiled Keras model on JAX. Between a step and `settle` its variables hold nothing."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._values: list[list[Any]] | None = None  # of the variables; None: they hold them themselves
        self._rate_place = 0  # of the learning rate among the optimizer's variables
        self._metrics: list[np.ndarray] = []

    def take(self, images: np.ndarray, labels: list[np.ndarray], rate: float) -> tuple[Any, Any]:
        """Start one step at this learning rate; returns loss and accuracy as JAX arrays that may not be computed yet.

        Args:
            images: (n, height, width, 3), uint8 or float32.
            labels: (n, classes) float32, for each output of the model.
        """
        model = self._model
        if self._values is None:
            model.make_train_function()
            self._values = [[variable.value for variable in group] for group in self._variables()]
            used = model.optimizer.learning_rate
            self._rate_place = next(i for i, variable in enumerate(model.optimizer.variables) if variable is used)
            self._metrics = [np.zeros(variable.shape, variable.dtype) for variable in model.metrics_variables]
        trainable, others, optimizer = self._values
        optimizer[self._rate_place] = np.float32(rate)
        state = (trainable, others, optimizer, self._metrics)
        logs, (*self._values, _) = model.train_function(state, iter([(images, labels, None)]))
        return logs["loss"], next(value for name, value in logs.items() if name.endswith("accuracy"))

    def settle(self) -> None:
        """Give the variables their values back."""
        if self._values is None:
            return
        values, self._values = self._values, None
        for group, settled in zip(self._variables(), values, strict=True):
            for variable, value in zip(group, settled, strict=True):
                variable.assign(value)

    def _variables(self) -> tuple[list[Any], ...]:
        model = self._model
        return model.trainable_variables, model.non_trainable_variables, model.optimizer.variables
