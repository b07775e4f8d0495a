"""The network: a backbone, by default ResNet-50 (He et al. 2015), with a softmax head, and its training copy."""

from __future__ import annotations

import itertools
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.config.backbones import DEFAULT, KERAS, backbone_name
from whichcar.environment import expanded
from whichcar.errors import CheckpointError, ConfigError
from whichcar.training.network.backbones import HEAD, HEAD_LAYERS, build_backbone, finalize
from whichcar.training.network.data_aug import create_data_aug_layer
from whichcar.training.network.hub import keras_hub

if TYPE_CHECKING:
    import keras


def create_model(
    weights: str | Path | None = "imagenet",
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    dropout_rate: float = 0.0,
    data_aug_layer: Mapping[str, Mapping[str, Any]] | None = None,
    classes: int | None = None,
    l1_factor: float = 0.0,
    l2_factor: float = 0.0,
    cosine_scale: float = 0.0,
    image_size: tuple[int, int] | None = None,
    backbone: str = DEFAULT,
) -> keras.Model:
    """Build the classifier: Input, augmentation, preprocessing, backbone with average pooling, Dropout, softmax.

    Args:
        weights: `imagenet` for the backbone's published ones, None for random ones, the path of a trained model (loaded
            unchanged; the other arguments are then ignored), or the path of backbone weights, such as
            `resnet50_notop.h5`.
        input_shape: (height, width, 3); height and width may be None.
        dropout_rate: share of the backbone's features dropped while training, 0 <= rate < 1.
        data_aug_layer: as for `create_data_aug_layer`; None or `{}` for none.
        classes: number of classes; needed unless a trained model is loaded.
        l1_factor, l2_factor: penalties on the head's kernel; 0 is off. (With an L1 of 0.01 the loss starts at
            about 107, which drowns out learning.)
        cosine_scale: scale of the cosine head; 0 for a dense head.
        image_size: add a first layer that resizes images to (height, width), bilinear with anti-aliasing, so that a
            saved model accepts images of any size.
        backbone: a network of `keras.applications` by its name, such as `efficientnet_v2_b0`, or a preset of KerasHub.

    Returns:
        A model from (n, height, width, 3) RGB in 0..255, uint8 or float, to (n, classes) float32 probabilities.

    Raises:
        ConfigError: `classes` is missing, the backbone is unknown, or its published weights cannot be downloaded.
        CheckpointError: `weights` is not a file, or holds neither a model nor the backbone's weights.
    """
    import keras

    if weights not in (None, "imagenet"):
        path = existing(Path(str(weights)))
        if is_whole_model(path):
            return load_saved_model(path)
    if classes is None:
        raise ConfigError("model.classes: missing; give the number of classes")
    try:
        backbone = backbone_name(backbone)
    except ValueError as error:
        raise ConfigError(f"model.backbone: {error}") from error
    inputs = keras.Input(tuple(input_shape), name="image")
    x = inputs
    # Without `training=False`, a plain `model(images)` would run these layers and all that follow, including batch
    # norm, in training mode (`training=True` is the default of their `call`).
    if image_size is not None:
        resize = keras.layers.Resizing(*image_size, interpolation="bilinear", antialias=True, name="resize")
        x = resize(x, training=False)
    if data_aug_layer:
        x = create_data_aug_layer(data_aug_layer)(x, training=False)
    x = build_backbone(backbone, weights, x)
    x = keras.layers.Dropout(dropout_rate, name="dropout")(x)
    penalty = keras.regularizers.L1L2(l1=l1_factor, l2=l2_factor) if l1_factor or l2_factor else None
    return keras.Model(
        inputs, _head(x, classes, penalty, cosine_scale), name=backbone if backbone in KERAS else "preset"
    )


def _head(x: Any, classes: int, penalty: keras.regularizers.Regularizer | None, cosine_scale: float) -> Any:  # noqa: ANN401
    """Return probabilities from features, by a dense layer or by the cosine to each class (Wang et al. 2018).

    The logits of a cosine head are `cosine_scale` times the cosine of the angle between the features and the weights of
    each class. They do not depend on the norm of the features, which changes with the image size, and the number of
    classes does not affect how far a step rotates the weights. The head consists of Keras' own layers, so that Keras
    alone can load it.
    """
    import keras

    options = {"kernel_regularizer": penalty, "dtype": "float32", "name": HEAD}
    if not cosine_scale:
        return keras.layers.Dense(classes, "softmax", **options)(x)
    x = keras.layers.UnitNormalization(dtype="float32", name=HEAD_LAYERS[0])(x)
    x = keras.layers.Rescaling(cosine_scale, dtype="float32", name=HEAD_LAYERS[1])(x)
    options |= {"kernel_initializer": "orthogonal", "kernel_constraint": keras.constraints.UnitNorm(axis=0)}
    return keras.layers.Dense(classes, "softmax", use_bias=False, **options)(x)


