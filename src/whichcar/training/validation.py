"""Loss and accuracy on the validation part, and the image size that does best there."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from whichcar import metrics
from whichcar.errors import TrainingError
from whichcar.metrics import Score
from whichcar.training.batches import plain_batches
from whichcar.training.network.models import Network, Size
from whichcar.training.setup import Images

log = logging.getLogger(__name__)


def validate(network: Network, pictures: Images, batch_size: int, size: Size) -> Score:
    """Score the network as it stands, set to predict at `size`, on the validation part."""
    (images, rows), truth = pictures.validation[size], pictures.validation_classes
    if not len(rows):
        _see_that_numbers(network.computing.predict_on_batch(pictures.images.take(pictures.train_rows[:batch_size])))
        return Score(math.nan, math.nan)
    batches = plain_batches(images, rows, batch_size)
    scores = np.concatenate([network.computing.predict_on_batch(batch) for batch in batches])[: len(rows)]
    _see_that_numbers(scores)
    own = scores[np.arange(len(rows)), truth]
    return Score(metrics.log_loss(own), metrics.top_k_accuracy(scores, truth))


def _see_that_numbers(scores: np.ndarray) -> None:
    """Raise where a network whose training loss is a number has weights that predict none."""
    if not np.isfinite(scores).all():
        raise TrainingError(
            "the network's predictions are not numbers; lower the learning rate or warm up for longer, and start over "
            "with --overwrite"
        )


def score_sizes(network: Network, pictures: Images, batch_size: int, sizes: Sequence[Size]) -> dict[Size, Score]:
    """Score the network at each size; networks do best somewhat above their training size (Touvron et al. 2019)."""
    scores: dict[Size, Score] = {}
    for size in sorted(set(sizes)):
        network.predict_at(size)
        scores[size] = validate(network, pictures, batch_size, size)
        log.info(
            "test size %dx%d: validation accuracy %.4f, loss %.4f", *size, scores[size].accuracy, scores[size].loss
        )
    return scores
