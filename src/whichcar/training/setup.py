"""From settings to what the training loop needs: data, models, optimizer, batches."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whichcar.config.experiment import Compile, Data, Experiment
from whichcar.config.recipe import Recipe
from whichcar.data.decoded_cache import decode_all
from whichcar.data.split.tree import Tree, read_tree, unopened
from whichcar.detection.crop import read_record
from whichcar.environment import expanded
from whichcar.errors import ConfigError, DataError
from whichcar.files import not_opened
from whichcar.records import Metadata
from whichcar.text import plural, shell_command
from whichcar.training.batches import Rows, TrainingBatches
from whichcar.training.hardware import Hardware, fused_batch_norm_is_faster
from whichcar.training.network.backbones import check_sizes, freeze
from whichcar.training.network.models import Size, TrainingModels
from whichcar.training.network.optimizer import create_optimizer
from whichcar.training.network.resnet50 import training_copy
from whichcar.training.run.folder import versions
from whichcar.training.sizes import Sizes
from whichcar.training.usable import check_usable
from whichcar.training.weights import plain_model

if TYPE_CHECKING:
    import keras

    from whichcar.training.network.co_tuning import CoTuningHead

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The decoded images: rows of the training and the validation split, and their class numbers.

    `images` holds all images at one size. `validation` maps each scored size to the validation images and their row
    numbers; these are decoded from the files at that size, as the test images will be.
    """

    tree: Tree
    images: Rows
    train_rows: np.ndarray
    train_classes: np.ndarray
    validation: Mapping[Size, tuple[Rows, np.ndarray]]
    validation_classes: np.ndarray

    def path_of(self, row: int) -> Path:
        """Return the file of a row."""
        before = len(self.tree.train)
        return (self.tree.train[row] if row < before else self.tree.validation[row - before]).path


def load_tree(settings: Data, classes: int | None, seed: int) -> Tree:
    """Read the tree and check it against the settings; no image is read yet.

    Args:
        settings: where the images are.
        classes: required number of classes; None for any number.
        seed: random seed for the validation split.

    Raises:
        ConfigError: `classes` disagrees with the folders.
        DataError: the tree is not usable.
    """
    tree = read_tree(
        expanded(settings.directory),
        settings.validation_split,
        seed,
        train_on_validation=settings.train_on_validation,
    )
    if tree.validation and not settings.held_out_share:
        raise ConfigError(
            f"data.validation_split is 0, but {tree.root} holds {plural(len(tree.validation), 'validation image')}; "
            "delete the setting, or train on them with data.train_on_validation: true"
        )
    for remark in tree.remarks:
        log.warning("%s", remark)
    if count := unopened(sample.path for sample in (*tree.train, *tree.validation, *tree.test)):
        log.warning("%s", not_opened(tree.root, count))
    log.info("%s", tree.summary)
    if tree.drawn is not None:
        log.info(
            "%s: copies of one image may be in both training and validation; to keep them together, train on the "
            "output of: %s",
            *(tree.root, shell_command(["whichcar", "split", tree.root, "OUTPUT"])),
        )
    folders = len(tree.class_folders)
    if classes not in (None, folders):
        raise ConfigError(
            f"model.classes: {classes}, but {settings.directory} has {folders} class folders; "
            f"set model.classes: {folders} or leave it out"
        )
    return tree


def load_data(tree: Tree, sizes: Sizes, validation_split: float) -> TrainingData:
    """Decode the training and validation images of a tree at the required sizes.

    Args:
        tree: tree from `load_tree`.
        sizes: sizes of the run.
        validation_split: share of train set aside for validation; if 0, no validation image is required.

    Raises:
        DataError: too few images can be read.
    """
    everything = [*tree.train, *tree.validation]
    paths = [sample.path for sample in everything]
    images = decode_all(paths, sizes.cache)
    bad = {skipped.path for skipped in images.skipped}
    check_usable(tree, images.skipped, validation_split)
    readable = np.array([sample.path not in bad for sample in everything])
    class_numbers = np.array([sample.class_index for sample in everything])
    rows, in_train = np.arange(len(everything)), np.arange(len(everything)) < len(tree.train)
    train, validation = rows[in_train & readable], rows[~in_train & readable]
    at_sizes: dict[Size, tuple[Rows, np.ndarray]] = dict.fromkeys(sizes.scored, (images, validation))
    for size in at_sizes.keys() - {sizes.cache} if len(validation) else ():
        at_sizes[size] = _validation_at(size, [paths[row] for row in validation])
    return TrainingData(tree, images, train, class_numbers[train], at_sizes, class_numbers[validation])


