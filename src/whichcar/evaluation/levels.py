"""Accuracy at every level, from the class to the make, and of answers that are as specific as they are certain."""

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
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)  # of the images, in `LevelScore.most_certain`
TOP = 5  # of top-5 accuracy, which says nothing where there are no more groups


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
    """How well the groups of a level are distinguished; the probability of a group is the sum over its classes.

    `matrix` is that of `metrics.confusion`, `per_group` has precision, recall and F1 of each group, `macro` their
    means. `before` and `after` are those before calibration and after it; None where there is no calibration.
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
        """Accuracy of the most certain images, by calibrated probabilities where there are some."""
        return (self.after or self.before).coverage

    @property
    def most_certain(self) -> list[Covered]:
        """Those of `coverage` that are nearest to, and not below, the shares in `SHARES`."""
        least = [share * self.top_1.total - 1e-6 for share in SHARES]
        rows = [next(row for row in self.coverage if row.accuracy.total >= count) for count in least]
        return list(dict.fromkeys(rows))


@dataclass(frozen=True, slots=True)
class Answered:
    """What is answered where an accuracy is wanted: at each level, how many answers are correct, of how many given."""

    wanted: float
    images: int
    levels: dict[str, Proportion]
    images_needed: int

    @property
    def accuracy(self) -> Proportion:
        """Share of the answers that are correct; images that are answered with `unknown` do not count."""
        return Proportion(
            sum(one.correct for one in self.levels.values()), sum(one.total for one in self.levels.values())
        )


def score_levels(
    probabilities: Probabilities, labels: Numbers, taxonomy: Taxonomy, calibration: Calibration | None
) -> tuple[LevelScore, ...]:
    """Return the score at each level and facet.

    Args:
        probabilities: (images, classes), as the network gives them.
        labels: (images,) class numbers.
        taxonomy: of the classes.
        calibration: of the network.
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
    """Return what is answered, and how much of it correctly, at the thresholds for each wanted accuracy."""
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
