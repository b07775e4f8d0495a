"""Probabilities averaged over mirrored images or several networks, compared with those of a single network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from whichcar import metrics
from whichcar.errors import DataError, ImageError
from whichcar.evaluation.levels import Numbers, score_levels
from whichcar.evaluation.mcnemar import Paired
from whichcar.evaluation.predictions import EvaluatedImage
from whichcar.evaluation.result import Averaged
from whichcar.inference.classifier import Classifier
from whichcar.inference.runtimes import Probabilities
from whichcar.progress import track
from whichcar.records import Skipped
from whichcar.taxonomy import Taxonomy, taxonomy_of


def check_classes(classifier: Classifier, others: Mapping[str, Classifier]) -> None:
    """Raise DataError if a network does not have the same classes as the one it is averaged with."""
    for name, other in others.items():
        if differing := sorted(set(classifier.class_names) ^ set(other.class_names)):
            raise DataError(
                f"{name}: has other classes than {classifier.name} ({differing[0]!r} is not in both), so their "
                "probabilities cannot be averaged; name an experiment with the same classes"
            )


def averages(
    classifier: Classifier,
    others: Mapping[str, Classifier],
    flip: bool,
    images: Sequence[EvaluatedImage],
) -> tuple[Averaged, ...]:
    """Return the accuracy of the mean probabilities: with mirrored images, with other networks, and with both.

    Args:
        classifier: the one that predicted the images.
        others: further networks by name, with the same classes.
        flip: also average over each image and its horizontally mirrored copy.
        images: the evaluated images.
    """
    plain = np.stack([image.probabilities for image in images])
    more = [_probabilities(other, classifier, images, name) for name, other in others.items()]
    kinds = {tuple(others): [plain, *more]} if others else {}
    if flip:
        mirrored = _probabilities(classifier.mirrored(), classifier, images, "mirrored")
        kinds = {("flip",): [plain, mirrored], **kinds}
        if others:
            more += [
                _probabilities(other.mirrored(), classifier, images, f"{name}, mirrored")
                for name, other in others.items()
            ]
            kinds[(*others, "flip")] = [plain, mirrored, *more]
    labels = np.array([image.sample.class_index for image in images])
    taxonomy = taxonomy_of(classifier.class_names)
    return tuple(_averaged(of, np.mean(members, axis=0), plain, labels, taxonomy) for of, members in kinds.items())


def _probabilities(
    member: Classifier, classifier: Classifier, images: Sequence[EvaluatedImage], name: str
) -> Probabilities:
    """Return (images, classes) probabilities in the order of the classifier's classes."""
    rows = []
    for item in track(member.scored(image.sample.path for image in images), name, len(images)):
        if isinstance(item, Skipped):
            raise ImageError(f"{item.path}: {item.reason}")
        rows.append(item.probabilities)
    return np.stack(rows)[:, [member.class_names.index(one) for one in classifier.class_names]]


def _averaged(
    of: tuple[str, ...], probabilities: Probabilities, plain: Probabilities, labels: Numbers, taxonomy: Taxonomy
) -> Averaged:
    before, after = (metrics.ranks(scores, labels) == 1 for scores in (plain, probabilities))
    paired = Paired(len(labels), int((after & ~before).sum()), int((before & ~after).sum()))
    return Averaged(of, score_levels(probabilities, labels, taxonomy, None), paired)
