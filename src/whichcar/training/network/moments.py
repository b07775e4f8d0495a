"""Moments of batch normalization over many training images, instead of a running mean of the last batches.

"Precise BN" of Wu and Johnson 2021 (arXiv:2105.07576), here on images as they are predicted: neither cropped nor
augmented. Running means follow the last ten batches at a momentum of 0.9, of images that a random crop enlarged
(Touvron et al. 2019 call it the train-test discrepancy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def trained_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the layers of batch normalization that are trained; frozen ones keep their moments."""
    import keras

    norms = (layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization))
    return [layer for layer in norms if layer.trainable]


def recompute_moments(
    layers: Sequence[keras.layers.BatchNormalization],
    batches: Iterable[np.ndarray],
    predict: Callable[[np.ndarray], object],
) -> None:
    """Give the layers the mean and variance of what they see of all batches, each normalized by its own moments.

    Args:
        layers: of the network that `predict` runs.
        batches: (n, height, width, 3) each, of the same n, in random order.
        predict: runs the network on a batch, not as in training.
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
    """Let the layers normalize by the batch outside training too, and their moments be those of that batch alone."""
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
