"""Backbones by name: preprocessing, layers, published weights, and freezing of stages."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.config.backbones import KERAS, Backbone
from whichcar.environment import expanded
from whichcar.errors import CheckpointError, ConfigError
from whichcar.text import first_line
from whichcar.training.hardware import is_out_of_memory
from whichcar.training.network.hub import preset_features, preset_stages

if TYPE_CHECKING:
    import keras
    import numpy as np

log = logging.getLogger(__name__)
HEAD = "predictions"
# The layers of the head, which stay float32. Only a cosine head has the first two.
HEAD_LAYERS = ("head_norm", "head_scale", HEAD)
PREPROCESSING = "preprocessing"
# Channel statistics of ImageNet in RGB: Caffe's mean in 0..255, torchvision's mean and standard deviation in 0..1.
CAFFE_MEAN = (123.68, 116.779, 103.939)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Variables of KerasHub's DINOv2 that are not trained. Loading a model recomputes the interpolated position embeddings
# from the pretrained ones, which would discard what they have learned. The mask token is only used for pretraining and
# has no gradient.
_FIXED = ("interpolated_position_embeddings", "mask_token")


def build_backbone(name: str, weights: str | Path | None, images: Any) -> Any:  # noqa: ANN401
    """Apply preprocessing and backbone to `images`.

    Args:
        name: a network of `keras.applications` or a preset, as returned by `config.backbones.backbone_name`.
        weights: `imagenet` for the published ones, None for random ones, or the path of the backbone's weights.
        images: Keras tensor (n, height, width, 3), RGB in 0..255.

    Returns:
        Keras tensor (n, features): the average of the last feature map; for a preset, as in `preset_features`.

    Raises:
        ConfigError: the published weights cannot be downloaded.
        CheckpointError: the file holds the weights of another network.
    """
    if name not in KERAS:
        return preset_features(name, weights, images, PREPROCESSING)
    backbone = KERAS[name]
    images = _preprocessed(backbone, images)
    # For EfficientNet, Keras adds a layer only if it loads the weights itself (see `_preprocessed`), so they are copied
    # from a separate model.
    added = backbone.scaling == "efficientnet"
    model = _keras_model(backbone, "imagenet" if weights == "imagenet" and not added else None, images)
    if weights is None:
        return model.output
    if weights != "imagenet":
        _load(model, backbone, expanded(str(weights)))
    elif added:
        model.set_weights(_keras_model(backbone, "imagenet").get_weights())
        finalize(model)
    if backbone.scaling == "caffe":
        # These weights expect BGR. Reversing the channels of the first kernel is equivalent to reversing those of each
        # image and, unlike the latter, can be saved as `.h5`.
        first = next(layer for layer in model.layers if layer.weights)
        kernel, *others = first.get_weights()
        first.set_weights([kernel[:, :, ::-1], *others])
    return model.output


def imagenet_classifier(name: str, weights: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel (features, 1000) and bias (1000,) of a backbone's ImageNet classifier.

    Args:
        name: a network of `keras.applications` whose `has_classifier` is true.
        weights: `imagenet`, or the path of weights with the top layer.

    Raises:
        ConfigError: there is no such classifier, or it cannot be downloaded.
        CheckpointError: the file has no classifier.
    """
    here = "recipe.co_tuning"
    if name not in KERAS or weights is None:
        what = f"model.backbone {name} comes" if weights else "random weights come"
        raise ConfigError(f"{here}: {what} without ImageNet's classifier; use a Keras backbone with its weights")
    model = _keras_model(KERAS[name], "imagenet" if weights == "imagenet" else None, top=True)
    start = model.layers[-1].get_weights()
    if weights != "imagenet":
        # If the file lacks this layer, Keras leaves it unchanged, with an error or a warning depending on the format.
        with warnings.catch_warnings(), contextlib.suppress(OSError, ValueError, KeyError):
            warnings.simplefilter("ignore")
            model.load_weights(expanded(weights))
        if (model.layers[-1].get_weights()[0] == start[0]).all():
            raise CheckpointError(
                f"{here}: {weights} has no ImageNet classifier; give as model.weights imagenet, or the weights of "
                f"Keras' {KERAS[name].keras_name} with its top layer"
            )
    kernel, bias = model.layers[-1].get_weights()
    return kernel, bias


def has_classifier(name: str, weights: str | None) -> bool:
    """Return whether a network of `keras.applications` has an ImageNet classifier in these weights."""
    if weights is None or not KERAS[name].has_classifier:
        return False
    try:
        imagenet_classifier(name, weights)
    except CheckpointError:
        return False
    except ConfigError as error:  # the classifier cannot be downloaded, while the backbone's weights are here
        log.warning("without co-tuning: %s", error)
        return False
    return True


