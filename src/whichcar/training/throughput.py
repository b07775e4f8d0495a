"""How fast this machine trains: a few steps of the actual network, and the other costs of a training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from whichcar.config.experiment import Experiment
from whichcar.data.split.tree import Tree
from whichcar.errors import ImageError
from whichcar.files import temporary_folder
from whichcar.images.read import read_resized
from whichcar.parallel import ordered_map, usable_cores
from whichcar.progress import Bar
from whichcar.training.budget import BACKWARD, CROP, FROZEN_SHARE, Facts, Speed, frozen_stages
from whichcar.training.hardware import Hardware, release_memory, without_kept_steps
from whichcar.training.network.models import TrainingModels
from whichcar.training.recipe import COSINE_SCALE, optimizer
from whichcar.training.setup import build_models
from whichcar.training.weights import plain_model

SMALL, LARGE = 64, 128  # sizes that are measured; others are inferred from their number of pixels
STEPS = 6  # after the first, which compiles
Timed = tuple[float, float]
_LOOKS = 24  # images read to time decoding


def measure(facts: Facts, weights: str | None, tree: Tree, hardware: Hardware, imports: float) -> Speed:
    """Measure the values of `Speed`; steps run on images of noise, which take the same time as others.

    Args:
        facts: facts about the dataset and the backbone.
        weights: value of `model.weights`; stages are frozen only if there are any.
        tree: the dataset.
        hardware: what training runs on.
        imports: seconds that loading the backend took.

    Raises:
        ConfigError: the published weights cannot be downloaded.
        CheckpointError: the weights file belongs to another network.
        OSError: a checkpoint does not fit into the folder for temporary files.
    """
    batch = facts.batch_size
    settings = _experiment(facts, weights)
    if weights == "imagenet":  # a download, if needed, is not timed, since training will not repeat it
        plain_model(settings.model, settings.data.image_size, tree.class_names)
    start = time.perf_counter()
    models = build_models(settings, hardware, tree.class_names)
    built = time.perf_counter() - start
    with without_kept_steps(hardware.backend):
        (compile_step, step), (compile_predict, small), (_, large) = _steps(models, facts)
    save = _saving(models)
    del models
    release_memory()
    pixel = min(max(0.0, large - small) / (LARGE**2 - SMALL**2), small / SMALL**2) / batch
    backward = BACKWARD * (1 - FROZEN_SHARE[frozen_stages(facts, weights)])
    return Speed(
        update=max(0.0, step - (1 + backward) * small),
        image=small / batch - pixel * SMALL**2,
        pixel=pixel,
        compile_step=compile_step,
        compile_predict=compile_predict,
        start=imports + built,
        decode=_decoding([sample.path for sample in tree.train], facts.side),
        save=save,
        backward=backward,
    )


def _steps(models: TrainingModels, facts: Facts) -> tuple[Timed, Timed, Timed]:
    """Time a training step, and predictions at two sizes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (facts.batch_size, LARGE, LARGE, 3), np.uint8)
    labels = np.eye(facts.classes, dtype=np.float32)[np.arange(facts.batch_size) % facts.classes]
    with Bar("measuring this machine", 3 * (STEPS + 1), "steps") as bar:
        train = _timed(lambda: float(models.train_on_batch(images, labels, (SMALL, SMALL), rate=0.01)[0]), bar)
        with models.averaged():
            small = _timed(lambda: models.predict_on_batch(images, (SMALL, SMALL)), bar)
            large = _timed(lambda: models.predict_on_batch(images, (LARGE, LARGE)), bar)
    return train, small, large


def _experiment(facts: Facts, weights: str | None) -> Experiment:
    """Return settings whose steps cost as much as those of a chosen recipe."""
    return Experiment.model_validate({
        "seed": 0,
        "data": {"directory": ".", "image_size": [SMALL, SMALL], "batch_size": facts.batch_size},
        "model": {
            "backbone": facts.backbone,
            "weights": weights,
            "cosine_scale": COSINE_SCALE if weights else 0,
            "data_aug_layer": {"random_brightness": {"factor": 0.2}, "random_contrast": {"factor": 0.2}},
        },
        "compile": {"optimizer": optimizer(weights, 0.01)},
        "recipe": {"freeze": frozen_stages(facts, weights), "random_resized_crop": {"side": list(CROP)}},
    })  # fmt: skip


def _timed(step: Callable[[], object], bar: Bar) -> Timed:
    """Return the seconds that compiling a step takes, and those of the fastest compiled step.

    Other work of the machine only makes steps slower; for lasting work, all steps are slower.
    """
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
        bar.update()
    fastest = min(seconds[1:])
    return max(0.0, seconds[0] - fastest), fastest


def _decoding(paths: Sequence[Path], side: int) -> float:
    """Return the seconds per image when all threads decode."""
    looks = max(_LOOKS, 4 * usable_cores())  # several for each thread
    chosen = paths[:: max(1, -(-len(paths) // looks))]
    start = time.perf_counter()
    for _ in ordered_map(lambda path: _read(path, side), chosen):
        pass
    return (time.perf_counter() - start) / len(chosen)


def _read(path: Path, side: int) -> None:
    try:
        read_resized(path, (min(side, 224), min(side, 224)))
    except ImageError:
        return


def _saving(models: TrainingModels) -> float:
    """Return the seconds that saving a checkpoint takes, on the disk of temporary files."""
    room = 5 * models.export_model.count_params()  # four bytes each, and what HDF5 adds
    with temporary_folder(room) as folder:
        start = time.perf_counter()
        models.export_model.save_weights(folder / "all.weights.h5")
        return time.perf_counter() - start
