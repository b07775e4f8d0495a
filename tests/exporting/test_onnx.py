from __future__ import annotations

import contextlib
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from whichcar.errors import CheckpointError
from whichcar.exporting.litert import LiteRtNetwork
from whichcar.exporting.onnx import float32_copy, to_onnx
from whichcar.training.hardware import prepare

if TYPE_CHECKING:
    import keras

SIZE = (32, 48)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with what backbones are made of: preprocessing, batch-norm, padding, a gate, groups, GELU."""
    prepare("float32")
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((None, None, 3), name="image")
    x = layers.Resizing(*SIZE)(image)
    x = layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[900.0, 1000.0, 1100.0])(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = layers.Activation("hard_swish")(layers.BatchNormalization()(x))
    gate = layers.Conv2D(8, 1, activation="hard_sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, gate])
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
    x = layers.Activation("gelu")(layers.Conv2D(8, 3, groups=8, padding="same")(x))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, layers.Dense(5, "softmax", dtype="float32", name="predictions")(x))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, weight.shape) * 0.5 for weight in model.get_weights()])
    path = tmp_path_factory.mktemp("small") / "model.keras"
    model.save(path)
    return path


def test_any_number_of_images_gets_keras_answers(small: Path) -> None:
    from whichcar.training.network.resnet50 import load_saved_model

    network = to_onnx(float32_copy(small), SIZE, "small")
    session = ort.InferenceSession(network, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = np.random.default_rng(count).integers(0, 256, (count, *SIZE, 3), np.uint8)
        (answer,) = session.run(["probabilities"], {"images": images})
        expected = load_saved_model(small).predict_on_batch(images)
        assert expected.std() > 0.01
        np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_batch_norm_is_part_of_the_convolutions_and_images_are_transposed_once(small: Path) -> None:
    model = onnx.load_from_string(to_onnx(float32_copy(small), SIZE, "small"))
    onnx.checker.check_model(model, full_check=True)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["BatchNormalization"] == 0
    assert operators["Conv"] == 4
    assert operators["Transpose"] <= 1
    assert [entry.name for entry in model.graph.input] == ["images"]
    assert {opset.domain for opset in model.opset_import} == {""}


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    (
        *("resnet50", "resnet50_v2", "efficientnet_b0", "efficientnet_v2_b0", "convnext_tiny"),
        *("mobilenet_v2", "mobilenet_v3_small", "densenet121", "vgg16"),
    ),
)
def test_every_family_of_backbones_gets_keras_answers(backbone: str, tmp_path: Path) -> None:
    prepare("float32")
    import keras

    from whichcar.training.network.resnet50 import create_model, training_copy

    keras.utils.set_random_seed(0)
    model = create_model(None, (None, None, 3), classes=7, image_size=(64, 64), backbone=backbone, cosine_scale=20.0)
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    moving = training_copy(model, "float32", fused=False, batch_norm_momentum=0.0)
    moving(images, training=True)
    model.set_weights(moving.get_weights())
    model.save(tmp_path / "model.keras")
    exported = float32_copy(tmp_path / "model.keras")
    network = to_onnx(exported, (64, 64), backbone)
    (answer,) = ort.InferenceSession(network, providers=["CPUExecutionProvider"]).run(None, {"images": images})
    np.testing.assert_allclose(answer, model.predict_on_batch(images), atol=1e-4)
    litert = LiteRtNetwork(exported, (64, 64), None, backbone)
    np.testing.assert_allclose(litert(images), answer, atol=1e-4)
    operators = Counter(node.op_type for node in onnx.load_from_string(network).graph.node)
    assert operators["Transpose"] <= 2 or backbone == "convnext_tiny"  # its layer norm is over the last axis


def test_a_layer_that_onnx_cannot_express_is_named(tmp_path: Path) -> None:
    prepare("float32")
    import keras

    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(image)
    x = keras.layers.Dense(4, "softmax", name="predictions")(_erfinv()(x / 255))
    keras.Model(image, x).save(tmp_path / "model.keras")
    with pytest.raises(CheckpointError, match=r"model\.keras: layer 'odd' cannot be exported: ONNX has no Erfinv"):
        to_onnx(float32_copy(tmp_path / "model.keras"), (8, 8), "model.keras")


def _erfinv() -> keras.Layer:
    import keras

    @keras.saving.register_keras_serializable("tests")
    class Erfinv(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return keras.ops.erfinv(x)

    return Erfinv(name="odd")


def test_ctrl_c_that_a_converter_swallows_ends_the_export(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf
    import tf2onnx

    def swallows(*_: object, **__: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RuntimeError("half-done")

    monkeypatch.setattr(tf2onnx.convert, "from_function", swallows)
    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", swallows)
    model = float32_copy(small)
    with pytest.raises(KeyboardInterrupt):
        to_onnx(model, SIZE, "cars")
    with pytest.raises(KeyboardInterrupt):
        LiteRtNetwork(model, SIZE, None, "cars")
