"""The network that a training starts from: random, ImageNet or trained weights, and whether a trained head is used."""

from __future__ import annotations

import logging
import unicodedata
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from whichcar.config.backbones import DEFAULT
from whichcar.config.experiment import Model
from whichcar.data.labels import folder_name
from whichcar.environment import expanded
from whichcar.errors import CheckpointError
from whichcar.text import one_line
from whichcar.training.network.backbones import HEAD, PREPROCESSING, finalize
from whichcar.training.network.models import Size
from whichcar.training.network.resnet50 import create_model, existing, is_whole_model
from whichcar.training.run.checkpoint import read_metadata

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)


def check_weights(weights: object) -> None:
    """Check that a value of `model.weights` is usable, before anything that takes long.

    Raises:
        CheckpointError: there is no such file, or it is neither `.keras` nor HDF5.
    """
    if weights in (None, "imagenet"):
        return
    path = existing(Path(str(weights)))
    if not is_whole_model(path):
        return
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise CheckpointError(f"model.weights: {path} is damaged, not a .keras file; give another, or copy it again")


def plain_model(settings: Model, image_size: Size, class_names: Sequence[str]) -> keras.Model:
    """Build the network of these settings in the form that is saved.

    If `model.weights` is a trained model, its head is also used if it was trained on classes of the same names.
    """
    section = settings.model_dump()
    weights = section.pop("weights")
    section |= {"classes": len(class_names), "data_aug_layer": None, "input_shape": (None, None, 3)}
    section["image_size"] = image_size
    model = create_model(weights, **section)
    if weights in (None, "imagenet") or not is_whole_model(expanded(weights)):
        return model
    # A trained model was loaded: take its weights.
    fresh = create_model(None, **section)
    layers, trained = ([layer for layer in one.layers if layer.weights] for one in (fresh, model))
    # Keras' own ResNet50 takes BGR and has no such layer; its head has the same name as ours.
    own, its = (any(layer.name == PREPROCESSING for layer in one.layers) for one in (fresh, model))
    if own != its or _shapes(layers[:-1]) != _shapes(trained[:-1]) or trained[-1].name != HEAD:
        raise CheckpointError(_other_network(weights, settings.backbone))
    for layer, same in zip(layers[:-1], trained[:-1], strict=True):
        layer.set_weights(same.get_weights())
    if len(layers[-1].weights) != len(trained[-1].weights):
        log.warning(
            "model.weights: the backbone of %s is used, its head is not: one of the two is a cosine head", weights
        )
    elif (order := head_order(expanded(weights), class_names)) is not None:
        layers[-1].set_weights([values[..., order] for values in trained[-1].get_weights()])
    return finalize(fresh)


def _shapes(layers: Sequence[keras.Layer]) -> list[list[tuple[int, ...]]]:
    return [[tuple(variable.shape) for variable in layer.weights] for layer in layers]


def _other_network(weights: str, backbone: str) -> str:
    """Return a message that a trained model has another backbone, and which one if it is known."""
    try:
        trained = read_metadata(expanded(weights)).settings["model"].get("backbone", DEFAULT)
    except (CheckpointError, KeyError):
        trained = backbone
    advice = "give one that `whichcar train` wrote" if trained == backbone else f"write model.backbone: {trained}"
    return f"{weights}: is not a {backbone} as whichcar builds it; {advice}"


def head_order(checkpoint: Path, class_names: Sequence[str]) -> list[int] | None:
    """Return the index of each class among those of a checkpoint, or None if they differ; log the outcome.

    Names are compared in Unicode's form NFC, and as folder names, so that a tree without its label file matches too.
    """
    try:
        names = read_metadata(checkpoint).class_names
    except CheckpointError:
        log.warning("model.weights: %s names no classes: its backbone is used, its head is not", checkpoint)
        return None
    for form in (partial(unicodedata.normalize, "NFC"), folder_name):
        before, now = list(map(form, names)), list(map(form, class_names))
        if sorted(before) == sorted(now) and len(set(before)) == len(before):
            moved = "" if before == now else ", in the order of this data"
            log.info("model.weights: backbone and head of %s are used: the same classes%s", checkpoint, moved)
            return [before.index(name) for name in now]
    other = sorted({unicodedata.normalize("NFC", name) for name in names}.symmetric_difference(class_names))
    log.warning(
        "model.weights: the backbone of %s is used, its head is not: it was trained on other classes (%s)",
        *(checkpoint, ", ".join(map(one_line, other[:3])) + (", …" if len(other) > 3 else "")),
    )
    return None
