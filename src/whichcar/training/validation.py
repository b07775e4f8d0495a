"""Loss and accuracy on the validation split, and the image size that is best there."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import islice

import numpy as np

from whichcar import metrics
from whichcar.config.experiment import Experiment
from whichcar.config.recipe import MOMENT_IMAGES
from whichcar.errors import DataError, ImageError, TrainingError
from whichcar.images.read import read_resized
from whichcar.metrics import Score
from whichcar.parallel import ordered_map
from whichcar.progress import track
from whichcar.training.batches import images_at_once, plain_batches
from whichcar.training.network.models import Size, TrainingModels
from whichcar.training.setup import TrainingData

log = logging.getLogger(__name__)


def validate(models: TrainingModels, data: TrainingData, batch_size: int, size: Size) -> Score:
    """Score the network with its current weights on the validation images, resized to `size`."""
    (images, rows), labels = data.validation[size], data.validation_classes
    if not len(rows):
        _check_finite(models.predict_on_batch(data.images.take(data.train_rows[:batch_size]), size))
        return Score(math.nan, math.nan)
    batches = plain_batches(images, rows, min(batch_size, len(rows)))
    scores = np.concatenate([models.predict_on_batch(batch, size) for batch in batches])[: len(rows)]
    _check_finite(scores)
    own = scores[np.arange(len(rows)), labels]
    return Score(metrics.log_loss(own), metrics.top_k_accuracy(scores, labels))


def _check_finite(scores: np.ndarray) -> None:
    """Check that predictions are finite, which they may not be even if the training loss is."""
    if not np.isfinite(scores).all():
        raise TrainingError(
            "the network's predictions are not numbers; lower the learning rate or warm up for longer, and start over "
            "with --overwrite"
        )


def settle(
    models: TrainingModels, data: TrainingData, experiment: Experiment, sizes: Sequence[Size]
) -> dict[Size, Score]:
    """Score the network at each size, with moments recomputed at that size if the recipe asks for it.

    The network keeps the moments of the size with the lowest loss. Networks do best somewhat above their training size
    (Touvron et al. 2019), and better still with moments of that size.
    """
    scores: dict[Size, Score] = {}
    best: list[np.ndarray] = []
    for size in sizes:
        if experiment.recipe.precise_batch_norm:
            _recompute_moments(models, data, experiment, size)
        scores[size] = validate(models, data, experiment.data.batch_size, size)
        if not math.isnan(scores[size].loss):
            shown = scores[size].accuracy, scores[size].loss
            log.info("test size %dx%d: validation accuracy %.4f, loss %.4f", *size, *shown)
        if size == min(scores, key=lambda tried: scores[tried].loss):
            best = models.trained_layer.get_weights()
    models.trained_layer.set_weights(best)
    return scores


def _recompute_moments(models: TrainingModels, data: TrainingData, experiment: Experiment, size: Size) -> None:
    """Recompute the moments of batch normalization on `MOMENT_IMAGES` training images, as read for prediction."""
    count = min(MOMENT_IMAGES, len(data.train_rows))
    batch_size = min(count, max(images_at_once(size), experiment.data.batch_size))
    rows = np.random.default_rng(experiment.seed).permutation(data.train_rows)[: count // batch_size * batch_size]
    images = ordered_map(lambda row: read_resized(data.path_of(row), size), rows)
    batches = (np.stack(list(islice(images, batch_size))) for _ in range(len(rows) // batch_size))
    what = "recomputing batch normalization at {}x{}".format(*size)
    bar = track(batches, what, len(rows) // batch_size, "batches")
    try:
        models.recompute_moments(bar, size)
    except ImageError as error:
        raise DataError(
            f"{error} (it was readable before; put it back and use --resume: all epochs are saved)"
        ) from error
