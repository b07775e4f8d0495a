"""Training steps and predictions on JAX, on one or more devices. Training does not wait between steps.

Keras' `train_on_batch` writes some thousand variables back after each step and waits for the loss. On a GPU that takes
as long as the step itself. Here the values stay in JAX arrays between steps, as in Keras' own `fit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from whichcar.training.devices import divided, on_each_device

if TYPE_CHECKING:
    import keras


class JaxSteps:
    """Training steps of one compiled Keras model on JAX. From a step until `settle`, its variables hold no values."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._step: Any = None  # the compiled step
        self._values: list[list[Any]] | None = None  # values of the variables; None if the variables hold them
        self._rate_place = 0  # index of the learning rate among the optimizer's variables
        self._metrics: list[np.ndarray] = []

    def take(self, images: np.ndarray, labels: list[np.ndarray], rate: float) -> tuple[Any, Any]:
        """Start one step at this learning rate; return loss and accuracy, JAX arrays that may not be computed yet.

        Args:
            images: (n, height, width, 3), uint8 or float32.
            labels: (n, classes) float32, for each output of the model.
        """
        model = self._model
        if self._values is None:
            self._values = [[variable.value for variable in group] for group in self._variables()]
            used = model.optimizer.learning_rate
            self._rate_place = next(i for i, variable in enumerate(model.optimizer.variables) if variable is used)
            self._metrics = [np.zeros(variable.shape, variable.dtype) for variable in model.metrics_variables]
        if self._step is None:
            import jax

            self._step = jax.jit(model.train_step, donate_argnums=0, out_shardings=on_each_device())
        trainable, others, optimizer = self._values
        optimizer[self._rate_place] = np.float32(rate)
        state = (trainable, others, optimizer, self._metrics)
        data = divided(images), [divided(part) for part in labels], None
        logs, (*self._values, _) = self._step(state, data)
        return logs["loss"], next(value for name, value in logs.items() if name.endswith("accuracy"))

    def compile_again(self) -> None:
        """Recompile at the next step, after a change in the model's layers such as another image size."""
        self._step = None

    def settle(self) -> None:
        """Write the values back to the variables."""
        if self._values is None:
            return
        values, self._values = self._values, None
        for group, settled in zip(self._variables(), values, strict=True):
            for variable, value in zip(group, settled, strict=True):
                variable.assign(value)

    def _variables(self) -> tuple[list[Any], ...]:
        return *_weights(self._model), self._model.optimizer.variables


class JaxPredictions:
    """The predictions of one Keras model on JAX."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._calls: dict[int, Any] = {}  # compiled calls by `part`

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the model's output (n, …) for images (n, height, width, 3)."""
        return np.asarray(self._part(0, images))

    def update(self, images: np.ndarray) -> None:
        """Run the model in inference mode and store the changes to its non-trainable variables, such as moments."""
        for variable, value in zip(_weights(self._model)[1], self._part(1, images), strict=True):
            variable.assign(value)

    def compile_again(self) -> None:
        """Recompile at the next call, after a change in the model's layers."""
        self._calls.clear()

    def _part(self, part: int, images: np.ndarray) -> Any:  # noqa: ANN401  (arrays of JAX)
        """Return the model's output (part 0), or the new values of its non-trainable variables (part 1)."""
        model = self._model
        if part not in self._calls:
            import jax

            def call(trainable: list[Any], others: list[Any], batch: Any) -> Any:  # noqa: ANN401
                return model.stateless_call(trainable, others, batch, training=False)[part]

            self._calls[part] = jax.jit(call, out_shardings=on_each_device())
        values = ([variable.value for variable in group] for group in _weights(model))
        return self._calls[part](*values, divided(images))


def _weights(model: keras.Model) -> tuple[list[Any], list[Any]]:
    return model.trainable_variables, model.non_trainable_variables
