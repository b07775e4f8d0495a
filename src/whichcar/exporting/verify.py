"""Compare the forms of one network on the same images: agreement, accuracy, size and speed."""

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

    `agreeing` counts the images with the same predicted class as Keras', `difference` is the largest between two
    probabilities of the same class and image. `top_1` and `log_loss` are None without labels.
    """

    name: str
    size: int
    agreeing: Proportion
    difference: float
    top_1: Proportion | None
    log_loss: float | None
    images_per_second: float

    def as_json(self) -> dict[str, Any]:
        """Return the measurements, as a bundle stores them."""
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
    """The measured forms of one network on the same images, Keras' first.

    `split` and `trained_on` are as in `ExportImages`; `calibration` says how int8 was calibrated.
    """

    split: str
    trained_on: bool
    forms: tuple[Form, ...]
    processor: str
    cores: int
    calibration: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the measurements, as a bundle stores them."""
        return {
            "split": self.split,
            "trained_on": self.trained_on,
            "processor": self.processor,
            "cores": self.cores,
            "calibration": self.calibration,
            "forms": [form.as_json() for form in self.forms],
        }


def predicted(runtime: Runtime, images: Pixels) -> Probabilities:
    """Return a runtime's output for a batch, called with its own batch size and number of threads."""
    if not runtime.callers:
        return runtime(images)
    parts = [images[start : start + runtime.batch_size] for start in range(0, len(images), runtime.batch_size)]
    return np.concatenate(list(ordered_map(runtime, parts, runtime.callers)))


def measure(networks: Mapping[str, tuple[Runtime, int]], batches: Iterable[Batch], total: int) -> list[Form]:
    """Run every form of a network on every batch and compare each with the first.

    Args:
        networks: the forms by name, each with its size in bytes.
        batches: (images, labels); labels are empty if unknown.
        total: number of images, for the progress bar.

    The forms take turns at each batch, so that other load on the machine slows all of them equally. Each sees the first
    batch twice and is timed the second time. Without batches, the list is empty.
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
