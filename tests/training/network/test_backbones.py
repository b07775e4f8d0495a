"""Backbones other than ResNet-50: what they see, what is frozen, what is saved, and what of a file is used."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from whichcar.config.backbones import KERAS, backbone_name
from whichcar.config.experiment import Model
from whichcar.errors import CheckpointError, ConfigError
from whichcar.records import Metadata
from whichcar.training.hardware import prepare
from whichcar.training.run.checkpoint import save_checkpoint
from whichcar.training.weights import plain_model

prepare("float32")
import keras  # noqa: E402

from whichcar.training.network.backbones import freeze  # noqa: E402
from whichcar.training.network.resnet50 import create_model, training_copy  # noqa: E402

NAMES = ("BMW X3 2012", "MINI 2009", "VW Golf 1991")
SMALL = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def small() -> keras.Model:
    """The smallest network, random weights, not to be changed."""
    keras.utils.set_random_seed(0)
    return create_model(None, (None, None, 3), classes=3, image_size=(32, 32), backbone=SMALL)


@pytest.mark.parametrize(
    "written", ["EfficientNetV2B0", "efficientnet_v2_b0", "efficientnet-v2-b0", "efficientnetv2b0"]
)
def test_a_name_may_be_written_as_keras_writes_it(written: str) -> None:
    assert Model(backbone=written).backbone == "efficientnet_v2_b0"


def test_every_name_is_a_function_of_keras() -> None:
    for name, backbone in KERAS.items():
        assert callable(getattr(keras.applications, backbone.keras_name)), name
        assert backbone_name(backbone.keras_name) == name


@pytest.mark.parametrize(
    "name",
    [
        "vgg16",
        *(pytest.param(name, marks=pytest.mark.slow) for name in KERAS if name not in ("vgg16", "resnet50")),
    ],
)
def test_the_stages_hold_every_layer_once_and_all_of_them_is_all_but_the_head(name: str) -> None:
    model = create_model(None, (None, None, 3), classes=2, image_size=(64, 64), backbone=name)
    stages = KERAS[name].stages
    layers = [layer for layer in model.layers[:-1] if layer.trainable_variables]
    numbers = [[i for i, stage in enumerate(stages) if re.match(stage, layer.name)] for layer in layers]
    if numbers[-1] == []:  # the norm of the features of a ConvNeXt, which is frozen with the whole
        numbers.pop()
    assert {len(found) for found in numbers} == {1}
    assert {number for (number,) in numbers} == set(range(len(stages)))
    freeze(model, name, 1)
    assert [layer.trainable for layer in layers][: len(numbers)] == [number != [0] for number in numbers]
    freeze(model, name, len(stages))
    assert [variable.path for variable in model.trainable_variables] == ["predictions/kernel", "predictions/bias"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [SMALL, "convnext_tiny", "efficientnet_v2_b0"])
def test_the_training_copy_shares_nothing_and_predicts_the_same(name: str, noise: np.ndarray) -> None:
    model = create_model(None, (None, None, 3), classes=3, image_size=(32, 32), backbone=name)
    copy = training_copy(model, "float32", fused=keras.backend.backend() == "tensorflow", seed=1)
    assert not {id(v) for v in model.variables} & {id(v) for v in copy.variables}
    np.testing.assert_allclose(copy(noise[:4], training=False), model(noise[:4], training=False), atol=1e-5)


def test_each_dropout_of_a_training_copy_draws_for_itself() -> None:
    inputs = keras.Input((4,))
    x = keras.layers.Dropout(0.5, name="inner")(inputs)
    model = keras.Model(inputs, keras.layers.Dropout(0.5, name="dropout")(x))
    seeds = [layer.seed for layer in training_copy(model, "float32", fused=False, seed=7).layers[1:]]
    assert seeds == [7, 8]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module"), [("densenet121", "densenet"), ("mobilenet_v2", "mobilenet_v2"), ("vgg16", "imagenet_utils")]
)
def test_images_are_scaled_as_keras_prepares_them(name: str, module: str, noise: np.ndarray) -> None:
    model = create_model(None, (32, 32, 3), classes=3, backbone=name)
    scaled = np.asarray(keras.Model(model.input, model.get_layer("preprocessing").output)(noise[:4]))
    expected = getattr(keras.applications, module).preprocess_input(noise[:4].astype(np.float32))
    if name == "vgg16":  # its first kernel is turned round instead
        expected = expected[..., ::-1]
    np.testing.assert_allclose(scaled, expected, atol=1e-4)


@pytest.mark.slow
def test_published_weights_of_efficientnet_see_what_they_see_in_keras(
    noise: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras puts one more layer into the network when it loads them itself."""
    random = keras.applications.EfficientNetB0(weights=None, include_top=False, pooling="avg")
    moments = next(layer for layer in random.layers if isinstance(layer, keras.layers.Normalization))
    moments.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
    path = tmp_path / "published.weights.h5"
    random.save_weights(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(path))
    published = keras.applications.EfficientNetB0(weights="imagenet", include_top=False, pooling="avg")
    expected = _stem(published)(noise[:4].astype(np.float32))
    for weights in ("imagenet", path):
        model = create_model(weights, (32, 32, 3), classes=3, backbone="efficientnet_b0")
        for network in (model, training_copy(model, "float32", fused=False)):
            np.testing.assert_allclose(_stem(network)(noise[:4]), expected, rtol=1e-3, atol=1e-4)


def _stem(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("stem_conv").output)


@pytest.mark.slow
def test_a_checkpoint_loads_with_keras_alone_and_is_where_the_next_training_starts(
    small: keras.Model, tmp_path: Path
) -> None:
    path = tmp_path / "model.keras"
    save_checkpoint(small, Metadata(NAMES, NAMES, (32, 32), {}, {"model": {"backbone": SMALL}}, "cars"), path)
    again = plain_model(Model(weights=str(path), backbone=SMALL), (32, 32), NAMES)
    for weight, truth in zip(again.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, truth)
    with pytest.raises(CheckpointError, match=rf"is not a vgg16 as .*; write model\.backbone: {SMALL}"):
        plain_model(Model(weights=str(path), backbone="vgg16"), (32, 32), NAMES)


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    with pytest.raises(ConfigError) as caught:
        create_model("imagenet", (32, 32, 3), classes=3, backbone=SMALL)
    message = str(caught.value)
    assert re.search(
        r"of MobileNetV3Small could not be downloaded \(Name or service not known\); fetch .* and give its path as",
        message,
    )
    assert "\n" not in message


def test_out_of_memory_while_a_network_is_built_is_not_taken_for_a_failed_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes")

    monkeypatch.setattr(keras.applications, "MobileNetV3Small", exhausted)
    with pytest.raises(RuntimeError, match=r"^RESOURCE_EXHAUSTED"):
        create_model("imagenet", (32, 32, 3), classes=3, backbone=SMALL)


def test_a_network_has_the_formats_of_whichcar_whatever_others_use_keras_for() -> None:
    """As keras.json or a notebook may set them."""
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float16")
    keras.config.set_dtype_policy("mixed_float16")
    prepare("float32")
    model = create_model(None, (None, None, 3), classes=3, image_size=(32, 32), backbone=SMALL)
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_an_unknown_backbone_is_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"^model\.backbone: no network has the name .resnet5O.; did you mean `resnet"
    ):
        create_model(None, classes=3, backbone="resnet5O")
