"""The layer against Keras' own, in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from whichcar.training.hardware import prepare

prepare("float32")
import keras  # noqa: E402

if keras.backend.backend() != "tensorflow":
    pytest.skip("the pooling is TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from whichcar.training.network.strided_convolution import StridedConv2D  # noqa: E402


def pair(height: int, width: int) -> tuple[keras.layers.Conv2D, StridedConv2D]:
    """Both layers with the same random weights."""
    layers = keras.layers.Conv2D(4, 1, strides=2), StridedConv2D(4, 1, strides=2)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=(1, 1, 3, 4)), rng.normal(size=4)]
    for layer in layers:
        layer.build((None, height, width, 3))
        layer.set_weights(weights)
    return layers


def ops(layer: keras.Layer, height: int, width: int, training: bool) -> set[str]:
    """Return the kinds of ops in the graph of a layer."""
    images = tf.TensorSpec((2, height, width, 3), tf.float32)
    graph = tf.function(lambda x: layer(x, training=training)).get_concrete_function(images).graph
    return {op.type for op in graph.get_operations()}


@pytest.mark.parametrize(("height", "width"), [(5, 7), (5, 6), (6, 6), (1, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_keras(height: int, width: int, training: bool) -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(2, height, width, 3)), tf.float32)
    results = []
    for layer in pair(height, width):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=training)
            loss = tf.reduce_sum(tf.sin(outputs))
        results.append([outputs, *tape.gradient(loss, [x, *(weight.value for weight in layer.weights)])])
    for plain, fast in zip(*results, strict=True):
        np.testing.assert_allclose(fast.numpy(), plain.numpy(), rtol=1e-5, atol=1e-5)


def test_only_odd_inputs_of_a_layer_in_training_are_pooled() -> None:
    _, layer = pair(5, 6)
    assert "AvgPool" in ops(layer, 5, 6, training=True)
    assert "AvgPool" in ops(layer, 6, 5, training=True)
    assert "AvgPool" not in ops(layer, 6, 6, training=True)
    assert "AvgPool" not in ops(layer, 5, 6, training=False), "an exported network would have it"
    layer.trainable = False
    assert "AvgPool" not in ops(layer, 5, 6, training=True), "a frozen layer has no gradient"


def test_a_file_of_weights_fits_either_layer(tmp_path: Path) -> None:
    networks = [
        keras.Sequential([keras.Input((5, 5, 3)), kind(4, 1, strides=2, name="conv")])
        for kind in (keras.layers.Conv2D, StridedConv2D)
    ]
    networks[1].save_weights(tmp_path / "w.weights.h5")
    networks[0].load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(networks[0].get_weights()[0], networks[1].get_weights()[0])