def finalize(model: keras.Model) -> keras.Model:
    """Recompute the tensors that a model's Normalization layers derive from newly set weights; return the model."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return model


def freeze(model: keras.Model, name: str, count: int) -> None:
    """Freeze the first `count` stages of the backbone, with their batch norm in inference mode.

    The position embeddings and the mask token of KerasHub's DINOv2 are always frozen.

    Args:
        model: a model from `training_copy`.
        name: name of its backbone.
        count: number of stages; if these are all stages, everything but the head is frozen.

    Raises:
        ConfigError: the backbone has fewer stages.
    """
    stages = stages_of(model, name)
    if count > len(stages):
        raise ConfigError(f"recipe.freeze: must be at most {len(stages)}, the stages of {name}; got {count}")
    is_all = count == len(stages)
    for layer in model.layers[:-1] if is_all else itertools.chain(*stages[:count]):
        layer.trainable = False
    for variable in model.trainable_variables:
        if variable.name in _FIXED:
            variable.trainable = False


def stages_of(model: keras.Model, name: str) -> list[list[keras.Layer]]:
    """Return the layers of each stage of a network's backbone."""
    if name in KERAS:
        return [[layer for layer in model.layers if re.match(stage, layer.name)] for stage in KERAS[name].stages]
    return preset_stages(preset_of(model))


def preset_of(model: keras.Model) -> keras.Model:
    """Return the KerasHub backbone of a network."""
    import keras

    return next(
        layer for layer in model.layers if isinstance(layer, keras.Model) and not isinstance(layer, keras.Sequential)
    )


def check_sizes(model: keras.Model, name: str, size: tuple[int, int], others: Iterable[tuple[int, int]]) -> None:
    """Check that a network with a fixed input size, such as a transformer, is not given images of other sizes.

    Raises:
        ConfigError: the network only accepts images of `size`, and `others` contains a different size.
    """
    other = next((list(other) for other in others if other != size), None)
    if name not in KERAS and other and preset_of(model).image_shape[0] is not None:
        raise ConfigError(
            f"recipe.stages and recipe.test_sizes: {name} takes images of one size, data.image_size {list(size)}; "
            f"got {other}"
        )


def _preprocessed(backbone: Backbone, images: Any) -> Any:  # noqa: ANN401
    """Scale images as the backbone's published weights expect, unless its own layers do so."""
    import keras

    scale: Any
    offset: Any
    match backbone.scaling:
        case "inside":
            return images
        case "caffe":
            scale, offset = 1.0, [-mean for mean in CAFFE_MEAN]
        case "tf":
            scale, offset = 1 / 127.5, -1.0
        case "torch":
            scale = [1 / (255 * deviation) for deviation in DEVIATION]
            offset = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
        case "efficientnet":
            # Keras divides by the square root of the deviation after the model's own layers, which subtract the mean,
            # but only if it loads the weights itself. This is equivalent scaling before those layers.
            scale = [deviation**-0.5 for deviation in DEVIATION]
            offset = [255 * mean * (1 - factor) for mean, factor in zip(MEAN, scale, strict=True)]
    return keras.layers.Rescaling(scale, offset, name=PREPROCESSING)(images)


def _keras_model(
    backbone: Backbone,
    weights: str | None,
    images: Any = None,  # noqa: ANN401
    top: bool = False,
) -> keras.Model:
    """Build Keras' model on `images`; published weights are downloaded unless they are in Keras' cache."""
    import keras

    function = getattr(keras.applications, backbone.keras_name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MobileNetV3 warns that its weights were trained at 224 pixels
            return function(weights=weights, include_top=top, input_tensor=images, pooling=None if top else "avg")
    except Exception as error:
        if weights is None or is_out_of_memory(error):
            raise
        # Keras passes on any error of the download (URLError, socket and HTTP errors, a plain Exception).
        named = re.search(r"https?://\S+\.h5", str(error))
        file = named[0] if named else f"those of Keras' {backbone.keras_name}"
        if backbone.has_classifier:  # which co-tuning needs
            file = re.sub("_no_?top", "", file)
        raise ConfigError(
            f"model.weights: the ImageNet weights of {backbone.keras_name} could not be downloaded "
            f"({first_line(error).rpartition(' -- ')[2]}); fetch {file} where there is a network and give its path as "
            "model.weights"
        ) from error


def _load(model: keras.Model, backbone: Backbone, path: Path) -> None:
    """Load a file of the backbone's weights, with or without the top layer."""
    try:
        model.load_weights(path)
        return
    except (OSError, ValueError, KeyError) as error:
        failure = error
    try:
        whole = _keras_model(backbone, None, top=True)
        whole.load_weights(path)
    except (OSError, ValueError, KeyError):
        raise CheckpointError(
            f"{path}: holds no {backbone.keras_name}; give the 'notop' weights of Keras' {backbone.keras_name}"
        ) from failure
    model.set_weights(whole.get_weights()[: len(model.weights)])
    finalize(model)
