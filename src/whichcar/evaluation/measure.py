"""What is measured on predictions: accuracy, confusion, levels and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from whichcar import metrics
from whichcar.evaluation.levels import answered, score_levels
from whichcar.evaluation.predictions import EvaluatedImage
from whichcar.inference.answer import Calibration
from whichcar.taxonomy import taxonomy_of


def measure(
    images: Sequence[EvaluatedImage], names: tuple[str, ...], calibration: Calibration | None
) -> dict[str, Any]:
    """Return the fields of a result that are measured on its images.

    Args:
        images: at least one.
        names: of the classes.
        calibration: of the network.
    """
    taxonomy = taxonomy_of(names)
    probabilities = np.stack([image.probabilities for image in images])
    labels = np.array([image.sample.class_index for image in images])
    crops = [image.crop for image in images]
    levels = score_levels(probabilities, labels, taxonomy, calibration)
    return {
        "levels": levels,
        "log_loss": metrics.log_loss(probabilities[np.arange(len(labels)), labels]),
        "confused": tuple(metrics.most_confused(levels[0].matrix, names)),
        "answered": () if calibration is None else answered(probabilities, labels, taxonomy.levels, calibration, crops),
    }
