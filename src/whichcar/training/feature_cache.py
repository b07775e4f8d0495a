"""Features of a frozen backbone, computed once and cached with the decoded images, and the head that trains on them.

With the whole backbone frozen and no augmentation, each epoch would compute the same features again. A head trained on
cached features gets the same numbers in a hundredth of the time ("linear probe", Alain and Bengio 2016).
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy

from whichcar import files
from whichcar.config.experiment import Experiment
from whichcar.data.decoded_cache import StoredRows
from whichcar.environment import cache_root
from whichcar.errors import ConfigError
from whichcar.progress import Bar
from whichcar.training.batches import Rows, images_at_once, plain_batches
from whichcar.training.devices import divided
from whichcar.training.hardware import Hardware
from whichcar.training.network.backbones import HEAD, PREPROCESSING, stages_of
from whichcar.training.network.models import TrainingModels
from whichcar.training.network.resnet50 import training_copy
from whichcar.training.setup import TrainingData, compile_model, models_from

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)
FORMAT = 2


class Features(StoredRows):
    """Features of the backbone instead of images, (images, features) float32.

    Args:
        path: the `.npy` file.
        data: the images that the features were computed from, row by row.
    """

    def __init__(self, path: Path, data: Rows) -> None:
        super().__init__(path)
        self.key, self.skipped = data.key, data.skipped


def on_features(
    experiment: Experiment, hardware: Hardware, data: TrainingData, export_model: keras.Model
) -> tuple[TrainingData, TrainingModels]:
    """Return the data with features instead of images, computed unless cached, and the head to train on them.

    The head is the same as in `build_models`: it has the same initial weights and random draws, and is saved in the
    same place.

    Args:
        export_model: a model from `plain_model`.
    """
    count = len(stages_of(export_model, experiment.model.backbone))
    if experiment.recipe.freeze != count:
        raise ConfigError(f"recipe.cached_features: the backbone must not change; write recipe.freeze: {count}")
    path = _path(experiment, hardware, data, export_model)
    log.info("features of the backbone: %s", path)
    if not path.exists():
        log.info("they are computed once for all trainings; if another process is doing that, it is waited for")
        train_model = models_from(export_model, experiment, hardware).train_model
        _compute(train_model, hardware, data.images, path, images_at_once(experiment.data.image_size))
    head = _head(export_model, experiment.seed, hardware)
    optimizer = compile_model(head, experiment.compile, experiment.recipe, hardware)
    models = TrainingModels(export_model, head, head, export_model.get_layer(HEAD), None, optimizer)
    features = Features(path, data.images)
    validation = {size: (features, rows) for size, (_, rows) in data.validation.items()}
    return replace(data, images=features, validation=validation), models


def _head(export_model: keras.Model, seed: int, hardware: Hardware) -> keras.Model:
    import keras

    part = keras.Model(export_model.get_layer("dropout").input, export_model.output, name="head")
    return training_copy(part, hardware.policy, fused=False, seed=seed)


def _path(experiment: Experiment, hardware: Hardware, data: TrainingData, export_model: keras.Model) -> Path:
    """Return the cache file, named after images, size, backbone, scaling, weights and hardware."""
    height, width = experiment.data.image_size
    weights = hashlib.blake2b(experiment.model.backbone.encode(), digest_size=16)
    for layer in export_model.layers:
        if layer.name == PREPROCESSING:  # has no weights; a preset's may change with its folder
            weights.update(repr((layer.scale, layer.offset)).encode())
        if layer.name != HEAD:
            for values in layer.get_weights():
                weights.update(values.tobytes())
    computed_by = f"{hardware.backend}-{hardware.precision}"
    name = f"features-{FORMAT}-{height}x{width}-{weights.hexdigest()}-{computed_by}.npy"
    return cache_root() / data.images.key / name


def _compute(train_model: keras.Model, hardware: Hardware, images: Rows, path: Path, batch_size: int) -> None:
    """Run the backbone on all images, or wait if another process is already doing so."""
    import keras

    backbone = keras.Model(train_model.inputs, train_model.get_layer("dropout").input)
    backbone.compile(jit_compile=hardware.backend == "jax")
    left, width = len(images), int(backbone.output_shape[-1])
    with files.locked(path.with_name(f".{path.name}.lock"), wait=True):
        if path.exists():
            return
        with files.atomic_write(path) as tmp, tmp.open("wb") as file, Bar("features of the backbone", left) as bar:
            npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (left, width)})
            for batch in plain_batches(images, np.arange(left), batch_size):
                values = np.asarray(backbone.predict_on_batch(divided(batch)), np.float32)[:left]
                file.write(values.tobytes())
                left -= len(values)
                bar.update(len(values))
