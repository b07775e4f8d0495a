"""The table of augmentation layers, held against Keras."""

import inspect
import subprocess
import sys
from typing import Any

import pytest

from whichcar.config.augmentations import AUGMENTATIONS, checked
from whichcar.training.network.data_aug import create_data_aug_layer

# The model's layout is fixed, and the other two are read from the images' range, 0..255, unless given.
NOT_OURS = {"self", "data_format", "kwargs"}
SAMPLES: dict[str, Any] = {
    "mode": ["horizontal", "vertical", "horizontal_and_vertical"],
    "fill_mode": ["constant", "nearest", "reflect", "wrap"],
    "interpolation": ["nearest", "bilinear"],
    "value_range": [[0, 255]],
    "kernel_size": [1, 3],
    "seed": [None, 3],
    "name": ["mine"],
    "fill_value": [0, 128.5],
}


def keras_layer(name: str) -> Any:  # noqa: ANN401  (Keras has no types)
    pytest.importorskip("keras")
    from whichcar.training.hardware import prepare

    prepare("float32")
    import keras

    return getattr(keras.layers, name.title().replace("_", ""))


def accepted(name: str, parameter: str) -> list[Any]:
    """Values at and inside the limits of the table, found by asking it."""
    tried = SAMPLES.get(parameter, [-1, -0.999, 0, 0.5, 1, [-1, 1], [0.2, 0.4], [0, 1]])
    field = AUGMENTATIONS[name].model_fields[parameter]
    rest = {key: 0.5 for key, other in AUGMENTATIONS[name].model_fields.items() if other.is_required()}
    good = []
    for value in tried:
        try:
            checked({name: rest | {parameter: value}})
        except ValueError:
            continue
        good.append(value)
    assert good, field
    return good


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_parameters_are_those_of_keras(name: str) -> None:
    signature = inspect.signature(keras_layer(name).__init__).parameters
    fields = AUGMENTATIONS[name].model_fields
    assert set(fields) - {"name"} == set(signature) - NOT_OURS
    needed = {key for key, one in signature.items() if one.default is inspect.Parameter.empty} - NOT_OURS
    assert {key for key, field in fields.items() if field.is_required()} == needed


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_keras_accepts_whatever_the_table_accepts(name: str) -> None:
    keras_layer(name)
    fields = AUGMENTATIONS[name].model_fields
    rest = {key: 0.5 for key, field in fields.items() if field.is_required()}
    for parameter in fields:
        for value in accepted(name, parameter):
            layers = checked({name: rest | {parameter: value}})
            assert len(create_data_aug_layer(layers).layers) == 1


def test_the_table_is_read_without_keras() -> None:
    code = "import sys, whichcar.config.load; assert not {'keras', 'tensorflow', 'jax', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
