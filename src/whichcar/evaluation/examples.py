"""Images for the report: the most confident errors and the most confused classes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from PIL import Image

from whichcar.data.split_names import TRAIN
from whichcar.errors import CheckpointError, DataError
from whichcar.evaluation.eval_set import EvalSet, tree_of
from whichcar.evaluation.predictions import EvaluatedImage
from whichcar.evaluation.result import ConfusedImages, Misclassified
from whichcar.images.inputs import each
from whichcar.inference.classifier import Classifier
from whichcar.inference.explain import heated
from whichcar.metrics import Confusion
from whichcar.records import Metadata, Skipped

SHOWN = 12


def most_confident_errors(images: Sequence[EvaluatedImage], classifier: Classifier) -> tuple[Misclassified, ...]:
    """Return the wrong predictions with the highest probability, highest first.

    Args:
        images: the evaluated images.
        classifier: the one that predicted them; if it can be explained, each error has a map.
    """
    names = classifier.class_names
    errors = sorted((image for image in images if image.rank > 1), key=lambda image: -image.probability)[:SHOWN]
    maps: list[Image.Image | None] = [None] * len(errors)
    with contextlib.suppress(CheckpointError):
        maps = _maps(errors, classifier) if errors else maps
    return tuple(
        Misclassified(
            image.sample.path,
            names[image.sample.class_index],
            names[image.predicted],
            image.probability,
            image.label_probability,
            shown,
        )
        for image, shown in zip(errors, maps, strict=True)
    )


def _maps(errors: Sequence[EvaluatedImage], classifier: Classifier) -> list[Image.Image | None]:
    """Return each error as the network sees it, coloured where it supports the prediction over the label.

    Raises:
        CheckpointError: the network cannot be explained.
    """
    explainer = classifier.explainer()
    maps: list[Image.Image | None] = []
    for error in errors:
        given = next(each(error.sample.path))
        opened = given if isinstance(given, Skipped) else classifier.opened(given)[0][1]
        if isinstance(opened, Skipped):  # gone since it was classified
            maps.append(None)
            continue
        explanation = explainer.explain(opened.image, rival=error.sample.class_index)
        maps.append(heated(Image.fromarray(opened.image), explanation.against_rival))
    return maps


def confused_images(
    confused: Sequence[Confusion],
    images: Sequence[EvaluatedImage],
    eval_set: EvalSet,
    metadata: Metadata,
) -> tuple[ConfusedImages, ...]:
    """Return, for each of the first pairs, the most confident error and an image of the predicted class.

    Args:
        confused: most confused pairs.
        images: the evaluated images.
        eval_set: the set they belong to; references are taken from it if the tree used for training is missing.
        metadata: metadata of the checkpoint.
    """
    numbers = {name: number for number, name in enumerate(metadata.class_names)}
    references = {image.sample.class_index: (image.sample.path, eval_set.split) for image in reversed(images)}
    if eval_set.trained is not None:
        with contextlib.suppress(DataError):
            tree = tree_of(eval_set.trained, metadata)
            references |= {sample.class_index: (sample.path, TRAIN) for sample in reversed(tree.train)}
    found = []
    for pair in confused[:SHOWN]:
        label, predicted = numbers[pair.label], numbers[pair.predicted]
        errors = [image for image in images if (image.sample.class_index, image.predicted) == (label, predicted)]
        worst = max(errors, key=lambda image: image.probability)
        found.append(ConfusedImages(pair, worst.sample.path, *references.get(predicted, (None, ""))))
    return tuple(found)
