"""Accuracy, loss and confusion of a classifier: pure arithmetic on arrays, no files and no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.05  # p-values below it are called significant

Scores = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Score:
    """Mean cross-entropy, without smoothing or penalties, and accuracy; NaN if there are no images."""

    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Proportion:
    """A count as a proportion of another, with its exact 95 % interval; 0 of 0 is 0, with the interval 0..1."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """The proportion itself, 0..1."""
        return self.correct / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the true proportion."""
        return clopper_pearson(self.correct, self.total)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Counts of one class: its images, its correctly predicted images, and all predictions of the class."""

    name: str
    total: int
    correct: int
    predicted: int

    @property
    def recall(self) -> float:
        """Share of the class's images that were predicted correctly; 0 when there are none."""
        return self.correct / self.total if self.total else 0.0

    @property
    def precision(self) -> float:
        """Share of the predictions of this class that were correct; 0 when it was never predicted."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision."""
        return 2 * self.correct / (self.total + self.predicted) if self.correct else 0.0


@dataclass(frozen=True, slots=True)
class Covered:
    """Accuracy on the most confident images: all those with a probability of `least` or more."""

    least: float
    accuracy: Proportion


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` of the `total` images of class `label` were predicted as `predicted`."""

    label: str
    predicted: str
    count: int
    total: int


def clopper_pearson(correct: int, total: int, tail: float = 0.025) -> tuple[float, float]:
    """Return the exact interval of a proportion (Clopper and Pearson 1934), 95 % by default.

    The true proportion is below the lower end with a probability of at most `tail`, and above the upper end with the
    same; each end alone is the bound of a one-sided test. The interval of 0 of 0 is 0..1.
    """
    return _lower_bound(correct, total, tail), 1 - _lower_bound(total - correct, total, tail)


def _lower_bound(correct: int, total: int, tail: float) -> float:
    low, high = 0.0, correct / total if correct else 0.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (low, middle) if binomial_tail(correct, total, middle) > tail else (middle, high)
    return low


def binomial_tail(least: int, total: int, share: float) -> float:
    """Return the probability that `least` or more of `total` trials succeed, each with probability `share`."""
    if least <= 0 or share >= 1:
        return 1.0
    if least > total or share <= 0:
        return 0.0
    count = np.arange(least, total)
    steps = np.concatenate([[0.0], np.cumsum(np.log((total - count) / (count + 1)) + math.log(share / (1 - share)))])
    choices = math.lgamma(total + 1) - math.lgamma(least + 1) - math.lgamma(total - least + 1)
    first = choices + least * math.log(share) + (total - least) * math.log1p(-share)
    return min(1.0, float(np.exp(first + steps).sum()))


def ranks(scores: Scores, labels: Numbers) -> npt.NDArray[np.int64]:
    """Return the rank of the true class among each image's scores: 1 is best.

    Args:
        scores: (images, classes), higher is better; need not sum to one.
        labels: (images,) class numbers, 0 … classes - 1.

    Among equal scores the true class comes last, so a model with constant or NaN scores is never correct.
    """
    own = scores[np.arange(len(labels)), labels]
    return np.asarray((~(scores < own[:, None])).sum(axis=1), dtype=np.int64)


def predictions(scores: Scores, labels: Numbers) -> npt.NDArray[np.int64]:
    """Return the best class of each image; among equal scores the true class comes last, as in `ranks`."""
    others = scores.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return np.where(ranks(scores, labels) == 1, labels, others.argmax(axis=1)).astype(np.int64)


def top_k_accuracy(scores: Scores, labels: Numbers, k: int = 1) -> float:
    """Return the share of images whose true class is among the k best scores.

    Args:
        scores: (images, classes), higher is better; need not sum to one.
        labels: (images,) class numbers, 0 … classes - 1.
        k: number of best classes that count.

    A tie at the k-th place counts as a miss, so a constant model scores 0, not 1. Without images the result is 0.
    """
    return float((ranks(scores, labels) <= k).mean()) if len(labels) else 0.0


def log_loss(own: Scores) -> float:
    """Return the mean of -ln(p), where p is the probability of each image's true class, clipped to at least 1e-7."""
    # The mean is subtracted from 0.0, since negating 0 gives -0.0, with a minus sign in the name of a checkpoint.
    return float(0.0 - np.log(np.clip(own.astype(np.float64), 1e-7, 1.0)).mean()) if len(own) else 0.0


def confusion(labels: Numbers, predicted: Numbers, classes: int) -> npt.NDArray[np.int64]:
    """Return (classes, classes) counts: row is the true class, column the predicted one."""
    flat = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def per_class(matrix: npt.NDArray[np.int64], names: Sequence[str]) -> list[ClassScore]:
    """Return one score per class, in the order of `names`, from a confusion matrix."""
    total, predicted, correct = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    return [
        ClassScore(name, int(total[number]), int(correct[number]), int(predicted[number]))
        for number, name in enumerate(names)
    ]


def most_confused(matrix: npt.NDArray[np.int64], names: Sequence[str], limit: int = 20) -> list[Confusion]:
    """Return the most frequently confused class pairs, most first; ties are ordered by share, then by name."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    totals = matrix.sum(axis=1)
    found = [
        Confusion(names[row], names[column], int(wrong[row, column]), int(totals[row]))
        for row, column in zip(*np.nonzero(wrong), strict=True)
    ]
    found.sort(key=lambda pair: (-pair.count, -pair.count / pair.total, pair.label, pair.predicted))
    return found[:limit]


def reliability(probability: Scores, correct: npt.NDArray[np.bool_], bins: int = 10) -> list[tuple[float, float, int]]:
    """Compare predicted probabilities with observed accuracy.

    Args:
        probability: (images,) probability of the best class, 0..1.
        correct: (images,) whether that class is the true one.
        bins: number of bins of equal width that divide 0..1.

    Returns:
        (mean probability, share correct, images) for each bin that holds an image.
    """
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    filled = [place == number for number in np.unique(place)]
    return [(float(probability[in_bin].mean()), float(correct[in_bin].mean()), int(in_bin.sum())) for in_bin in filled]


def calibration_error(probability: Scores, correct: npt.NDArray[np.bool_], bins: int = 15) -> float:
    """Return the expected calibration error (Naeini et al. 2015): how far the probabilities are from the accuracy.

    It is the mean over all images of the difference between mean probability and accuracy in the image's bin, or 0
    without images. The arguments are the same as for `reliability`.
    """
    rows = reliability(probability, correct, bins)
    return sum(count * abs(mean - share) for mean, share, count in rows) / max(len(probability), 1)


def coverage(probability: Scores, correct: npt.NDArray[np.bool_], steps: int = 100) -> list[Covered]:
    """Return the accuracy of the most confident images: of 1/`steps` of them, of 2/`steps`, and so on up to all.

    The arguments are the same as for `reliability`. Images of equal probability are counted together.
    """
    order = np.argsort(-probability, kind="stable")
    least, hits = probability[order], np.cumsum(correct[order])
    ends = np.flatnonzero(np.append(least[:-1] > least[1:], [True] * (len(least) > 0)))
    wanted = -(np.arange(1, steps + 1) * -len(least) // steps) - 1
    chosen = ends[np.unique(np.searchsorted(ends, wanted))] if len(least) else ends
    return [Covered(float(least[end]), Proportion(int(hits[end]), int(end) + 1)) for end in chosen]
