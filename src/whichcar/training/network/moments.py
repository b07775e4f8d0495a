"""Moments of batch normalization over many training images, instead of a running mean of the last batches.

"Precise BN" of Wu and Johnson 2021 (arXiv:2105.07576), here on images prepared as for prediction: neither cropped nor
augmented. With a momentum of 0.9, running means cover about the last ten batches, whose images were enlarged by a
random crop (the train-test discrepancy of Touvron et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def trained_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the trainable batch norm layers; frozen ones keep their moments."""
    import keras

    norms = (layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization))
    return [layer for layer in norms if layer.trainable]


def recompute_moments(
    layers: Sequence[keras.layers.BatchNormalization],
    batches: Iterable[np.ndarray],
    predict: Callable[[np.ndarray], object],
) -> None:
    """Set the moments of layers to the mean and variance of their inputs over all batches.

    Meanwhile, each batch is normalized by its own moments.

    Args:
        layers: batch norm layers of the network that `predict` runs.
        batches: arrays (n, height, width, 3) with the same n, in random order.
        predict: runs the network on a batch in inference mode.
    """
    count, means, squares = 0, [np.float64(0)] * len(layers), [np.float64(0)] * len(layers)
    with _by_batch(layers):
        for batch in batches:
            predict(batch)
            count += 1
            for place, layer in enumerate(layers):
                mean, variance = (np.float64(moment) for moment in layer.get_weights()[-2:])
                means[place] = means[place] + mean
                squares[place] = squares[place] + variance + mean**2
    for layer, total, square in zip(layers, means, squares, strict=True):
        layer.moving_mean.assign(total / count)
        layer.moving_variance.assign(square / count - (total / count) ** 2)


@contextmanager
def _by_batch(layers: Sequence[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Make the layers normalize by the batch in inference too, and set their moments to those of the last batch."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum, layer.call = 0.0, _training(layer.call)
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            del layer.call


def _training(call: Callable[..., Any]) -> Callable[..., Any]:
    def in_training(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:  # noqa: ANN401
        return call(inputs, training=True, mask=mask)

    return in_training
