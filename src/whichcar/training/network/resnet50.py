"""The network: ResNet-50 (He et al. 2015) with a softmax head, and the copy of it that trains."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.environment import expanded
from whichcar.errors import CheckpointError, ConfigError
from whichcar.training.network.data_aug import create_data_aug_layer

if TYPE_CHECKING:
    import keras

HEAD = "predictions"
PREPROCESSING = "preprocessing"
# The mean of ImageNet in RGB, which the published weights expect to be taken off.
MEAN = (123.68, 116.779, 103.939)
# The layers of each stage by the beginning of their names; `recipe.freeze: n` keeps the first n fixed.
STAGES = ("conv1_", "conv2_", "conv3_", "conv4_", "conv5_")

# The published weights without the top layer, as `keras.applications.ResNet50` downloads them.
_IMAGENET = (
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
_IMAGENET_MD5 = "4d473c1dd8becc155b73f8504c6f6626"


def create_model(
    weights: str | Path | None = "imagenet",
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    dropout_rate: float = 0.0,
    data_aug_layer: Mapping[str, Mapping[str, Any]] | None = None,
    classes: int | None = None,
    l1_factor: float = 0.0,
    l2_factor: float = 0.0,
    image_size: tuple[int, int] | None = None,
) -> keras.Model:
    """Build the classifier: Input, augmentation, preprocessing, ResNet-50 with average pooling, Dropout, softmax.

    Preprocessing takes the mean of ImageNet off. The published weights see BGR: instead of turning every image round,
    their first kernel is turned round once, which is the same and, unlike a turn, can be saved as `.h5`.

    Args:
        weights: `imagenet`, None for random ones, the path of a trained model (loaded as it is; the other arguments
            are then not used), or the path of backbone weights such as `resnet50_notop.h5`.
        input_shape: (height, width, 3); height and width may be None.
        dropout_rate: share of the 2048 features dropped while training, 0 <= rate < 1.
        data_aug_layer: as `create_data_aug_layer` takes it; None or `{}` for none.
        classes: number of classes; needed unless a trained model is loaded.
        l1_factor, l2_factor: penalties on the head's kernel; 0 is off. (An L1 of 0.01 starts the loss at
            about 107 and drowns learning.)
        image_size: put a layer first that resizes images of any size to (height, width), bilinear with
            anti-aliasing, so that a saved model takes any image.

    Returns:
        A model from (n, height, width, 3) RGB in 0..255, uint8 or float, to (n, classes) float32 probabilities.

    Raises:
        ConfigError: `classes` is missing, or the ImageNet weights cannot be downloaded.
        CheckpointError: `weights` is no file, or holds neither a model nor a ResNet-50's weights.
    """
    import keras

    if weights not in (None, "imagenet"):
        path = existing(Path(str(weights)))
        if is_whole_model(path):
            return load_saved_model(path)
    if classes is None:
        raise ConfigError("model.classes: missing; give the number of classes")
    inputs = keras.Input(tuple(input_shape), name="image")
    x = inputs
    # Left to themselves these layers take a plain `model(images)` for training, and so do all that follow them,
    # batch-norm among them (`training=True` is the default of their `call`).
    if image_size is not None:
        resize = keras.layers.Resizing(*image_size, interpolation="bilinear", antialias=True, name="resize")
        x = resize(x, training=False)
    if data_aug_layer:
        x = create_data_aug_layer(data_aug_layer)(x, training=False)
    x = keras.layers.Rescaling(1.0, [-channel for channel in MEAN], name=PREPROCESSING)(x)
    x = _backbone(weights, x).output
    x = keras.layers.Dropout(dropout_rate, name="dropout")(x)
    penalty = keras.regularizers.L1L2(l1=l1_factor, l2=l2_factor) if l1_factor or l2_factor else None
    head = keras.layers.Dense(classes, "softmax", kernel_regularizer=penalty, dtype="float32", name=HEAD)
    return keras.Model(inputs, head(x), name="resnet50")


def training_copy(
    model: keras.Model,
    policy: str,
    fused: bool,
    front: keras.layers.Layer | None = None,
    batch_norm_momentum: float | None = None,
    seed: int | None = None,
) -> keras.Model:
    """Copy a model into the form that trains and predicts fast: the same weights in the same order, other layers.

    Args:
        policy: Keras dtype policy of the backbone, `mixed_bfloat16` or `float32`; the head stays float32.
        fused: batch-norm through TensorFlow's fused op.
        front: layer that takes the place of the `resize` layer, such as random crop and augmentation.
        batch_norm_momentum: replaces the layers' own.
        seed: of dropout, whose draws otherwise depend on how many layers were made before.
    """
    import keras

    def copied(layer: Any) -> Any:  # noqa: ANN401
        if not isinstance(layer, keras.Layer) or isinstance(layer, keras.Model):
            return layer
        if front is not None and isinstance(layer, keras.layers.Resizing):
            return front
        config = layer.get_config()
        if layer.name != HEAD and not isinstance(layer, keras.layers.Resizing):
            config["dtype"] = policy
        if isinstance(layer, keras.layers.Dropout):
            config["seed"] = seed
        if not isinstance(layer, keras.layers.BatchNormalization):
            return type(layer).from_config(config)
        if batch_norm_momentum is not None:
            config["momentum"] = batch_norm_momentum
        if not fused:
            return type(layer).from_config(config)
        from whichcar.training.network.batch_norm import FusedBatchNormalization

        return FusedBatchNormalization.from_config(config)

    clone = keras.models.clone_model(model, clone_function=copied)
    clone.set_weights(model.get_weights())
    return clone


def freeze(model: keras.Model, stages: int) -> None:
    """Keep the first `stages` of the five stages of the backbone fixed, their batch-norm in inference mode."""
    for layer in model.layers:
        if layer.name.startswith(STAGES[:stages]):
            layer.trainable = False


def load_saved_model(path: Path) -> keras.Model:
    """Load a `.keras` or `.h5` model, not compiled.

    Raises:
        CheckpointError: the file is broken or holds no model.
    """
    import keras

    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: not a model that Keras can load ({reason}); train it again") from error


def existing(path: Path) -> Path:
    """Return the path of a file with weights, with `~` and variables replaced.

    Raises:
        CheckpointError: there is no such file.
    """
    path = expanded(path)
    if not path.is_file():
        raise CheckpointError(
            f"model.weights: no file {path}; give imagenet, null, or the path of a .keras or .h5 file"
        )
    return path


def is_whole_model(path: Path) -> bool:
    """True for a file with a model in it, False for one with weights only."""
    if path.suffix == ".keras":
        return True
    import h5py

    try:
        with h5py.File(path) as file:
            return "model_config" in file.attrs
    except OSError as error:
        raise CheckpointError(f"{path}: not an HDF5 file; give a .keras or .h5 file") from error


def imagenet_weights() -> Path:
    """Return Keras' file of ImageNet weights, downloaded into Keras' own cache unless it is there.

    Raises:
        ConfigError: it cannot be downloaded.
    """
    import keras

    try:
        return Path(keras.utils.get_file(origin=_IMAGENET, cache_subdir="models", file_hash=_IMAGENET_MD5))
    except Exception as error:
        # Keras passes on whatever the download met (URLError, socket and HTTP errors, a plain Exception).
        raise ConfigError(
            f"model.weights: the ImageNet weights could not be downloaded; fetch {_IMAGENET.rpartition('/')[2]} where "
            "there is a network and give its path as model.weights"
        ) from error


def _backbone(weights: str | Path | None, x: Any) -> keras.Model:  # noqa: ANN401
    """Build a ResNet-50 without its top on `x`, with weights from the network or a file turned round for RGB."""
    import keras

    model = keras.applications.ResNet50(weights=None, include_top=False, input_tensor=x, pooling="avg")
    if weights is None:
        return model
    path = imagenet_weights() if weights == "imagenet" else expanded(str(weights))
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: holds no ResNet-50 without its top layer; give the 'notop' weights of Keras' ResNet50"
        ) from error
    first = model.get_layer("conv1_conv")
    kernel, *others = first.get_weights()
    first.set_weights([kernel[:, :, ::-1], *others])
    return model
