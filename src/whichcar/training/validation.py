"""Loss and accuracy on the validation split, and the image size that is best there."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from whichcar import metrics
from whichcar.config.experiment import Experiment
from whichcar.config.recipe import MOMENT_IMAGES
from whichcar.errors import TrainingError
from whichcar.metrics import Score
from whichcar.progress import track
from whichcar.training.batches import plain_batches
from whichcar.training.network.models import Size, TrainingModels
from whichcar.training.setup import TrainingData

log = logging.getLogger(__name__)
MOMENT_BATCH = 64  # minimum number of images that moments are computed on at a time


def validate(models: TrainingModels, data: TrainingData, batch_size: int, size: Size) -> Score:
    """Score the network with its current weights on the validation images, resized to `size`."""
    (images, rows), labels = data.validation[size], data.validation_classes
    if not len(rows):
        _check_finite(models.predict_on_batch(data.images.take(data.train_rows[:batch_size]), size))
        return Score(math.nan, math.nan)
    batches = plain_batches(images, rows, batch_size)
    scores = np.concatenate([models.predict_on_batch(batch, size) for batch in batches])[: len(rows)]
    _check_finite(scores)
    own = scores[np.arange(len(rows)), labels]
    return Score(metrics.log_loss(own), metrics.top_k_accuracy(scores, labels))


def recompute_moments(models: TrainingModels, data: TrainingData, experiment: Experiment, size: Size) -> None:
    """Recompute the moments of batch normalization on `MOMENT_IMAGES` training images resized to `size`."""
    count = min(MOMENT_IMAGES, len(data.train_rows))
    batch_size = min(count, max(MOMENT_BATCH, experiment.data.batch_size))
    rows = np.random.default_rng(experiment.seed).permutation(data.train_rows)[: count // batch_size * batch_size]
    batches = plain_batches(data.images, rows, batch_size)
    total = len(rows) // batch_size
    models.recompute_moments(track(batches, "recomputing batch normalization", total, "batches"), size)


def _check_finite(scores: np.ndarray) -> None:
    """Check that predictions are finite, which they may not be even if the training loss is."""
    if not np.isfinite(scores).all():
        raise TrainingError(
            "the network's predictions are not numbers; lower the learning rate or warm up for longer, and start over "
            "with --overwrite"
        )


def score_sizes(
    models: TrainingModels, data: TrainingData, batch_size: int, sizes: Sequence[Size]
) -> dict[Size, Score]:
    """Score the network at each size; networks do best somewhat above their training size (Touvron et al. 2019)."""
    scores: dict[Size, Score] = {}
    for size in sorted(set(sizes)):
        scores[size] = validate(models, data, batch_size, size)
        log.info(
            "test size %dx%d: validation accuracy %.4f, loss %.4f", *size, scores[size].accuracy, scores[size].loss
        )
    return scores
