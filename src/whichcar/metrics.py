"""How often a classifier is right: pure arithmetic on arrays, no files and no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Score:
    """Mean cross-entropy, without smoothing or penalties, and share right; NaN where there are no images."""

    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Share:
    """A count as a share of another, with its 95 % Wilson interval; 0 of 0 is 0 with the interval 0..1."""

    right: int
    of: int

    @property
    def value(self) -> float:
        """The share itself, 0..1."""
        return self.right / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true share lies in 95 of 100 such samples."""
        return wilson(self.right, self.of)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class: its images, how many were predicted correctly, and how many images were said to be of it."""

    name: str
    pictures: int
    right: int
    said: int

    @property
    def recall(self) -> float:
        """Share of the class's images that were predicted correctly; 0 when there are none."""
        return self.right / self.pictures if self.pictures else 0.0

    @property
    def precision(self) -> float:
        """Share of the answers naming this class that were right; 0 when it was never named."""
        return self.right / self.said if self.said else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision."""
        return 2 * self.right / (self.pictures + self.said) if self.right else 0.0


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` of the `of` images of class `truth` were taken for `said`."""

    truth: str
    said: str
    count: int
    of: int


def wilson(right: int, of: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson 1927), 95 % by default.

    Unlike the textbook interval it stays within 0..1 and is not empty at 0 or all right.
    """
    if of == 0:
        return 0.0, 1.0
    share = right / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def ranks(scores: Scores, truth: Numbers) -> npt.NDArray[np.int64]:
    """Return the place of the true class in each image's scores: 1 is best.

    Args:
        scores: (images, classes), higher is better; need not sum to one.
        truth: (images,) class numbers, 0 … classes - 1.

    Among equal scores the true class comes last, so a constant model is never right; nor is one that gives NaN.
    """
    own = scores[np.arange(len(truth)), truth]
    return np.asarray((~(scores < own[:, None])).sum(axis=1), dtype=np.int64)


def top_k_accuracy(scores: Scores, truth: Numbers, k: int = 1) -> float:
    """Return the share of images whose true class is among the k best scores.

    Args:
        scores: (images, classes), higher is better; need not sum to one.
        truth: (images,) class numbers, 0 … classes - 1.
        k: how many of the best count.

    A tie at the k-th place counts as a miss, so a constant model scores 0, not 1. No images: 0.
    """
    return float((ranks(scores, truth) <= k).mean()) if len(truth) else 0.0


def log_loss(own: Scores) -> float:
    """Return the mean of -ln(p), where p is the probability given to each image's true class, at least 1e-7."""
    return float(-np.log(np.clip(own.astype(np.float64), 1e-7, 1.0)).mean()) if len(own) else 0.0


def confusion(truth: Numbers, said: Numbers, classes: int) -> npt.NDArray[np.int64]:
    """Return (classes, classes) counts: row is the true class, column the one that was said."""
    flat = np.bincount(truth.astype(np.int64) * classes + said, minlength=classes * classes)
    return flat.reshape(classes, classes)


def per_class(matrix: npt.NDArray[np.int64], names: Sequence[str]) -> list[ClassScore]:
    """Return one score a class, in the order of `names`, from a confusion matrix."""
    pictures, said, right = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    return [
        ClassScore(name, int(p), int(r), int(s)) for name, p, r, s in zip(names, pictures, right, said, strict=True)
    ]


def most_confused(matrix: npt.NDArray[np.int64], names: Sequence[str], limit: int = 20) -> list[Confusion]:
    """Return the class pairs most often confused, most first; equal counts by share, then by name."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    totals = matrix.sum(axis=1)
    found = [
        Confusion(names[row], names[column], int(wrong[row, column]), int(totals[row]))
        for row, column in zip(*np.nonzero(wrong), strict=True)
    ]
    found.sort(key=lambda pair: (-pair.count, -pair.count / pair.of, pair.truth, pair.said))
    return found[:limit]


def reliability(probability: Scores, right: npt.NDArray[np.bool_], bins: int = 10) -> list[tuple[float, float, int]]:
    """Compare what the classifier claims with what comes true.

    Args:
        probability: (images,) of the best class, 0..1.
        right: (images,) whether that class is the true one.
        bins: how many of equal width 0..1 is cut into.

    Returns:
        (mean probability, share right, images) for each bin that holds an image.
    """
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    filled = [place == number for number in np.unique(place)]
    return [(float(probability[some].mean()), float(right[some].mean()), int(some.sum())) for some in filled]
