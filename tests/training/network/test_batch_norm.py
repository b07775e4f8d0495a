"""The fused layer against Keras' own, in float32 unless a test says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whichcar.training.hardware import prepare

prepare("float32")
import keras  # noqa: E402

if keras.backend.backend() != "tensorflow":
    pytest.skip("the fused op is TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from whichcar.training.network.batch_norm import FusedBatchNormalization  # noqa: E402

Pair = tuple[keras.layers.BatchNormalization, FusedBatchNormalization]
SHAPE = (6, 5, 4, 8)
# Both sum 120 float32 numbers a channel, in different orders.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture
def x() -> tf.Tensor:
    """Channels of different means and spreads."""
    rng = np.random.default_rng(0)
    return tf.constant(rng.normal(rng.uniform(-3, 3, 8), rng.uniform(0.2, 4, 8), SHAPE), tf.float32)


def pair(**keys: Any) -> Pair:  # noqa: ANN401  (whatever the layer takes)
    """Both layers with the same random weights."""
    keys = {"momentum": 0.9, "epsilon": 1.001e-5, **keys}
    layers = keras.layers.BatchNormalization(**keys), FusedBatchNormalization(**keys)
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.5, 1.5, 8), rng.normal(size=8), rng.normal(size=8), rng.uniform(0.5, 2, 8)]
    for layer in layers:
        layer.build(SHAPE)
        layer.set_weights([np.float32(weight) for weight in weights][-len(layer.weights) :])
    return layers


def run(layer: keras.Layer, x: tf.Tensor, training: bool) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs, and gradients of a weighted sum of them in x, gamma and beta."""
    weight = tf.constant(np.random.default_rng(2).normal(size=SHAPE), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=training)
        loss = tf.reduce_sum(outputs * weight)
    return outputs.numpy(), [g.numpy() for g in tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])]


@pytest.mark.parametrize("training", [True, False])
def test_outputs_gradients_and_moments_are_those_of_keras(x: tf.Tensor, training: bool) -> None:
    plain, fused = pair()
    before = fused.get_weights()
    for _ in range(3):
        (outputs, gradients), (expected, of_keras) = run(fused, x, training), run(plain, x, training)
        np.testing.assert_allclose(outputs, expected, **CLOSE)
        for gradient, truth in zip(gradients, of_keras, strict=True):
            np.testing.assert_allclose(gradient, truth, rtol=1e-4, atol=1e-4)
    for weight, truth in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(weight, truth, **CLOSE)
    assert (fused.get_weights()[2] != before[2]).any() == training


def test_outside_training_the_moving_moments_are_used(x: tf.Tensor) -> None:
    _, fused = pair()
    gamma, beta, mean, variance = fused.get_weights()
    expected = (x.numpy() - mean) / np.sqrt(variance + 1.001e-5) * gamma + beta
    np.testing.assert_allclose(fused(x, training=False).numpy(), expected, **CLOSE)


def test_a_frozen_layer_is_in_inference_mode_while_training(x: tf.Tensor) -> None:
    plain, fused = pair()
    plain.trainable = fused.trainable = False
    before = fused.get_weights()
    np.testing.assert_allclose(fused(x, training=True).numpy(), plain(x, training=True).numpy(), **CLOSE)
    np.testing.assert_allclose(fused(x, training=True).numpy(), fused(x, training=False).numpy(), **CLOSE)
    for weight, kept in zip(fused.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_a_single_pixel_does_not_spoil_the_moments() -> None:
    plain, fused = pair()
    one = tf.ones((1, 1, 1, 8))
    np.testing.assert_allclose(fused(one, training=True).numpy(), plain(one, training=True).numpy(), **CLOSE)
    for weight, truth in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(weight, truth, **CLOSE)


@pytest.mark.parametrize("keys", [{"scale": False}, {"center": False}, {"axis": 1}])
def test_what_the_fused_op_cannot_do_is_left_to_keras(x: tf.Tensor, keys: dict[str, Any]) -> None:
    if "axis" in keys:
        x = tf.transpose(x, (0, 3, 1, 2))
        layers = keras.layers.BatchNormalization(**keys), FusedBatchNormalization(**keys)
    else:
        layers = pair(**keys)
    plain, fused = (layer(x, training=True).numpy() for layer in layers)
    np.testing.assert_array_equal(fused, plain)


def test_flat_features_are_left_to_keras() -> None:
    features = tf.constant(np.random.default_rng(0).normal(size=(9, 8)), tf.float32)
    layers = keras.layers.BatchNormalization(), FusedBatchNormalization()
    plain, fused = (layer(features, training=True).numpy() for layer in layers)
    np.testing.assert_array_equal(fused, plain)


def test_bfloat16_goes_in_and_out_and_moments_stay_float32(x: tf.Tensor) -> None:
    exact, fused = pair()[0], pair(dtype="mixed_bfloat16")[1]
    x = tf.cast(tf.cast(x, tf.bfloat16), tf.float32)
    outputs = fused(x, training=True)
    assert outputs.dtype == tf.bfloat16
    assert all(weight.dtype == np.float32 for weight in fused.get_weights())
    # bfloat16 keeps eight bits: values up to 4 come out rounded by up to 0.01.
    np.testing.assert_allclose(tf.cast(outputs, tf.float32).numpy(), exact(x, training=True).numpy(), atol=0.02)
    for weight, truth in zip(fused.get_weights(), exact.get_weights(), strict=True):
        np.testing.assert_allclose(weight, truth, rtol=1e-3, atol=1e-3)


def small_network(kind: type[keras.Layer]) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, name="conv")(inputs)
    x = kind(momentum=0.8, name="bn")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(2, "softmax", name="predictions")(x))


@pytest.mark.parametrize("name", ["w.weights.h5", "whole.keras"])
@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (keras.layers.BatchNormalization, FusedBatchNormalization),
        (FusedBatchNormalization, keras.layers.BatchNormalization),
    ],
)
def test_files_written_with_one_layer_are_read_with_the_other(
    tmp_path: Path, writer: type[keras.Layer], reader: type[keras.Layer], name: str
) -> None:
    source, target = small_network(writer), small_network(reader)
    source.set_weights([np.random.default_rng(3).uniform(0.1, 1, w.shape) for w in source.get_weights()])
    (source.save_weights if "weights" in name else source.save)(tmp_path / name)
    target.load_weights(tmp_path / name)
    for weight, truth in zip(target.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, truth)
    if name == "whole.keras":
        again = keras.models.load_model(tmp_path / name).get_layer("bn")
        assert type(again) is writer


def test_compiled_training_goes_the_way_of_keras() -> None:
    rng = np.random.default_rng(4)
    images, labels = rng.normal(size=(12, 8, 8, 3)).astype(np.float32), np.eye(2, dtype=np.float32)[[0, 1] * 6]
    trained = []
    for kind in (keras.layers.BatchNormalization, FusedBatchNormalization):
        model = small_network(kind)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "categorical_crossentropy", jit_compile=False)
        for _ in range(4):
            model.train_on_batch(images, labels)
        trained.append((model.get_weights(), model.predict_on_batch(images)))
    for weight, truth in zip(trained[1][0], trained[0][0], strict=True):
        np.testing.assert_allclose(weight, truth, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(trained[1][1], trained[0][1], atol=1e-4)
