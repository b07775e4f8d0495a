"""What is measured on predictions: accuracy, confusion, levels and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from whichcar import metrics
from whichcar.evaluation.levels import answered, score_levels
from whichcar.evaluation.predictions import EvaluatedImage
from whichcar.evaluation.result import TOP
from whichcar.inference.answer import Calibration
from whichcar.metrics import Proportion
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
    matrix = confusion(images, len(names))
    return {
        "top_1": Proportion(sum(image.rank == 1 for image in images), len(images)),
        "top_5": Proportion(sum(image.rank <= TOP for image in images), len(images)),
        "log_loss": metrics.log_loss(np.array([image.label_probability for image in images])),
        "classes": tuple(metrics.per_class(matrix, names)),
        "confused": tuple(metrics.most_confused(matrix, names)),
        "levels": score_levels(probabilities, labels, taxonomy, calibration, TOP),
        "answered": () if calibration is None else answered(probabilities, labels, taxonomy.levels, calibration, crops),
    }


def confusion(images: Sequence[EvaluatedImage], classes: int) -> npt.NDArray[np.int64]:
    """Return the confusion matrix (`metrics.confusion`) of images."""
    labels = np.array([image.sample.class_index for image in images])
    return metrics.confusion(labels, np.array([image.predicted for image in images]), classes)
