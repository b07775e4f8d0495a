"""What a worker process does: it loads a model, and classifies the images of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from whichcar.errors import ConfigError
from whichcar.images.inputs import Given, Size
from whichcar.images.pixels import DecodedImage
from whichcar.images.problems import image_error
from whichcar.images.read import decoded, decoded_from, enough_for
from whichcar.inference.classifier import Classifier
from whichcar.inference.runtimes import BUNDLES
from whichcar.inference.stream import Scored
from whichcar.records import Crop, Prediction, Skipped
from whichcar.serving.settings import Job, WorkerSetup
from whichcar.taxonomy import taxonomy_of

Row = dict[str, Any]


class Handler:
    """A model that classifies jobs.

    Raises:
        WhichcarError: as `Classifier`.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        """Load the model."""
        self.classifier = Classifier(setup.model or None, setup.crop, setup.detector, setup.family)
        self._max_pixels = setup.max_pixels
        self._levels = taxonomy_of(self.classifier.class_names).levels
        self._predicting = lru_cache(64)(self.classifier.predicting)

    def description(self) -> Row:
        """Return what the server says of the model, as JSON."""
        from whichcar.inference.bundle import read_bundle

        file = self.classifier.checkpoint
        is_bundle = file.suffix.lower() in BUNDLES
        bundle = read_bundle(file) if is_bundle else None
        with file.open("rb") as content:
            checksum = hashlib.file_digest(content, "sha256").hexdigest()
        calibration = self.classifier.calibration
        return {
            "name": bundle.name if bundle else file.parent.name,
            "sha256": checksum,
            "class_names": list(self.classifier.class_names),
            "image_size": list(self.classifier.image_size),
            "levels": [level.name for level in self._levels],
            "confidences": [one.wanted for one in calibration.thresholds] if calibration else [],
            "crops": self.classifier.input_crop.crops,
            "hardware": self.classifier.hardware,
            "licence": bundle.licence if bundle else "",
            "created": bundle.created if bundle else "",
            "card": bundle.card if bundle else "",
            "page": bundle.page if bundle else "",
        }

    def rows(self, jobs: Sequence[Job]) -> list[Row]:
        """Return one row a job, in order: an answer, or `problem` with a sentence."""
        rows: list[Row] = []
        # Pixels at the size of the network are what was cropped already.
        for whole, group in groupby(jobs, lambda job: not isinstance(job.content, bytes)):
            alike = list(group)
            scored = self.classifier.scored_here([self._given(job) for job in alike], whole)
            rows += [self._row(job, item) for job, item in zip(alike, scored, strict=True)]
        return rows

    def _given(self, job: Job) -> Given:
        @contextmanager
        def opened(size: Size | None) -> Iterator[DecodedImage]:
            if not isinstance(job.content, bytes):
                from PIL import Image

                with decoded_from(Image.fromarray(job.content), job.name) as image:
                    yield image
                return
            with decoded(job.content, size and enough_for(size), job.name, self._max_pixels) as image:
                yield image
                if image.header.animated:  # to be asked for after the pixels
                    raise image_error(job.name, "it has several frames or pages; send one still image")

        return Given(job.name, opened)

    def _row(self, job: Job, item: Scored | Skipped) -> Row:
        if isinstance(item, Skipped):
            return {"name": job.name, "problem": item.reason}
        if not isinstance(job.content, bytes):
            return {"name": job.name, "probabilities": item.probabilities.tolist(), "problem": None}
        try:
            predicting: Callable[[Scored], Prediction] = self._predicting(job.top, job.confidence)
        except ConfigError as error:
            return {"name": job.name, "problem": _without_path(error, self.classifier.checkpoint.name)}
        return {"name": job.name} | self._answer(predicting(item), item) | {"problem": None}

    def _answer(self, prediction: Prediction, scored: Scored) -> Row:
        answer = prediction.answer
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        return {
            "answer": answer and {"level": answer.level, "name": answer.name, "probability": answer.probability},
            "classes": [{"name": name, "probability": probability} for name, probability in pairs],
            "levels": self._best_of_levels(scored),
            "crop": _crop(prediction.crop),
        }

    def _best_of_levels(self, scored: Scored) -> list[Row]:
        """Return the most probable group at each level, finest first."""
        rows = []
        for level in self._levels:
            groups = scored.probabilities @ level.matrix
            best = int(np.argmax(groups))
            rows.append({"level": level.name, "name": level.groups[best], "probability": float(groups[best])})
        return rows


def _crop(crop: Crop | None) -> Row | None:
    if crop is None:
        return None
    box = crop.box
    return {
        "outcome": crop.outcome,
        "box": box and {"left": box.left, "top": box.top, "right": box.right, "bottom": box.bottom},
        "vehicle": crop.label or None,
        "score": crop.score,
        "candidates": crop.candidates,
    }


def _without_path(error: ConfigError, file: str) -> str:
    """Return an error's text without the path of the model that it may begin with."""
    text = str(error)
    return text.partition(f"{file}: ")[2] or text
