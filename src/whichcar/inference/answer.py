"""Answers as specific as they are certain: the class, else the model, else the make, else unknown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from whichcar.errors import ConfigError, DataError
from whichcar.files import CALIBRATION, checksum, read_json
from whichcar.inference.bundle import PLAIN_SUFFIX, SUFFIX, read_bundle
from whichcar.records import Answer, Crop, Metadata
from whichcar.text import shell_command

if TYPE_CHECKING:
    from whichcar.taxonomy import Level

Probabilities = npt.NDArray[np.floating]
UNKNOWN = "unknown"
_SMALLEST = 1e-30


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The minimum probability of an answer at each level, so that answers reach the accuracy `wanted`.

    A level that is not in `least` is never answered. `images_needed` is the minimum number of validation images for any
    level to get a threshold, 0 if there were enough. An image whose probabilities have an `entropy` above
    `most_entropy` resembles none of the classes and is not answered; None: no such limit.
    """

    wanted: float
    least: Mapping[str, float]
    images_needed: int = 0
    most_entropy: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How probabilities compare with accuracy on validation images, and the thresholds that follow.

    `temperature` divides the logits (`tempered`); thresholds apply to the resulting probabilities. `errors` is the
    expected calibration error before and after, at each level and facet. `checkpoint` is the BLAKE2b of the calibrated
    checkpoint, `images` the number of validation images used.
    """

    temperature: float
    images: int
    checkpoint: str
    log_loss: tuple[float, float]
    errors: Mapping[str, tuple[float, float]]
    thresholds: tuple[Thresholds, ...]

    def __post_init__(self) -> None:
        """Raise ValueError if the temperature is not positive and finite, or images or thresholds are missing."""
        if not (0 < self.temperature < math.inf and self.images > 0 and self.thresholds):
            raise ValueError("a temperature above 0, images and thresholds are needed")

    def thresholds_for(self, wanted: float) -> Thresholds:
        """Return the thresholds for an accuracy, or for the next higher one that has thresholds.

        Raises:
            ConfigError: the accuracy is above all of these.
        """
        enough = [thresholds for thresholds in self.thresholds if thresholds.wanted >= wanted]
        if not enough:
            known = ", ".join(f"{thresholds.wanted:g}" for thresholds in self.thresholds)
            raise ConfigError(f"confidence: thresholds are chosen for an accuracy of {known}; got {wanted:g}")
        return min(enough, key=lambda thresholds: thresholds.wanted)


def find_calibration(file: Path, metadata: Metadata) -> Calibration | None:
    """Return the calibration of a checkpoint or bundle; None if it has none.

    A bundle's calibration has the temperature 1, since its network returns calibrated probabilities. A refit has the
    calibration of the checkpoint that was refitted.

    Raises:
        CheckpointError: the bundle is missing or damaged.
        DataError: the calibration is damaged.
    """
    if file.suffix.lower() in (SUFFIX, PLAIN_SUFFIX):
        content = read_bundle(file).thresholds
        try:
            return None if content is None else dataclasses.replace(calibration_from(content), temperature=1.0)
        except ValueError as error:
            raise DataError(f"{file}: the bundle is damaged (thresholds); copy or export it again") from error
    refit_of = metadata.settings.get("refit_of")
    path = (file.absolute().parent.parent if refit_of else file.parent) / CALIBRATION
    if not path.is_file():
        return None
    calibration = read_calibration(path)
    return calibration if calibration.checkpoint == (refit_of or checksum(file)) else None


def read_calibration(path: Path) -> Calibration:
    """Return the content of a calibration.json file.

    Raises:
        DataError: it is missing or damaged.
    """
    fix = f"make it again with: {shell_command(['whichcar', 'evaluate', path.parent])}"
    try:
        return calibration_from(read_json(path, fix=fix))
    except ValueError as error:
        raise DataError(f"{path}: damaged, holds no calibration; {fix}") from error


def calibration_from(content: Mapping[str, Any]) -> Calibration:
    """Return a calibration from its `dataclasses.asdict`, also after a round trip through JSON.

    Raises:
        ValueError: the content is anything else.
    """
    from pydantic import TypeAdapter

    return TypeAdapter(Calibration).validate_python(content)


def tempered(probabilities: Probabilities, temperature: float) -> npt.NDArray[np.float32]:
    """Return the softmax of the logits divided by the temperature, given probabilities (images, classes) without it."""
    scaled = np.exp(logits_of(probabilities) / temperature)
    return np.asarray(scaled / scaled.sum(axis=-1, keepdims=True), np.float32)


def logits_of(probabilities: Probabilities) -> npt.NDArray[np.float64]:
    """Return logits (images, classes) whose softmax is `probabilities`; the largest of each image is 0."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))
    return np.asarray(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))


def entropy(probabilities: Probabilities) -> npt.NDArray[np.float64]:
    """Return the entropy in nats, (images,), of probabilities (images, classes): 0 if one class has all."""
    values = np.asarray(probabilities, np.float64)
    return np.asarray(-(values * np.log(np.maximum(values, _SMALLEST))).sum(axis=-1))


def answers(
    probabilities: Probabilities,
    levels: Sequence[Level],
    thresholds: Thresholds,
    crops: Sequence[Crop | None] | None = None,
) -> list[Answer]:
    """Return each image's best group at the finest level at which its probability reaches the threshold.

    Args:
        probabilities: (images, classes), calibrated, in the order of the classes.
        levels: of `taxonomy_of`, finest first.
        thresholds: of `Calibration.thresholds_for`.
        crops: what each image was cropped to; one left whole because no vehicle was found is `unknown`.
    """
    found = [Answer("", UNKNOWN, 0.0)] * len(probabilities)
    limit = np.inf if thresholds.most_entropy is None else thresholds.most_entropy
    is_like_none = entropy(probabilities) > limit
    if crops is not None:
        is_like_none |= np.array([crop is not None and crop.kind == "whole" for crop in crops], bool)
    for level in reversed(levels):
        groups = probabilities @ level.matrix
        least = thresholds.least.get(level.name, np.inf)
        for image, number in enumerate(groups.argmax(axis=1)):
            probability = float(groups[image, number])
            if probability >= least and not is_like_none[image]:
                found[image] = Answer(level.name, level.groups[number], probability)
            elif level is levels[-1]:
                found[image] = Answer("", UNKNOWN, probability)
    return found
