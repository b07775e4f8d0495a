"""Presets of KerasHub as backbones: tiny ones, saved with random weights and loaded through the same call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from whichcar.config.experiment import Experiment
from whichcar.errors import ConfigError
from whichcar.records import Metadata
from whichcar.training.hardware import prepare
from whichcar.training.run.checkpoint import load_model, save_checkpoint
from whichcar.training.setup import models_from

hardware = prepare("float32")
keras_hub = pytest.importorskip("keras_hub")
import keras  # noqa: E402

from whichcar.training.network.backbones import stages_of  # noqa: E402
from whichcar.training.network.resnet50 import create_model  # noqa: E402

NAMES = ("BMW X3 2012", "MINI 2009", "VW Golf 1991")
SCALE, OFFSET = [1 / (255 * 0.229)] * 3, [-0.485 / 0.229] * 3


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet of two stacks, an HGNetV2 of two stages and a DINOv2 of two blocks, as folders."""
    folder, models = tmp_path_factory.mktemp("presets"), keras_hub.models
    keras.utils.set_random_seed(0)
    resnet = {"input_conv_filters": [64], "input_conv_kernel_sizes": [3], "stackwise_num_filters": [64, 64]}
    counts = {"stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2], "block_type": "basic_block"}
    models.ResNetBackbone(**resnet, **counts).save_to_preset(str(folder / "resnet"))
    converter = keras_hub.layers.ResNetImageConverter(image_size=(224, 224), scale=SCALE, offset=OFFSET)
    converter.save_to_preset(str(folder / "resnet"))
    models.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 24],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[(8, 8, 16, 1, 1, 3), (16, 8, 24, 1, 1, 3)],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, False],
    ).save_to_preset(str(folder / "hgnet"))
    models.DINOV2Backbone(
        patch_size=14, num_layers=2, hidden_dim=16, num_heads=2, intermediate_dim=32, position_embedding_shape=(70, 70)
    ).save_to_preset(str(folder / "dino"))
    return folder


def built(preset: Path, size: tuple[int, int], weights: str | None = "imagenet") -> keras.Model:
    return create_model(weights, (None, None, 3), classes=3, image_size=size, backbone=str(preset))


def experiment(preset: Path, size: int, **recipe: object) -> Experiment:
    settings = {"seed": 1, "data": {"directory": "cars", "image_size": [size, size]}, "recipe": recipe}
    return Experiment.model_validate(settings | {"model": {"backbone": str(preset)}})


@pytest.mark.parametrize(
    ("name", "size", "features", "stages"), [("resnet", 32, 64, 3), ("hgnet", 32, 24, 3), ("dino", 28, 16, 4)]
)
def test_a_preset_trains_is_saved_and_predicts_the_same(
    presets: Path, tmp_path: Path, noise: np.ndarray, name: str, size: int, features: int, stages: int
) -> None:
    preset = presets / name
    model = built(preset, (size, size))
    assert model.get_layer("dropout").input.shape == (None, features)
    original = keras_hub.models.Backbone.from_preset(str(preset), image_shape=(size, size, 3))
    inner = next(layer for layer in model.layers if isinstance(layer, type(original)))
    for weight, truth in zip(inner.get_weights(), original.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, truth)

    groups = stages_of(model, str(preset))
    assert len(groups) == stages
    models = models_from(model, experiment(preset, size, freeze=1), hardware)
    frozen = {id(variable) for layer in stages_of(models.train_model, str(preset))[0] for variable in layer.weights}
    trained = {id(variable) for variable in models.train_model.trainable_variables}
    assert frozen
    assert not frozen & trained
    before = models.train_model.get_weights()
    loss, _ = models.train_on_batch(noise[:3], np.eye(3, dtype=np.float32), (size, size), rate=0.01)
    assert np.isfinite(loss)
    assert any((now != old).any() for now, old in zip(models.train_model.get_weights(), before, strict=True))

    path = tmp_path / "model.keras"
    save_checkpoint(model, Metadata(NAMES, NAMES, (size, size), {}, {}, "cars"), path)
    expected = np.asarray(model(noise[:2], training=False))
    np.testing.assert_allclose(np.asarray(load_model(path)(noise[:2], training=False)), expected, atol=0.02)


def test_a_transformer_that_is_trained_whole_is_saved_as_it_was_validated(
    presets: Path, tmp_path: Path, noise: np.ndarray
) -> None:
    model = built(presets / "dino", (28, 28))
    models = models_from(model, experiment(presets / "dino", 28), hardware)
    before = models.train_model.get_weights()
    for _ in range(3):
        models.train_on_batch(noise[:3], np.eye(3, dtype=np.float32), (28, 28), rate=0.1)
    assert any((now != old).any() for now, old in zip(models.train_model.get_weights(), before, strict=True))
    with models.averaged():
        path = tmp_path / "model.keras"
        save_checkpoint(model, Metadata(NAMES, NAMES, (28, 28), {}, {}, "cars"), path)
        for saved, validated in zip(load_model(path).get_weights(), models.main_model.get_weights(), strict=True):
            np.testing.assert_array_equal(saved, validated)


def test_images_are_scaled_as_the_preset_says(presets: Path) -> None:
    layer = built(presets / "resnet", (32, 32)).get_layer("preprocessing")
    np.testing.assert_allclose(np.asarray(layer(np.full((1, 2, 2, 3), 127.5))), (0.5 - 0.485) / 0.229, atol=1e-5)


def test_images_are_scaled_to_one_where_a_repository_says_nothing(
    presets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keras_hub.layers.ImageConverter, "from_preset", lambda _: None)
    layer = built(presets / "resnet", (32, 32)).get_layer("preprocessing")
    np.testing.assert_allclose(np.asarray(layer(np.full((1, 2, 2, 3), 127.5))), 0.5, atol=1e-5)
    assert "has no ImageConverter, which says how to scale images: they are scaled to 0..1" in caplog.text


def test_random_weights_are_not_the_presets(presets: Path) -> None:
    random, saved = (built(presets / "resnet", (32, 32), weights).get_weights()[0] for weights in (None, "imagenet"))
    assert (random != saved).any()


@pytest.mark.parametrize(
    ("name", "recipe", "message"),
    [
        (
            "dino",
            {"test_sizes": [[28, 28], [42, 42]]},
            "takes images of one size, .* .28, 28.; got .42, 42.",
        ),
        ("hgnet", {"freeze": 4}, "recipe.freeze: must be at most 3, the stages of"),
    ],
)
def test_what_a_preset_cannot_do_is_one_line(presets: Path, name: str, recipe: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        models_from(built(presets / name, (28, 28)), experiment(presets / name, 28, **recipe), hardware)


def test_an_image_size_that_is_no_multiple_of_the_patches_is_one_line(presets: Path) -> None:
    message = r"^data\.image_size: \S+dino divides .* patches of 14 x 14 pixels .*, such as \[28, 28\]; got \[30, 30\]$"
    with pytest.raises(ConfigError, match=message):
        built(presets / "dino", (30, 30))


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("resnet_vd_50_sld_v2_imagenet", r"KerasHub has no preset .*; did you mean `resnet_vd_50_ssld_v2_imagenet`\?"),
        ("gone/preset", "gone/preset cannot be loaded for images of 28 x 28 .*save_to_preset, and give the folder"),
    ],
)
def test_a_preset_that_cannot_be_had_is_one_line(preset: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.backbone: {message}") as caught:
        built(Path(preset), (28, 28))
    assert "\n" not in str(caught.value)
