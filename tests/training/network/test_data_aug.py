from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from whichcar.config.augmentations import AllAugmentations, checked
from whichcar.errors import ConfigError
from whichcar.training.hardware import prepare
from whichcar.training.network.data_aug import create_data_aug_layer

prepare("float32")
import keras  # noqa: E402

# Every layer, with a list wherever one is allowed.
EVERY: dict[str, dict[str, Any]] = {
    "random_flip": {"mode": "horizontal_and_vertical", "name": "turned"},
    "random_rotation": {"factor": [-0.1, 0.2], "fill_mode": "constant", "fill_value": 7.0},
    "random_zoom": {"height_factor": [-0.2, 0.1], "width_factor": [0.1, 0.2], "fill_mode": "nearest"},
    "random_translation": {"height_factor": [-0.1, 0.1], "width_factor": 0.1},
    "random_shear": {"x_factor": [0.0, 0.2], "y_factor": 0.1},
    "random_contrast": {"factor": [0.2, 0.3]},
    "random_brightness": {"factor": [-0.2, 0.1]},
    "random_hue": {"factor": [0.1, 0.2]},
    "random_saturation": {"factor": [0.4, 0.6]},
    "random_sharpness": {"factor": [0.1, 0.5]},
    "random_grayscale": {"factor": 0.5},
    "random_color_jitter": {"brightness_factor": [-0.1, 0.2], "contrast_factor": 0.2, "hue_factor": [0.0, 0.1]},
    "random_gaussian_blur": {"factor": 1.0, "kernel_size": 3, "sigma": [0.5, 1.0]},
    "random_erasing": {"factor": 1.0, "scale": [0.1, 0.2]},
}


def test_parameters_are_passed_through_in_order() -> None:
    made = create_data_aug_layer(
        {
            "random_zoom": {"height_factor": 0.1, "width_factor": 0.2},
            "random_flip": {"mode": "vertical", "name": "upside_down"},
            "random_rotation": {"factor": 0.025, "fill_mode": "constant", "fill_value": 9.0},
        }
    )
    assert isinstance(made, keras.Sequential)
    zoom, flip, rotation = made.layers
    assert (type(zoom), type(flip), type(rotation)) == (
        keras.layers.RandomZoom,
        keras.layers.RandomFlip,
        keras.layers.RandomRotation,
    )
    assert (zoom.height_factor, zoom.width_factor) == (0.1, 0.2)
    assert (flip.mode, flip.name) == ("vertical", "upside_down")
    assert (rotation.fill_mode, rotation.fill_value) == ("constant", 9.0)
    assert np.allclose(rotation.factor, (-0.025, 0.025))


def test_nothing_gives_an_empty_sequential() -> None:
    made = create_data_aug_layer({})
    assert isinstance(made, keras.Sequential)
    assert made.layers == []


def test_the_mapping_is_not_changed() -> None:
    given = {"random_rotation": {"factor": [-0.1, 0.1]}}
    create_data_aug_layer(given)
    assert given == {"random_rotation": {"factor": [-0.1, 0.1]}}


def test_every_layer_works_in_training_and_rests_at_prediction(noise: np.ndarray) -> None:
    keras.utils.set_random_seed(0)
    assert checked(EVERY) == EVERY
    assert AllAugmentations.model_fields.keys() == EVERY.keys()
    images = noise[:4].astype(np.float32)
    for name, parameters in EVERY.items():
        made = create_data_aug_layer({name: parameters})
        changed = np.asarray(made(images, training=True))
        assert (changed.shape, changed.dtype) == (images.shape, np.float32), name
        assert np.isfinite(changed).all(), name
        assert np.abs(changed - images).max() > 1, name
        np.testing.assert_allclose(np.asarray(made(images, training=False)), images, atol=1e-4, err_msg=name)


def test_a_horizontal_flip_mirrors_some_images_and_leaves_the_others(noise: np.ndarray) -> None:
    keras.utils.set_random_seed(0)
    images = noise.astype(np.float32)
    changed = np.asarray(create_data_aug_layer({"random_flip": {"mode": "horizontal"}})(images, training=True))
    left = (changed == images).all((1, 2, 3))
    mirrored = (changed == images[:, :, ::-1]).all((1, 2, 3))
    assert (left ^ mirrored).all()
    assert 10 < left.sum() < 54


def test_an_unknown_layer_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"data_aug_layer\.random_flop: no such layer; known: random_flip, "):
        create_data_aug_layer({"random_flop": {}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"random_flip": {"moode": "horizontal"}}, "data_aug_layer.random_flip.moode: "),
        # Keras would take it, and flip nothing.
        ({"random_flip": {"mode": "sideways"}}, "data_aug_layer.random_flip.mode: "),
        ({"random_rotation": {}}, "data_aug_layer.random_rotation.factor: "),
        ({"random_zoom": {"height_factor": 7}}, "data_aug_layer.random_zoom.height_factor: must be a number"),
        ({"random_flip": None}, "data_aug_layer.random_flip: "),
    ],
)
def test_a_wrong_parameter_is_one_line_that_names_it(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_data_aug_layer(given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
