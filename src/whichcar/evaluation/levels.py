"""Accuracy at every level, from class to make, and of answers at the finest level that is certain enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from whichcar import metrics
from whichcar.evaluation.macro import Macro, macro
from whichcar.inference.answer import Calibration, Probabilities, Thresholds, answers, tempered
from whichcar.metrics import ClassScore, Covered, Proportion
from whichcar.records import Answer, Crop
from whichcar.taxonomy import Level, Taxonomy

Numbers = npt.NDArray[np.integer]
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)  # fractions of the images, for `LevelScore.most_certain`
TOP = 5  # for top-5 accuracy, which means nothing for five groups or fewer


@dataclass(frozen=True, slots=True)
class Certainty:
    """How the probability of the best group compares with the accuracy.

    Args:
        error: the expected calibration error.
        reliability: rows of `metrics.reliability`.
        coverage: accuracy of the most certain images, from the few most certain ones to all.
    """

    error: float
    reliability: tuple[tuple[float, float, int], ...]
    coverage: tuple[Covered, ...]


@dataclass(frozen=True, slots=True)
class LevelScore:
    """Scores at one level, where the probability of a group is the sum over its classes.

    `matrix` is from `metrics.confusion`, `per_group` has precision, recall and F1 of each group, `macro` their means.
    `before` and `after` are the certainty before and after calibration; `after` is None if there is no calibration.
    """

    name: str
    groups: int
    top_1: Proportion
    top_5: Proportion
    matrix: npt.NDArray[np.int64]
    macro: Macro
    per_group: tuple[ClassScore, ...]
    before: Certainty
    after: Certainty | None

    @property
    def coverage(self) -> tuple[Covered, ...]:
        """Accuracy of the most certain images, by calibrated probabilities if available."""
        return (self.after or self.before).coverage

    @property
    def most_certain(self) -> list[Covered]:
        """The first row of `coverage` that reaches each share in `SHARES`, without duplicates."""
        least = [share * self.top_1.total - 1e-6 for share in SHARES]
        rows = [next(row for row in self.coverage if row.accuracy.total >= count) for count in least]
        return list(dict.fromkeys(rows))


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers for a wanted accuracy: at each level, how many are given and how many of them are correct."""

    wanted: float
    images: int
    levels: dict[str, Proportion]
    images_needed: int

    @property
    def accuracy(self) -> Proportion:
        """Share of the answers that are correct, not counting images that are answered with `unknown`."""
        return Proportion(
            sum(one.correct for one in self.levels.values()), sum(one.total for one in self.levels.values())
        )


def score_levels(
    probabilities: Probabilities, labels: Numbers, taxonomy: Taxonomy, calibration: Calibration | None
) -> tuple[LevelScore, ...]:
    """Return the score at each level and facet.

    Args:
        probabilities: (images, classes), as returned by the network.
        labels: (images,) class numbers.
        taxonomy: taxonomy of the classes.
        calibration: calibration of the network, if any.
    """
    after = None if calibration is None else tempered(probabilities, calibration.temperature)
    return tuple(_score(probabilities, after, labels, level) for level in taxonomy.all)


def _score(probabilities: Probabilities, after: Probabilities | None, labels: Numbers, level: Level) -> LevelScore:
    groups, group_labels = probabilities @ level.matrix, level.index[labels]
    rank = metrics.ranks(groups, group_labels)
    matrix = metrics.confusion(group_labels, metrics.predictions(groups, group_labels), len(level.groups))
    return LevelScore(
        level.name,
        len(level.groups),
        Proportion(int((rank == 1).sum()), len(rank)),
        Proportion(int((rank <= TOP).sum()), len(rank)),
        matrix,
        macro(matrix),
        tuple(metrics.per_class(matrix, level.groups)),
        _certainty(probabilities, labels, level),
        None if after is None else _certainty(after, labels, level),
    )


def _certainty(probabilities: Probabilities, labels: Numbers, level: Level) -> Certainty:
    groups = probabilities @ level.matrix
    best, correct = groups.max(axis=1), groups.argmax(axis=1) == level.index[labels]
    return Certainty(
        metrics.calibration_error(best, correct),
        tuple(metrics.reliability(best, correct)),
        tuple(metrics.coverage(best, correct)),
    )


def answered(
    probabilities: Probabilities,
    labels: Numbers,
    levels: Sequence[Level],
    calibration: Calibration,
    crops: Sequence[Crop | None],
) -> tuple[Answered, ...]:
    """Return how many images are answered, and how many correctly, at the thresholds for each wanted accuracy."""
    after = tempered(probabilities, calibration.temperature)
    return tuple(
        _answered(answers(after, levels, thresholds, crops), labels, levels, thresholds)
        for thresholds in calibration.thresholds
    )


def _answered(given: Sequence[Answer], labels: Numbers, levels: Sequence[Level], thresholds: Thresholds) -> Answered:
    counts = {}
    for level in levels:
        pairs = [(row.name, label) for row, label in zip(given, labels, strict=True) if row.level == level.name]
        correct = sum(name == level.groups[level.index[label]] for name, label in pairs)
        counts[level.name] = Proportion(correct, len(pairs))
    return Answered(thresholds.wanted, len(labels), counts, thresholds.images_needed)
