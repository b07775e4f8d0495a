"""Images of the pairs of classes that are confused most."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from whichcar.data.split_names import TRAIN
from whichcar.errors import DataError
from whichcar.evaluation.eval_set import EvalSet, tree_of
from whichcar.evaluation.predictions import EvaluatedImage
from whichcar.evaluation.result import ConfusedImages
from whichcar.metrics import Confusion
from whichcar.records import Metadata
from whichcar.text import nfc

SHOWN = 12


def confused_images(
    confused: Sequence[Confusion],
    images: Sequence[EvaluatedImage],
    eval_set: EvalSet,
    metadata: Metadata,
    trained: Path | None,
) -> tuple[ConfusedImages, ...]:
    """Return, for the first pairs, the most confident error and an image of the class that it was taken for.

    Args:
        confused: most confused pairs.
        images: those that were evaluated.
        eval_set: what they are.
        metadata: of the checkpoint.
        trained: the tree that it was trained on; where it is not there, images of the evaluated ones are taken.
    """
    numbers = {name: number for number, name in enumerate(metadata.class_names)}
    references = {image.sample.class_index: (image.sample.path, eval_set.split) for image in reversed(images)}
    if trained is not None:
        with contextlib.suppress(DataError):
            tree = tree_of(trained, metadata)
            if tree.class_folders == tuple(map(nfc, metadata.class_folders)):
                references |= {sample.class_index: (sample.path, TRAIN) for sample in reversed(tree.train)}
    found = []
    for pair in confused[:SHOWN]:
        label, predicted = numbers[pair.label], numbers[pair.predicted]
        errors = [image for image in images if (image.sample.class_index, image.predicted) == (label, predicted)]
        worst = max(errors, key=lambda image: image.probability)
        found.append(ConfusedImages(pair, worst.sample.path, *references.get(predicted, (None, ""))))
    return tuple(found)
