"""The work of a worker process: it loads a model and classifies batches of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from whichcar.errors import CheckpointError, ConfigError, WhichcarError
from whichcar.files import sha256
from whichcar.images.inputs import Given, Size
from whichcar.images.pixels import DecodedImage
from whichcar.images.problems import image_error
from whichcar.images.read import decoded, decoded_from, enough_for
from whichcar.inference.classifier import Classifier, best_of
from whichcar.inference.explain import Explainer
from whichcar.inference.runtimes import BUNDLES
from whichcar.inference.stream import Opened, Scored
from whichcar.inference.stream import Row as OpenedRow
from whichcar.records import Answer, Box, Crop, NoVehicle, Skipped
from whichcar.serving.settings import Job, WorkerSetup
from whichcar.taxonomy import taxonomy_of
from whichcar.training.run.refits import experiment_name

Row = dict[str, Any]
_DIGITS = 4  # decimal places of logits


class Handler:
    """A model that classifies jobs.

    Raises:
        WhichcarError: as for `Classifier`.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        """Load the model."""
        self.classifier = Classifier(setup.model or None, setup.crop, setup.detector, setup.family)
        if self.classifier.input_crop.crops:
            self.classifier.input_crop.each_vehicle("all")  # loads the detector, so that its errors show now
        self._max_pixels, self._crop = setup.max_pixels, setup.crop
        self._levels = taxonomy_of(self.classifier.class_names).levels
        self._answering = lru_cache(64)(self.classifier.answering)
        self.sha256 = sha256(self.classifier.checkpoint)
        self._is_bundle = self.classifier.checkpoint.suffix.lower() in BUNDLES
        self._explainer: Explainer | None = None  # a second session, loaded at the first request for an explanation
        self._loading = Lock()

    def description(self) -> Row:
        """Return the server's description of the model, as JSON values."""
        from whichcar.inference.bundle import read_bundle

        file = self.classifier.checkpoint
        bundle = read_bundle(file) if self._is_bundle else None
        name = bundle.name if bundle else experiment_name(file.parent)
        calibration = self.classifier.calibration
        return {
            # Part of a URL: /v2/models/NAME. The name of a refit has a slash; the folder / has no name.
            "name": name.replace("/", "-") or file.stem,
            "sha256": self.sha256,
            "class_names": list(self.classifier.class_names),
            "image_size": list(self.classifier.image_size),
            "levels": [level.name for level in self._levels],
            "confidences": [one.wanted for one in calibration.thresholds if one.least] if calibration else [],
            "crops": self.classifier.input_crop.crops,
            "vehicles": self._crop is not False,
            "platform": "onnxruntime_onnx" if bundle else f"keras_{file.suffix[1:]}",
            "hardware": self.classifier.hardware,
            "licence": bundle.licence if bundle else "",
            "created": bundle.created if bundle else "",
            "card": bundle.card if bundle else "",
            "page": bundle.page if bundle else "",
        }

    def rows(self, jobs: Sequence[Job]) -> list[Row]:
        """Return one row per job, in order: an answer, or one per vehicle, or `problem` with a sentence."""
        opened = [self._opened(job) for job in jobs]
        scored = iter(self.classifier.scored_here([one for rows in opened for one in rows]))
        return [
            self._row(job, [(one, next(scored)) for _, one in rows]) for job, rows in zip(jobs, opened, strict=True)
        ]

    def _opened(self, job: Job) -> list[OpenedRow]:
        # Pixels at the size of the network have been cropped already.
        return self.classifier.opened(self._given(job), job.vehicles, whole=not isinstance(job.content, bytes))

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
                if image.header.animated:  # read after the pixels, since it seeks to further frames
                    raise image_error(job.name, "it has several frames or pages; send one still image")

        return Given(job.name, opened)

    def _row(self, job: Job, pairs: Sequence[tuple[Opened | Skipped, Scored | Skipped]]) -> Row:
        _, first = pairs[0]
        if isinstance(first, NoVehicle):
            return {"name": job.name, "problem": None, "vehicles": [], "outcome": first.reason}
        if isinstance(first, Skipped):
            return {"name": job.name, "problem": first.reason}
        seen = [(one, item) for one, item in pairs if isinstance(one, Opened) and isinstance(item, Scored)]
        if not isinstance(job.content, bytes):
            return {"name": job.name, "probabilities": seen[0][1].probabilities.tolist(), "problem": None}
        try:
            answered = self._answering(job.confidence)
            answers = [self._answer(*answered(item), job.top, one if job.explain else None) for one, item in seen]
        except (CheckpointError, ConfigError) as error:
            return {"name": job.name, "problem": _without_name(error, self.classifier.name)}
        return {"name": job.name, "problem": None} | (answers[0] if job.vehicles is None else {"vehicles": answers})

    def _answer(self, scored: Scored, answer: Answer | None, top: int, explained: Opened | None) -> Row:
        best = best_of(scored, self.classifier.class_names, top)
        pairs = zip(best.classes, best.probabilities, strict=True)
        return {
            "answer": answer and {"level": answer.level, "name": answer.name, "probability": answer.probability},
            "classes": [{"name": name, "probability": probability} for name, probability in pairs],
            "levels": self._best_of_levels(scored),
            "crop": _crop(scored.crop),
            "explanation": explained and self._explanation(explained),
        }

    def _explanation(self, opened: Opened) -> Row:
        with self._loading:
            if self._explainer is None:
                if self._is_bundle and not self._is_unchanged():  # the explainer reads its network from the file
                    raise ConfigError(
                        "the model's file is gone or was replaced since it was loaded; reload it (SIGHUP)"
                    )
                self._explainer = self.classifier.explainer()
        explanation, names = self._explainer.explain(opened.image), self.classifier.class_names
        return {
            "predicted": names[explanation.answer],
            "rival": names[explanation.rival],
            "box": _box(opened.box),
            "for_answer": explanation.for_answer.astype(float).round(_DIGITS).tolist(),
            "against_rival": explanation.against_rival.astype(float).round(_DIGITS).tolist(),
        }

    def _is_unchanged(self) -> bool:
        try:
            return sha256(self.classifier.checkpoint) == self.sha256
        except OSError:
            return False

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
    return {
        "outcome": crop.outcome,
        "box": _box(crop.box),
        "vehicle": crop.label or None,
        "score": crop.score,
        "candidates": crop.candidates,
        "number": crop.number,
    }


def _box(box: Box | None) -> Row | None:
    return None if box is None else {"left": box.left, "top": box.top, "right": box.right, "bottom": box.bottom}


def _without_name(error: WhichcarError, model: str) -> str:
    """Return an error's text without the path or name of the model that it may begin with."""
    return str(error).removeprefix(f"{model}: ")
