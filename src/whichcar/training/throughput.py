"""How fast this machine trains: a few real steps of the real network, and what else a training spends its time on."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from whichcar.config.experiment import Experiment
from whichcar.errors import ImageError
from whichcar.images.read import read_resized
from whichcar.parallel import ordered_map
from whichcar.progress import Bar
from whichcar.training.budget import BACKWARD, CROP, FROZEN_SHARE, Facts, Speed, frozen_stages
from whichcar.training.hardware import Hardware, release_memory
from whichcar.training.network.models import TrainingModels
from whichcar.training.setup import build_models

SMALL, LARGE = 64, 128  # sizes that are measured; all others follow by their number of pixels
STEPS = 3  # after the first, which compiles
Timed = tuple[float, float]
_LOOKS = 24  # images read to see how long that takes


def measure(facts: Facts, weights: str | None, paths: Sequence[Path], hardware: Hardware, imports: float) -> Speed:
    """Measure what `Speed` holds, with images of noise, which take the same time as others.

    Args:
        facts: of the dataset: the batch size and the number of classes matter.
        weights: value of `model.weights`; what stays frozen depends on there being some.
        paths: images of the dataset.
        hardware: what training runs on.
        imports: seconds that loading the backend took.

    Raises:
        ConfigError: the published weights cannot be downloaded.
    """
    batch = facts.batch_size
    built, (compile_step, step), (compile_predict, small), (_, large), save = _steps(facts, weights, hardware)
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
        decode=_decoding(paths, facts.side),
        save=save,
        backward=backward,
    )


def _steps(facts: Facts, weights: str | None, hardware: Hardware) -> tuple[float, Timed, Timed, Timed, float]:
    """Time building a model, a training step, predictions at two sizes, and a checkpoint."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (facts.batch_size, LARGE, LARGE, 3), np.uint8)
    labels = np.eye(facts.classes, dtype=np.float32)[np.arange(facts.batch_size) % facts.classes]
    start = time.perf_counter()
    models = build_models(_experiment(facts, weights), hardware, [str(number) for number in range(facts.classes)])
    built = time.perf_counter() - start
    with Bar("measuring this machine", 3 * (STEPS + 1), "steps") as bar:
        train = _timed(lambda: float(models.train_on_batch(images, labels, (SMALL, SMALL), rate=0.01)[0]), bar)
        small = _timed(lambda: models.predict_on_batch(images, (SMALL, SMALL)), bar)
        large = _timed(lambda: models.predict_on_batch(images, (LARGE, LARGE)), bar)
    return built, train, small, large, _saving(models)


def _experiment(facts: Facts, weights: str | None) -> Experiment:
    """Return settings whose steps cost what those of a chosen recipe cost."""
    return Experiment.model_validate({
        "seed": 0,
        "data": {"directory": ".", "image_size": [SMALL, SMALL], "batch_size": facts.batch_size},
        "model": {
            "weights": weights,
            "data_aug_layer": {"random_brightness": {"factor": 0.2}, "random_contrast": {"factor": 0.2}},
        },
        "compile": {"optimizer": {"sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.003}}},
        "recipe": {"freeze": frozen_stages(facts, weights), "random_resized_crop": {"side": list(CROP)}},
    })  # fmt: skip


def _timed(step: Callable[[], object], bar: Bar) -> Timed:
    """Return the seconds that compiling a step takes, and those of the step."""
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
        bar.update()
    usual = statistics.median(seconds[1:])
    return max(0.0, seconds[0] - usual), usual


def _decoding(paths: Sequence[Path], side: int) -> float:
    """Return the seconds for an image when all threads decode."""
    chosen = paths[:: max(1, -(-len(paths) // _LOOKS))]
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
    """Return the seconds for a checkpoint on the disk of temporary files."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        models.export_model.save_weights(Path(folder) / "all.weights.h5")
        return time.perf_counter() - start
