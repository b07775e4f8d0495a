"""The loss of softmax layers, the same on both backends."""

from __future__ import annotations

from typing import Any

import keras

_SMALLEST = 1e-30  # a probability; float32 holds it and its inverse


def cross_entropy(labels: Any, probabilities: Any) -> Any:  # noqa: ANN401
    """Return the cross-entropy of each image, (n,), from labels (n, classes) and the output of a softmax layer.

    On TensorFlow, Keras takes the layer's logits. On JAX, it clips probabilities at 1e-7, below which an image has no
    gradient.
    """
    if keras.backend.backend() == "tensorflow":
        return keras.losses.categorical_crossentropy(labels, probabilities)
    return -keras.ops.sum(labels * keras.ops.log(keras.ops.maximum(probabilities, _SMALLEST)), axis=-1)