def training_copy(
    model: keras.Model,
    policy: str,
    fused: bool,
    front: keras.layers.Layer | None = None,
    batch_norm_momentum: float | None = None,
    seed: int | None = None,
) -> keras.Model:
    """Copy a model into a form that trains and predicts fast: same weights in the same order, different layers.

    Args:
        policy: Keras dtype policy of the backbone, `mixed_bfloat16` or `float32`; the head stays float32.
        fused: use TensorFlow's fused op for batch norm, and fast strided convolutions.
        front: layer that replaces the `resize` layer, such as random crop and augmentation.
        batch_norm_momentum: replaces the layers' own.
        seed: random seed of dropout, which otherwise depends on the number of layers created before; each dropout layer
            gets its own.
    """
    import keras

    seeds = itertools.count(seed or 0)

    def copied(layer: Any) -> Any:  # noqa: ANN401
        if isinstance(layer, keras.Sequential):  # such as the stem of a ConvNeXt
            return keras.models.clone_model(layer, clone_function=copied)
        if not isinstance(layer, keras.Layer):
            return layer
        if front is not None and isinstance(layer, keras.layers.Resizing):
            return front
        config = layer.get_config()
        if "dtype" in config and layer.name not in HEAD_LAYERS and not isinstance(layer, keras.layers.Resizing):
            config["dtype"] = policy
        if isinstance(layer, keras.layers.Dropout):
            config["seed"] = None if seed is None else next(seeds)
        return (_on_tensorflow(layer) if fused else type(layer)).from_config(config)

    clone = keras.models.clone_model(model, clone_function=copied)
    clone.set_weights(model.get_weights())
    finalize(clone)
    for layer in clone._flatten_layers() if batch_norm_momentum is not None else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
    return clone


def _on_tensorflow(layer: keras.Layer) -> type[keras.Layer]:
    """Return the class of layers that are faster than this one on TensorFlow, or its own."""
    import keras

    if isinstance(layer, keras.layers.BatchNormalization):
        from whichcar.training.network.batch_norm import FusedBatchNormalization

        return FusedBatchNormalization
    if type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1) and layer.strides != (1, 1):
        from whichcar.training.network.strided_convolution import StridedConv2D

        return StridedConv2D
    return type(layer)


def load_saved_model(path: Path) -> keras.Model:
    """Load a `.keras` or `.h5` model, not compiled.

    Raises:
        CheckpointError: the file is broken or holds no model.
        MissingExtraError: it holds a backbone of KerasHub, which is not installed.
    """
    import keras

    if _holds_preset(path):
        keras_hub()

    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: not a model that Keras can load ({reason}); train it again") from error


def _holds_preset(path: Path) -> bool:
    """Return whether a file is a `.keras` file with layers of KerasHub."""
    try:
        with zipfile.ZipFile(path) as archive:
            return b'"keras_hub' in archive.read("config.json")
    except (OSError, KeyError, zipfile.BadZipFile):
        return False


def existing(path: Path) -> Path:
    """Return the path of a weights file, with `~` expanded.

    Raises:
        CheckpointError: there is no such file.
        OSError: it cannot be read.
    """
    path = expanded(path)
    if path.is_dir():
        raise CheckpointError(
            f"model.weights: {path} is a folder; give a checkpoint in it, such as the one that its best.json names"
        )
    if not path.is_file():
        raise CheckpointError(
            f"model.weights: no file {path}; give imagenet, null, or the path of a .keras or .h5 file"
        )
    path.open("rb").close()  # libraries take a file that may not be read for a damaged one
    return path


def is_whole_model(path: Path) -> bool:
    """Return True if a file holds a whole model, False if it holds weights only."""
    if path.suffix == ".keras":
        return True
    import h5py

    try:
        with h5py.File(path) as file:
            return "model_config" in file.attrs
    except OSError as error:
        raise CheckpointError(f"{path}: not an HDF5 file; give a .keras or .h5 file") from error
