"""The forms of one network side by side on the same images: do they answer alike, how well, how large, how fast?"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from whichcar import progress
from whichcar.images.pixels import Pixels
from whichcar.inference.runtimes import Probabilities, Runtime
from whichcar.metrics import Proportion, log_loss, ranks
from whichcar.parallel import ordered_map

Batch = tuple[Pixels, npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the network, such as `ONNX int8`, measured.

    `agreeing` counts the images on which it predicts the class that Keras predicts, `difference` is the largest
    between two probabilities of the same class and image. `top_1` and `log_loss` are None without labels.
    """

    name: str
    size: int
    agreeing: Proportion
    difference: float
    top_1: Proportion | None
    log_loss: float | None
    images_per_second: float

    def as_json(self) -> dict[str, Any]:
        """Return the numbers, as a bundle stores them."""
        top_1 = self.top_1
        return {
            "name": self.name,
            "bytes": self.size,
            "agreeing": self.agreeing.correct,
            "images": self.agreeing.total,
            "largest_difference": round(self.difference, 6),
            "top_1": top_1 and {"value": round(top_1.value, 6), "correct": top_1.correct, "total": top_1.total},
            "log_loss": None if self.log_loss is None else round(self.log_loss, 6),
            "images_per_second": round(self.images_per_second, 1),
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """The forms of one network on the same images, Keras' first.

    `split` and `trained_on` are those of `ExportImages`; `calibration` says how int8 was calibrated.
    """

    split: str
    trained_on: bool
    forms: tuple[Form, ...]
    processor: str
    cores: int
    calibration: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the numbers, as a bundle stores them."""
        return {
            "split": self.split,
            "trained_on": self.trained_on,
            "processor": self.processor,
            "cores": self.cores,
            "calibration": self.calibration,
            "forms": [form.as_json() for form in self.forms],
        }


def predicted(runtime: Runtime, images: Pixels) -> Probabilities:
    """Return what a runtime answers for a batch, called by as many threads and for as many images as it takes best."""
    if not runtime.callers:
        return runtime(images)
    parts = [images[start : start + runtime.batch_size] for start in range(0, len(images), runtime.batch_size)]
    return np.concatenate(list(ordered_map(runtime, parts, runtime.callers)))


def measure(networks: Mapping[str, tuple[Runtime, int]], batches: Iterable[Batch], total: int) -> list[Form]:
    """Run every form of a network on every batch and compare each with the first.

    Args:
        networks: the forms by name, each with its size in bytes.
        batches: (images, labels); no labels where they are not known.
        total: how many images there are, for the progress bar.

    The forms take turns at each batch, so that whatever else the machine does slows all of them down alike. Each sees
    the first batch twice and is timed the second time. No batch gives no forms.
    """
    seconds = dict.fromkeys(networks, 0.0)
    probabilities: dict[str, list[Probabilities]] = {name: [] for name in networks}
    labels: list[npt.NDArray[np.int64]] = []
    with progress.Bar("verifying", total) as bar:
        for images, true in batches:
            for name, (runtime, _) in networks.items():
                if not labels:
                    predicted(runtime, images)
                start = time.perf_counter()
                probabilities[name].append(predicted(runtime, images))
                seconds[name] += time.perf_counter() - start
            labels.append(true)
            bar.update(len(images))
    if not labels:
        return []
    scores = {name: np.concatenate(rows) for name, rows in probabilities.items()}
    reference, known = next(iter(scores.values())), np.concatenate(labels)
    return [
        _form(name, networks[name][1], scores[name], reference, known, len(reference) / seconds[name])
        for name in networks
    ]


def _form(
    name: str,
    size: int,
    scores: Probabilities,
    reference: Probabilities,
    labels: npt.NDArray[np.int64],
    rate: float,
) -> Form:
    agreeing = int((scores.argmax(1) == reference.argmax(1)).sum())
    has_labels = len(labels) > 0
    return Form(
        name=name,
        size=size,
        agreeing=Proportion(agreeing, len(scores)),
        difference=float(np.abs(scores - reference).max()),
        top_1=Proportion(int((ranks(scores, labels) == 1).sum()), len(labels)) if has_labels else None,
        log_loss=log_loss(scores[np.arange(len(labels)), labels]) if has_labels else None,
        images_per_second=rate,
    )
