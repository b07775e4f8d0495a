"""From settings to what the training loop needs: images, the network in its two forms, optimizer, batches."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whichcar.config.experiment import Experiment
from whichcar.data.decoded_cache import pack
from whichcar.data.split.tree import Tree, read_tree, unopened
from whichcar.environment import expanded
from whichcar.errors import ConfigError, DataError
from whichcar.text import plural
from whichcar.training.batches import Rows, TrainingBatches
from whichcar.training.hardware import Hardware, fused_batch_norm_is_faster
from whichcar.training.network.models import Size, TrainingModels
from whichcar.training.network.optimizer import create_optimizer
from whichcar.training.network.resnet50 import freeze, training_copy
from whichcar.training.usable import check_usable
from whichcar.training.weights import plain_model

if TYPE_CHECKING:
    import keras


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The decoded images: rows of the training and the validation part, and their class numbers.

    `images` holds all of them at one size. `validation` holds the validation images, and which rows they are, at each
    size that they are scored at: read from the files at just that size, as the test images will be.
    """

    tree: Tree
    images: Rows
    train_rows: np.ndarray
    train_classes: np.ndarray
    validation: Mapping[Size, tuple[Rows, np.ndarray]]
    validation_classes: np.ndarray


def sizes_of(experiment: Experiment) -> list[Size]:
    """The training size of each epoch."""
    stages, epochs = experiment.recipe.stages, experiment.fit.epochs
    if not stages:
        return [experiment.data.image_size] * epochs
    counts = scaled([stage.epochs for stage in stages], epochs)
    return [stage.image_size for stage, count in zip(stages, counts, strict=True) for _ in range(count)]


def scaled(counts: Sequence[int], total: int) -> list[int]:
    """Scale counts in proportion, so that they add up to `total`; each stays at least 1, or the last ones do."""
    left_out = max(0, len(counts) - total)
    if left_out:
        return [0] * left_out + [1] * total
    exact = [count * total / sum(counts) for count in counts]
    found = [max(1, int(share)) for share in exact]
    while sum(found) != total:
        # The count that is furthest from its exact share, of equals the first, takes one more or one less.
        change = 1 if sum(found) < total else -1
        free = [number for number, count in enumerate(found) if count + change >= 1]
        found[max(free, key=lambda number: change * (exact[number] - found[number]))] += change
    return found


def validation_sizes(experiment: Experiment) -> list[Size]:
    """Every size that the validation images are scored at, ascending."""
    recipe = experiment.recipe
    during = sizes_of(experiment) if recipe.stages else [experiment.data.image_size]
    return sorted({*during, *recipe.test_sizes})


def load_data(experiment: Experiment) -> TrainingData:
    """Read the tree, check it against the settings, and decode its training and validation images.

    Raises:
        ConfigError: `model.classes` disagrees with the folders.
        DataError: the tree is not usable.
    """
    data = experiment.data
    tree = read_tree(expanded(data.directory), data.validation_split, experiment.seed)
    for remark in tree.remarks:
        log.warning("%s", remark)
    if count := unopened(tree):
        log.warning(
            "%s: %s of a format that is not opened, such as HEIC, not used; convert to JPEG or PNG",
            *(tree.root, plural(count, "file")),
        )
    log.info("%s", tree.summary)
    given, found = experiment.model.classes, len(tree.class_folders)
    if given not in (None, found):
        raise ConfigError(
            f"model.classes: {given}, but {data.directory} has {found} class folders; "
            f"set model.classes: {found} or leave it out"
        )
    everything = [*tree.train, *tree.validation]
    size = _cache_size(experiment)
    paths = [sample.path for sample in everything]
    images = pack(paths, size)
    bad = {skipped.path for skipped in images.skipped}
    check_usable(tree, images.skipped, data.validation_split)
    readable = np.array([sample.path not in bad for sample in everything])
    classes = np.array([sample.class_index for sample in everything])
    rows, in_train = np.arange(len(everything)), np.arange(len(everything)) < len(tree.train)
    train, validation = rows[in_train & readable], rows[~in_train & readable]
    at_sizes: dict[Size, tuple[Rows, np.ndarray]] = dict.fromkeys(validation_sizes(experiment), (images, validation))
    for other in at_sizes.keys() - {size} if len(validation) else ():
        at_sizes[other] = _validation_at(other, [paths[row] for row in validation])
    return TrainingData(tree, images, train, classes[train], at_sizes, classes[validation])


