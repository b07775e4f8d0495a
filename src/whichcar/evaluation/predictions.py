"""The predictions of an evaluation, made image by image and written to predictions.csv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whichcar import metrics, progress
from whichcar.errors import DataError
from whichcar.evaluation.eval_set import EvalSet
from whichcar.evaluation.levels import TOP
from whichcar.files import csv_line
from whichcar.inference.classifier import Classifier, best_of
from whichcar.inference.runtimes import Probabilities
from whichcar.inference.stream import Scored
from whichcar.records import CROP_COLUMNS, Crop, Prediction, Sample, Skipped
from whichcar.text import as_text, plural


@dataclass(frozen=True, slots=True)
class EvaluatedImage:
    """The prediction for one image: `rank` is that of the true class, 1 is best; `probabilities` cover all classes.

    `crop` describes how the image was cropped first; None if cropping was off.
    """

    sample: Sample
    predicted: int
    rank: int
    probabilities: Probabilities
    crop: Crop | None = None

    @property
    def probability(self) -> float:
        """Probability of the predicted class."""
        return float(self.probabilities[self.predicted])

    @property
    def label_probability(self) -> float:
        """Probability of the true class."""
        return float(self.probabilities[self.sample.class_index])


def classify(
    classifier: Classifier, eval_set: EvalSet, table: Path
) -> tuple[list[EvaluatedImage], tuple[Skipped, ...]]:
    """Classify every image of the set, writing its row of predictions.csv to `table` as soon as it is classified."""
    images: list[EvaluatedImage] = []
    unreadable: list[Skipped] = []
    crop_columns = CROP_COLUMNS if classifier.input_crop.crops else ()
    scored = classifier.scored(sample.path for sample in eval_set.samples)
    pairs = zip(eval_set.samples, scored, strict=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line([*_columns(), *crop_columns, "error"]) + "\n")
        for sample, item in progress.track(pairs, "evaluating", len(eval_set.samples)):
            inside = sample.path.relative_to(eval_set.root)
            start = [as_text(inside), classifier.class_names[sample.class_index]]
            if isinstance(item, Skipped):
                unreadable.append(Skipped(inside, item.reason))
                file.write(csv_line([*start, *[""] * (5 + 2 * TOP + len(crop_columns)), item.reason]) + "\n")
                continue
            images.append(_evaluated(sample, item))
            cells = _cells(images[-1], best_of(item, classifier.class_names, TOP), classifier.class_names)
            crop = {} if item.crop is None else item.crop.as_row()
            file.write(csv_line([*start, *cells, *crop.values(), ""]) + "\n")
    if not images:
        first = f"{as_text(unreadable[0].path)}: {unreadable[0].reason}"
        raise DataError(f"{eval_set.root}: none of {plural(len(unreadable), 'image')} can be read; the first: {first}")
    return images, tuple(unreadable)


def _evaluated(sample: Sample, scored: Scored) -> EvaluatedImage:
    label, probabilities = sample.class_index, scored.probabilities
    rank = int(metrics.ranks(probabilities[None], np.array([label]))[0])
    predicted = int(metrics.predictions(probabilities[None], np.array([label]))[0])
    return EvaluatedImage(sample, predicted, rank, probabilities, scored.crop)


def _columns() -> list[str]:
    more = [name for number in range(1, TOP + 1) for name in (f"class_{number}", f"probability_{number}")]
    return ["path", "label", "predicted", "probability", "correct", "rank", "label_probability", *more]


def _cells(image: EvaluatedImage, best: Prediction, names: tuple[str, ...]) -> list[str]:
    pairs = list(zip(best.classes, best.probabilities, strict=True))
    top = [text for name, probability in pairs for text in (name, f"{probability:.6f}")]
    cells = [names[image.predicted], f"{image.probability:.6f}", str(int(image.rank == 1)), str(image.rank)]
    return [*cells, f"{image.label_probability:.6f}", *top, *[""] * (2 * TOP - len(top))]
