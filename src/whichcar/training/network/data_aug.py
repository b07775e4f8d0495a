"""Augmentation as Keras layers inside the model, built from the `data_aug_layer` section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from whichcar.config.augmentations import AUGMENTATIONS
from whichcar.config.messages import messages
from whichcar.errors import ConfigError

if TYPE_CHECKING:
    import keras


def create_data_aug_layer(data_aug_layer: Mapping[str, Mapping[str, Any]]) -> keras.Sequential:
    """Build the augmentation layers in the order of the mapping.

    Args:
        data_aug_layer: maps layer names, such as `random_flip`, to parameters, which are passed through (also `name`).
            Images are (n, h, w, 3) in 0..255. `{}` returns an empty Sequential.

    Raises:
        ConfigError: an unknown layer, or a parameter that the layer does not accept.

    Example:
        >>> create_data_aug_layer({"random_flip": {"mode": "horizontal"}, "random_zoom": {"height_factor": 0.1}})
    """
    import keras

    made = keras.Sequential(name="data_aug")
    for name, parameters in data_aug_layer.items():
        if name not in AUGMENTATIONS:
            raise ConfigError(f"data_aug_layer.{name}: no such layer; known: {', '.join(AUGMENTATIONS)}")
        try:
            keys = AUGMENTATIONS[name].model_validate(parameters).model_dump(exclude_unset=True)
            made.add(getattr(keras.layers, name.title().replace("_", ""))(**keys))
        except ValidationError as error:
            key, message = next(iter(messages(error, AUGMENTATIONS[name]).items()))
            raise ConfigError(f"data_aug_layer.{f'{name}.{key}'.rstrip('.')}: {message}") from error
        except (TypeError, ValueError) as error:
            raise ConfigError(f"data_aug_layer.{name}: {str(error).splitlines()[0]}") from error
    return made