def _validation_at(size: Size, paths: Sequence[Path]) -> tuple[Rows, np.ndarray]:
    """Decode the validation images, which were all readable before, at a size other than the cached one."""
    images = decode_all(paths, size)
    if images.skipped:
        raise DataError(f"{images.skipped[0].reason} (it was readable a moment ago; run the same command again)")
    return images, np.arange(len(paths))


def build_models(experiment: Experiment, hardware: Hardware, class_names: Sequence[str]) -> TrainingModels:
    """Build the network of these settings, ready to train.

    Raises:
        CheckpointError: `model.weights` is a trained model of another network.
        ConfigError: the weights cannot be downloaded, or a setting does not fit the backbone.
    """
    from whichcar.training.network.co_tuning import co_tuning_head

    plain = plain_model(experiment.model, experiment.data.image_size, class_names)
    head = co_tuning_head(experiment, len(class_names))
    return models_from(plain, experiment, hardware, head)


def models_from(
    export_model: keras.Model, experiment: Experiment, hardware: Hardware, head: CoTuningHead | None = None
) -> TrainingModels:
    """Make the training copy of a plain model, freeze the configured stages, and compile it.

    Args:
        export_model: a model with a `resize` layer at its front and the head named `predictions`.
        head: a second head, for training only.
    """
    import keras

    from whichcar.training.network.co_tuning import with_head
    from whichcar.training.network.data_aug import create_data_aug_layer
    from whichcar.training.network.random_crop import RandomResizedCrop

    recipe, size = experiment.recipe, experiment.data.image_size
    others = [*(stage.image_size for stage in recipe.stages), *recipe.test_sizes]
    check_sizes(export_model, experiment.model.backbone, size, others)
    side = recipe.random_resized_crop.side if recipe.random_resized_crop else (1.0, 1.0)
    crop = RandomResizedCrop(size, side, seed=experiment.seed, dtype=hardware.policy, name="random_resized_crop")
    changes = create_data_aug_layer(experiment.model.data_aug_layer or {})
    front = keras.Sequential([crop, *changes.layers], name="resize")
    fused = fused_batch_norm_is_faster(hardware.backend)
    momentum = recipe.batch_norm_momentum
    main_model = training_copy(export_model, hardware.policy, fused, front, momentum, experiment.seed)
    freeze(main_model, experiment.model.backbone, recipe.freeze)
    main_model.compile(jit_compile=hardware.backend == "jax")
    train_model = with_head(main_model, head)
    optimizer = compile_model(train_model, experiment.compile, recipe, hardware)
    return TrainingModels(export_model, train_model, main_model, export_model, crop, optimizer)


def compile_model(
    model: keras.Model, settings: Compile, recipe: Recipe, hardware: Hardware
) -> keras.optimizers.Optimizer:
    """Compile a model with the optimizer and loss of these settings; return the optimizer."""
    from whichcar.training.network.loss import cross_entropy

    def loss(labels: Any, probabilities: Any) -> Any:  # noqa: ANN401
        smoothing = recipe.label_smoothing
        return cross_entropy(labels * (1.0 - smoothing) + smoothing / labels.shape[-1], probabilities)

    optimizer = create_optimizer(settings.optimizer.chosen, recipe, model)
    further = [model.get_layer(name) for name in model.output_names[1:]]  # the co-tuning head, or none
    model.compile(
        optimizer,
        [loss, *(head.loss for head in further)],
        loss_weights=[1.0, *(head.loss_weight for head in further)],
        metrics=[list(settings.metrics), *([] for _ in further)],
        # XLA has no fast bfloat16 convolution on a CPU; JAX always compiles.
        jit_compile=hardware.backend == "jax",
    )
    return optimizer


def make_batches(data: TrainingData, settings: Data, recipe: Recipe, seed: int) -> TrainingBatches:
    """Return the training batches of these images."""
    return TrainingBatches(
        data.images,
        data.train_rows,
        data.train_classes,
        len(data.tree.class_folders),
        settings.batch_size,
        seed,
        recipe,
        settings.balanced,
    )


def metadata_of(experiment: Experiment, data: TrainingData) -> Metadata:
    """Return the metadata for the checkpoints of a run."""
    tree = data.tree
    return Metadata(
        tree.class_names,
        tree.class_folders,
        experiment.data.image_size,
        versions(),
        experiment.model_dump(mode="json"),
        str(tree.root.resolve()),
        read_record(tree.root),
        tree.fingerprints,
        None if tree.drawn is None else tuple(sorted(tree.drawn)),
    )


def record_of(data: TrainingData) -> dict[str, Any]:
    """Return the record of a run's data for resolved.json."""
    tree = data.tree
    return {
        "class_names": tree.class_names,
        "class_folders": tree.class_folders,
        "data_root": str(tree.root.resolve()),
        "train_images": len(data.train_rows),
        "validation_images": len(data.validation_classes),
        "left_out": [skipped.reason for skipped in data.images.skipped],
    }
