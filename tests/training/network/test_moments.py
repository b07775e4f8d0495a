"""Moments recomputed over batches, against NumPy's of the same images."""

from __future__ import annotations

import numpy as np
import pytest

from whichcar.training.hardware import prepare

prepare("float32")
import keras  # noqa: E402

from whichcar.training.network.moments import recompute_moments, trained_norms  # noqa: E402
from whichcar.training.network.resnet50 import training_copy  # noqa: E402

BATCHES = [np.random.default_rng(number).normal(number, 1 + number, (6, 5, 4, 3)) for number in range(4)]


@pytest.fixture(params=["Keras' layers", "fused layers"])
def model(request: pytest.FixtureRequest) -> keras.Model:
    """Dropout, a frozen and two trained layers of batch normalization."""
    if request.param != "Keras' layers" and keras.backend.backend() != "tensorflow":
        pytest.skip("the fused op is TensorFlow's")
    inputs = keras.Input((5, 4, 3))
    x = keras.layers.BatchNormalization(name="frozen")(inputs)
    x = keras.layers.BatchNormalization(name="first", momentum=0.9)(x)
    x = keras.layers.BatchNormalization(name="second")(keras.layers.Dropout(0.5)(x))
    model = keras.Model(inputs, x)
    model = training_copy(model, "float32", fused=request.param != "Keras' layers")
    model.get_layer("frozen").trainable = False
    return model


def test_the_moments_are_those_of_all_images_without_dropout(model: keras.Model) -> None:
    frozen = [weight.copy() for weight in model.get_layer("frozen").get_weights()]
    layers = trained_norms(model)
    assert [layer.name for layer in layers] == ["first", "second"]
    recompute_moments(layers, BATCHES, lambda batch: model(batch, training=False))
    everything = np.concatenate(BATCHES) / np.sqrt(1.001)  # what the frozen layer gives
    mean, variance = layers[0].get_weights()[-2:]
    assert mean == pytest.approx(everything.mean((0, 1, 2)), rel=1e-4)
    assert variance == pytest.approx(everything.var((0, 1, 2)), rel=1e-4)
    mean, variance = layers[1].get_weights()[-2:]
    assert mean == pytest.approx(np.zeros(3), abs=1e-5)  # each batch was normalized by its own moments
    assert variance == pytest.approx(np.ones(3), rel=2e-3)
    assert all(np.array_equal(*pair) for pair in zip(model.get_layer("frozen").get_weights(), frozen, strict=True))


def test_afterwards_the_layers_are_as_before(model: keras.Model) -> None:
    layers = trained_norms(model)
    recompute_moments(layers, BATCHES, lambda batch: model(batch, training=False))
    assert [layer.momentum for layer in layers] == [0.9, 0.99]
    moments = [weight.copy() for layer in layers for weight in layer.get_weights()]
    model(BATCHES[0], training=False)
    after = [weight for layer in layers for weight in layer.get_weights()]
    assert all(np.array_equal(*pair) for pair in zip(moments, after, strict=True))
