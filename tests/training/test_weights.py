"""What of a trained model is used as `model.weights`: its head only for the same classes, by name."""

from __future__ import annotations

import logging
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from whichcar.config.experiment import Model
from whichcar.errors import CheckpointError
from whichcar.records import Metadata
from whichcar.training.hardware import prepare
from whichcar.training.run.checkpoint import save_checkpoint
from whichcar.training.weights import head_order, plain_model

prepare("float32")
if TYPE_CHECKING:
    import keras

NAMES = ("BMW X3 2012", "MINI 2009", "Ram C/V Cargo Van Minivan 2012", "VW Golf 1991", "Škoda Octavia 2011")
BACKBONE = "vgg16"  # built several times as fast as ResNet-50
METADATA = Metadata(NAMES, NAMES, (32, 32), {}, {"model": {"backbone": BACKBONE}}, "cars")


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A network of these classes, whose answers differ by class; not to be changed."""
    from whichcar.training.network.resnet50 import create_model

    model = create_model(None, (None, None, 3), classes=5, image_size=(32, 32), backbone=BACKBONE)
    head = model.get_layer("predictions")
    head.set_weights([head.get_weights()[0], np.arange(5) / 2])
    return model


@pytest.fixture(scope="module")
def trained(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of it."""
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    save_checkpoint(network, METADATA, path)
    return path


def settings(weights: Path, **others: float) -> Model:
    return Model(weights=str(weights), backbone=BACKBONE, **others)  # type: ignore[arg-type]


def test_a_head_of_the_same_classes_is_used_in_the_order_of_the_data(
    trained: Path, network: keras.Model, noise: np.ndarray
) -> None:
    order = [4, 2, 0, 1, 3]
    built = plain_model(settings(trained), (32, 32), [NAMES[number] for number in order])
    expected = np.asarray(network(noise[:4], training=False))[:, order]
    np.testing.assert_allclose(np.asarray(built(noise[:4], training=False)), expected, atol=1e-5)


@pytest.mark.slow
def test_the_head_for_other_classes_is_not_used_and_a_warning_says_so(
    trained: Path, network: keras.Model, caplog: pytest.LogCaptureFixture
) -> None:
    built = plain_model(settings(trained), (32, 32), [*NAMES[:4], "Zaporozhets 968 1972"])
    first, head = "block1_conv1", "predictions"
    np.testing.assert_array_equal(*(model.get_layer(first).get_weights()[0] for model in (built, network)))
    assert not np.allclose(*(model.get_layer(head).get_weights()[0] for model in (built, network)))
    assert "its head is not: it was trained on other classes (Zaporozhets 968 1972, Škoda Octavia 2011)" in caplog.text


@pytest.mark.slow
def test_a_head_of_the_other_kind_is_not_used_and_a_warning_says_so(
    trained: Path, network: keras.Model, caplog: pytest.LogCaptureFixture
) -> None:
    built = plain_model(settings(trained, cosine_scale=16.0), (32, 32), NAMES)
    np.testing.assert_array_equal(*(model.get_layer("block1_conv1").get_weights()[0] for model in (built, network)))
    assert len(built.get_layer("predictions").weights) == 1
    assert f"the backbone of {trained} is used, its head is not: one of the two is a cosine head" in caplog.text


def test_a_whole_network_of_keras_which_takes_bgr_is_refused(tmp_path: Path) -> None:
    import keras

    keras.applications.ResNet50(weights=None).save(tmp_path / "resnet50.keras")
    with pytest.raises(CheckpointError, match="is not a resnet50 as whichcar builds it"):
        plain_model(Model(weights=str(tmp_path / "resnet50.keras")), (32, 32), NAMES)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (NAMES, [0, 1, 2, 3, 4]),
        ([unicodedata.normalize("NFD", name) for name in NAMES], [0, 1, 2, 3, 4]),
        ([name.replace("/", "-") for name in reversed(NAMES)], [4, 3, 2, 1, 0]),
        (NAMES[:4], None),
        ((*NAMES, "another"), None),
        ((*NAMES[:4], NAMES[0]), None),
        ([name.lower() for name in NAMES], None),
    ],
)
def test_classes_are_compared_by_name(
    trained: Path, names: list[str], expected: list[int] | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert head_order(trained, names) == expected
    assert ("its head is not" if expected is None else "backbone and head of") in caplog.text


def test_a_name_that_is_one_folder_with_another_is_not_mistaken_for_it(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    names = ("Ram C/V", "Ram C-V")
    save_checkpoint(model, replace(METADATA, class_names=names), tmp_path / "model.keras")
    assert head_order(tmp_path / "model.keras", ["Ram C-V", "Ram C/V"]) == [1, 0]
    assert head_order(tmp_path / "model.keras", ["Ram C-V", "Ram C:V"]) is None


def test_the_head_of_a_model_without_class_names_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import keras

    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "model.keras")
    assert head_order(tmp_path / "model.keras", ["a", "b"]) is None
    assert "names no classes: its backbone is used, its head is not" in caplog.text
