"""Macro-averaged precision, recall and F1, in which every class counts the same, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_RESAMPLES = 1000
_SEED = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured number and its 95 % interval."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Macro:
    """Means over the classes that have images. The precision of a class that is never predicted is 0."""

    precision: Estimate
    recall: Estimate
    f1: Estimate


def macro(matrix: npt.NDArray[np.int64]) -> Macro:
    """Return the macro scores of a confusion matrix (classes, classes): rows are true classes, columns predicted ones.

    Intervals are the 2.5 and 97.5 percentiles of 1,000 resamples of the images (Efron and Tibshirani, "An Introduction
    to the Bootstrap", 1993, chapter 13) with a fixed seed. Without images, scores are 0 with the interval 0..1.
    """
    if not matrix.any():
        nothing = Estimate(0.0, (0.0, 1.0))
        return Macro(nothing, nothing, nothing)
    labels, predicted = np.nonzero(matrix)
    counts = matrix[labels, predicted]
    # Images in one cell of the matrix are interchangeable, so cells are drawn instead of images.
    draws = np.random.default_rng(_SEED).multinomial(counts.sum(), counts / counts.sum(), _RESAMPLES)
    shape = (len(matrix), 1 + _RESAMPLES)
    total, given, correct = (np.zeros(shape, np.int64) for _ in range(3))
    cells = np.vstack([counts, draws]).T
    np.add.at(total, labels, cells)
    np.add.at(given, predicted, cells)
    is_correct = labels == predicted
    correct[labels[is_correct]] = cells[is_correct]
    present = (total > 0).sum(axis=0)
    shares = [_ratio(correct, given), _ratio(correct, total), _ratio(2 * correct, total + given)]
    means = [np.where(total > 0, share, 0).sum(axis=0) / present for share in shares]
    return Macro(*(Estimate(float(mean[0]), _interval(mean[1:])) for mean in means))


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return part / np.maximum(whole, 1)


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
