"""KerasHub backbones (extra `hub`), given by a preset's name, its address, or the folder that it was saved to."""

from __future__ import annotations

import logging
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.config.backbones import KERAS
from whichcar.environment import expanded
from whichcar.errors import CheckpointError, ConfigError, MissingExtraError
from whichcar.text import one_line
from whichcar.training.hardware import is_out_of_memory

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)


def keras_hub() -> Any:  # noqa: ANN401
    """Import and return KerasHub, which also lets Keras load models with its layers.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise MissingExtraError(f"KerasHub ({one_line(error)})", "hub") from error
    return keras_hub


def preset_features(preset: str, weights: str | Path | None, images: Any, scaling: str) -> Any:  # noqa: ANN401
    """Apply a preset's image scaling, backbone and pooling to `images`.

    Args:
        preset: its name, address or folder.
        weights: `imagenet` for the preset's own, None for random ones, or the path of the backbone's weights.
        images: Keras tensor (n, height, width, 3), RGB in 0..255.
        scaling: name of the scaling layer.

    Returns:
        Keras tensor (n, features): the class token if the backbone has one, else the average over all positions.

    Raises:
        ConfigError: there is no such preset, it cannot be downloaded, or it does not accept images of this size.
        CheckpointError: the file holds other weights.
    """
    import keras

    backbone = _of_any_size(_backbone(preset, weights == "imagenet", images.shape[1:3]))
    if weights not in (None, "imagenet"):
        try:
            backbone.load_weights(expanded(str(weights)))
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{weights}: does not hold the weights of {preset}") from error
    x = keras.layers.Rescaling(*_scale(preset), name=scaling)(images)
    outputs = backbone({"images": x} if isinstance(backbone.input, dict) else x)
    if isinstance(outputs, dict):  # one for each stage
        outputs = outputs[list(backbone.output)[-1]]
    if len(outputs.shape) == 4:
        return keras.layers.GlobalAveragePooling2D(name="avg_pool")(outputs)
    tokens, side = outputs.shape[1], getattr(backbone, "patch_size", 0)
    height, width = side if isinstance(side, tuple | list) else (side, side)
    size = list(images.shape[1:3])
    if height and (size[0] % height or size[1] % width):  # the remainder at the right and bottom would be ignored
        near = [max(1, round(pixels / patch)) * patch for pixels, patch in zip(size, (height, width), strict=True)]
        raise ConfigError(
            f"data.image_size: {preset} divides images into patches of {height} x {width} pixels and takes multiples "
            f"of these, such as {near}; got {size}"
        )
    if height and tokens > (size[0] // height) * (size[1] // width):
        outputs = keras.layers.Cropping1D((0, tokens - 1), name="class_token")(outputs)
    return keras.layers.GlobalAveragePooling1D(name="avg_pool")(outputs)


def preset_stages(backbone: keras.Model) -> list[list[keras.Layer]]:
    """Return the layers of each stage, grouped by name up to the first number; encoders are split into blocks."""
    stages: dict[str, list[keras.Layer]] = {}
    for layer in backbone.layers:
        parts = layer._layers if type(layer).__name__.endswith("Encoder") else [layer]
        for part in (part for part in parts if part.weights):
            found = re.match(r"\D*\d+|[^_]+", part.name.removeprefix(f"{backbone.name}_"))
            stages.setdefault(found[0] if found else part.name, []).append(part)
    return list(stages.values())


def _backbone(preset: str, pretrained: bool, size: tuple[int, int]) -> keras.Model:
    hub = keras_hub()
    folder = expanded(preset)
    names = hub.models.Backbone.presets
    if "/" not in preset and not folder.is_dir() and preset not in names:
        close = get_close_matches(preset, [*KERAS, *names], n=1)
        advice = f"did you mean `{close[0]}`?" if close else "give a name, an address such as hf://…, or a folder"
        raise ConfigError(f"model.backbone: KerasHub has no preset {preset}; {advice}")
    try:
        return hub.models.Backbone.from_preset(
            str(folder) if folder.is_dir() else preset, load_weights=pretrained, image_shape=(*size, 3)
        )
    except Exception as error:  # any error of the download, or a limit of the network
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"model.backbone: {preset} cannot be loaded for images of {size[0]} x {size[1]} ({one_line(reason)}); if "
            "it cannot be downloaded here, save its Backbone and its ImageConverter elsewhere to one folder with "
            "KerasHub's save_to_preset, and give the folder"
        ) from error


def _of_any_size(backbone: keras.Model) -> keras.Model:
    """Return the backbone rebuilt for images of any size, or unchanged if its input size is fixed (transformers)."""
    try:
        free = type(backbone).from_config({**backbone.get_config(), "image_shape": (None, None, 3)})
    except (TypeError, ValueError):
        return backbone
    free.set_weights(backbone.get_weights())
    return free


def _scale(preset: str) -> tuple[Any, Any]:
    """Return the factor and offset that scale images from 0..255 as the preset's weights expect."""
    hub, folder = keras_hub(), expanded(preset)
    try:
        converter = hub.layers.ImageConverter.from_preset(str(folder) if folder.is_dir() else preset)
    except (FileNotFoundError, ValueError):
        converter = None
    if converter is None:  # also for an address `hf://…` of a repository that does not specify the scaling
        log.warning("%s has no ImageConverter, which says how to scale images: they are scaled to 0..1", preset)
        return 1 / 255, 0.0
    return (1.0 if converter.scale is None else converter.scale), (
        0.0 if converter.offset is None else converter.offset
    )