def _cache_size(experiment: Experiment) -> Size:
    """The size of the decoded images that batches are drawn from."""
    data, recipe = experiment.data, experiment.recipe
    if recipe.cached_features:  # nothing is cropped: what the backbone sees is read at just that size
        return data.image_size
    used = [*sizes_of(experiment), *recipe.test_sizes, data.image_size]
    return data.cache_size or (max(s[0] for s in used), max(s[1] for s in used))


def _validation_at(size: Size, paths: Sequence[Path]) -> tuple[Rows, np.ndarray]:
    """Decode the validation images, all readable a moment ago, at another size than that of the training images."""
    images = pack(paths, size)
    if images.skipped:
        raise DataError(f"{images.skipped[0].reason} (it was readable a moment ago; run the same command again)")
    return images, np.arange(len(paths))


def build_models(experiment: Experiment, hardware: Hardware, class_names: Sequence[str]) -> TrainingModels:
    """Build the ResNet-50 of these settings, ready to train.

    Raises:
        CheckpointError: `model.weights` is a trained model of another network.
        ConfigError: no weights could be had.
    """
    return models_from(plain_model(experiment, class_names), experiment, hardware)


def models_from(export_model: keras.Model, experiment: Experiment, hardware: Hardware) -> TrainingModels:
    """Give a plain model its training copy, freeze what is to be frozen, and compile it.

    Args:
        export_model: a model with a `resize` layer at its front and the head named `predictions`.
    """
    import keras

    from whichcar.training.network.data_aug import create_data_aug_layer
    from whichcar.training.network.random_crop import RandomResizedCrop

    recipe, size = experiment.recipe, experiment.data.image_size
    side = recipe.random_resized_crop.side if recipe.random_resized_crop else (1.0, 1.0)
    crop = RandomResizedCrop(size, side, seed=experiment.seed, dtype=hardware.policy, name="random_resized_crop")
    changes = create_data_aug_layer(experiment.model.data_aug_layer or {})
    front = keras.Sequential([crop, *changes.layers], name="resize")
    fused = fused_batch_norm_is_faster(hardware.backend)
    momentum = recipe.batch_norm_momentum
    train_model = training_copy(export_model, hardware.policy, fused, front, momentum, experiment.seed)
    freeze(train_model, recipe.freeze)
    optimizer = make_trainable(train_model, experiment, hardware)
    return TrainingModels(export_model, train_model, export_model, crop, optimizer)


def make_trainable(train_model: keras.Model, experiment: Experiment, hardware: Hardware) -> keras.optimizers.Optimizer:
    """Compile a network with the optimizer and loss of these settings; gives the optimizer."""
    import keras

    optimizer = create_optimizer(experiment, train_model)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=experiment.recipe.label_smoothing)
    # jit_compile: XLA has no fast bfloat16 convolution on a CPU; JAX always compiles.
    train_model.compile(
        optimizer, loss, metrics=list(experiment.compile.metrics), jit_compile=hardware.backend == "jax"
    )
    return optimizer


def make_batches(experiment: Experiment, images: TrainingData) -> TrainingBatches:
    """The training batches of these images."""
    data = experiment.data
    return TrainingBatches(
        images.images,
        images.train_rows,
        images.train_classes,
        len(images.tree.class_folders),
        data.batch_size,
        experiment.seed,
        experiment.recipe,
        data.balanced,
    )
