"""Calibration on validation images: a temperature, and thresholds at which answers reach a target accuracy."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whichcar import files, metrics
from whichcar.errors import DataError
from whichcar.evaluation.eval_set import has_changed, named_tree, tree_of
from whichcar.inference.answer import (
    Calibration,
    Probabilities,
    Thresholds,
    entropy,
    find_calibration,
    logits_of,
    tempered,
)
from whichcar.inference.classifier import Classifier
from whichcar.progress import track
from whichcar.records import Metadata, Sample, Skipped
from whichcar.taxonomy import Level, Taxonomy, taxonomy_of
from whichcar.text import reason_of
from whichcar.training.run.checkpoint import find_checkpoint, read_best, read_metadata
from whichcar.training.run.refits import refitted

log = logging.getLogger(__name__)

WANTED = (0.8, 0.9, 0.95, 0.99)
TEMPERATURES = (0.25, 4.0)
KEPT = 0.95  # share of the validation images whose entropy is low enough to be answered
RISK = 0.05  # probability that answers are less accurate than wanted

Numbers = npt.NDArray[np.integer]


def calibrate(
    checkpoint: str | Path, data: str | Path | None = None, classifier: Classifier | None = None
) -> Calibration:
    """Return the calibration of a checkpoint: temperature, calibration errors and thresholds.

    It is measured on the experiment's validation images and saved in its calibration.json if the checkpoint is its best
    and the file can be written; a damaged file is replaced. A refit was trained on those images, so it uses the
    calibration of the checkpoint it was refitted from.

    Args:
        checkpoint: an experiment's folder (the checkpoint it predicts with is used) or a checkpoint file.
        data: the tree it was trained on, if that was moved.
        classifier: a classifier of this checkpoint that does not crop, if one is already loaded.

    Raises:
        CheckpointError: there is no usable checkpoint.
        DataError: there are no validation images, or they are missing or unreadable.
    """
    if classifier is None:
        file = find_checkpoint(checkpoint)
        metadata = read_metadata(file)
    else:  # a running training may have deleted the file
        file, metadata = classifier.checkpoint, classifier.metadata
    with contextlib.suppress(DataError, FileNotFoundError):  # damaged, or the file is gone: measured again
        if (calibration := find_calibration(file, metadata)) is not None:
            return calibration
    if refit_of := metadata.settings.get("refit_of"):
        file = _before_refit(file, refit_of)
        metadata = read_metadata(file)
    samples = _validation(file, data, metadata)
    if classifier is None or classifier.checkpoint != file:
        classifier = Classifier(file, crop=False)
    digest = classifier.checksum  # before the images are classified: a running training may delete the file
    probabilities, labels = _scored(classifier, samples)
    calibration = calibrated(probabilities, labels, taxonomy_of(classifier.class_names), digest)
    if (best := read_best(file.parent)) is None or best["checkpoint"] == file.name:
        try:
            files.write_json(file.parent / files.CALIBRATION, dataclasses.asdict(calibration))
        except OSError as error:
            log.warning("%s: the calibration cannot be kept there (%s)", file.parent, reason_of(error))
    return calibration


def _before_refit(file: Path, refit_of: str) -> Path:
    """Return the checkpoint that a refit was made from."""
    before = refitted(file.parent)
    best = None if before is None else read_best(before)
    found = None if before is None or best is None else before / str(best["checkpoint"])
    if found is None or not found.is_file() or files.checksum(found) != refit_of:
        raise DataError(f"{file}: not calibrated: it is a refit, and the checkpoint that was refitted is not there")
    return found


def _validation(file: Path, data: str | Path | None, metadata: Metadata) -> list[Sample]:
    tree = named_tree(None if data is None else Path(data), metadata)
    if tree is None:
        gone = f"{metadata.data_root}, with its validation images, is not there"
        reason = gone if data is None else f"{data} is not the dataset that it was trained on"
        raise DataError(f"{file}: not calibrated: {reason}")
    images = tree_of(tree, metadata)
    if not images.validation:
        raise DataError(f"{file}: not calibrated: {tree} has no validation images that it was not trained on")
    if metadata.validation is None and has_changed(images, metadata):
        log.warning("%s: has changed since the training of %s, which may have used its validation images", tree, file)
    return images.validation


def _scored(classifier: Classifier, samples: Sequence[Sample]) -> tuple[Probabilities, Numbers]:
    """Return the probabilities and the labels of the images that can be read."""
    scored = track(classifier.scored(sample.path for sample in samples), "calibrating", len(samples))
    rows = [
        (item.probabilities, sample.class_index)
        for sample, item in zip(samples, scored, strict=True)
        if not isinstance(item, Skipped)
    ]
    if not rows:
        raise DataError(f"{classifier.checkpoint}: not calibrated: no validation image can be read")
    return np.stack([row for row, _ in rows]), np.array([label for _, label in rows])


def calibrated(probabilities: Probabilities, labels: Numbers, taxonomy: Taxonomy, checkpoint: str) -> Calibration:
    """Return the calibration from probabilities (images, classes) and class numbers (images,) of validation images."""
    temperature = fit_temperature(probabilities, labels)
    after = tempered(probabilities, temperature)
    most = float(np.quantile(entropy(after), KEPT, method="higher"))
    thresholds = [choose_thresholds(after, labels, taxonomy.levels, wanted, most) for wanted in WANTED]
    return Calibration(
        temperature,
        len(labels),
        checkpoint,
        (_log_loss(probabilities, labels, 1.0), _log_loss(probabilities, labels, temperature)),
        {
            level.name: (level_error(probabilities, labels, level), level_error(after, labels, level))
            for level in taxonomy.all
        },
        tuple(thresholds),
    )


def level_error(probabilities: Probabilities, labels: Numbers, level: Level) -> float:
    """Return the expected calibration error of the most probable group at a level."""
    groups = probabilities @ level.matrix
    return metrics.calibration_error(groups.max(axis=1), groups.argmax(axis=1) == level.index[labels])


def fit_temperature(probabilities: Probabilities, labels: Numbers) -> float:
    """Return the temperature with the lowest log loss (Guo et al. 2017), within `TEMPERATURES`.

    The log loss is convex in 1 / temperature, so golden-section search finds the minimum; `metrics.log_loss` is not
    convex, since it clips probabilities. If all images are classified correctly, the lowest temperature would always be
    best, which says nothing, so 1 is returned.
    """
    if metrics.top_k_accuracy(probabilities, labels) == 1:
        return 1.0
    logits = logits_of(probabilities)
    own = logits[np.arange(len(labels)), labels]

    def loss(inverse: float) -> float:
        return float((np.log(np.exp(logits * inverse).sum(axis=1)) - own * inverse).mean())

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-5:
        first, second = high - golden * (high - low), low + golden * (high - low)
        if loss(first) <= loss(second):
            high = second
        else:
            low = first
    return 2 / (low + high)


def _log_loss(probabilities: Probabilities, labels: Numbers, temperature: float) -> float:
    return metrics.log_loss(tempered(probabilities, temperature)[np.arange(len(labels)), labels])


def choose_thresholds(
    probabilities: Probabilities,
    labels: Numbers,
    levels: Sequence[Level],
    wanted: float,
    most_entropy: float | None = None,
) -> Thresholds:
    """Return the thresholds that answer the most images, finest level first, with at least the accuracy `wanted`.

    Each level adds the largest number of images not answered at a finer level, most probable first, that keeps the
    lower bound of the accuracy of all answers so far (Clopper and Pearson, one-sided, 95 %) at or above `wanted`.
    Choosing the largest number makes that bound slightly optimistic: in simulations, 3 to 7 % of thresholds were less
    accurate than wanted, compared with 5 % for a bound that is tested once.

    Args:
        probabilities: (images, classes), calibrated, of validation images.
        labels: (images,) class numbers.
        levels: levels of the taxonomy, finest first.
        wanted: accuracy, 0 to 1, exclusive.
        most_entropy: images with a higher entropy are not answered.
    """
    least: dict[str, float] = {}
    total = correct = 0
    is_open = np.ones(len(labels), dtype=bool) if most_entropy is None else entropy(probabilities) <= most_entropy
    fewest = math.ceil(math.log(RISK) / math.log(wanted))  # answers needed if all are correct
    needed = 0 if is_open.sum() >= fewest else _images_with(fewest)
    for level in levels:
        groups = probabilities[is_open] @ level.matrix
        best = groups.max(axis=1)
        order = np.argsort(-best, kind="stable")
        best, right = best[order], (groups.argmax(axis=1) == level.index[labels[is_open]])[order]
        hits = correct + np.cumsum(right)
        # Images of equal probability are answered together.
        ends = np.flatnonzero(np.append(best[:-1] > best[1:], [True] * (len(best) > 0)))
        for end in reversed(ends):
            if _is_shown(int(hits[end]), total + int(end) + 1, wanted):
                after = best[min(end + 1, len(best) - 1)]
                least[level.name] = float(best[end] + after) / 2
                total, correct = total + int(end) + 1, int(hits[end])
                is_open[np.flatnonzero(is_open)[order[: end + 1]]] = False
                break
    return Thresholds(wanted, least, needed, most_entropy)


def _images_with(answerable: int) -> int:
    """Return how many images with distinct entropies are needed for this many to be within the entropy limit."""
    counts = itertools.count(answerable)
    return next(count for count in counts if np.quantile(np.arange(count), KEPT, method="higher") >= answerable - 1)


def _is_shown(correct: int, total: int, wanted: float) -> bool:
    """Return True if this many correct answers would be too unlikely at an accuracy below `wanted`."""
    return correct >= wanted * total and metrics.binomial_tail(correct, total, wanted) <= RISK
