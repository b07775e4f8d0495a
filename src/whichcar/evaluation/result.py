"""The result of an evaluation, as a record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from whichcar.evaluation.levels import Answered, LevelScore
from whichcar.evaluation.mcnemar import Paired
from whichcar.inference.answer import Calibration
from whichcar.metrics import LEVEL, ClassScore, Confusion, Proportion
from whichcar.records import Skipped


@dataclass(frozen=True, slots=True)
class Misclassified:
    """An image whose predicted class is not its label, with the probabilities of both.

    `map` is the image as the network sees it, coloured where it supports the predicted class over the label; None if
    the network cannot be explained.
    """

    path: Path
    label: str
    predicted: str
    probability: float
    label_probability: float
    map: Image.Image | None = None


@dataclass(frozen=True, slots=True)
class ConfusedImages:
    """A misclassified image, and an image of the class it was predicted as.

    `reference` is from `reference_split`, which is `train` if those images are available; None if there is no image.
    """

    pair: Confusion
    image: Path
    reference: Path | None
    reference_split: str


@dataclass(frozen=True, slots=True)
class Slice:
    """Accuracy on images of one kind.

    `p_value` is the probability that as many images taken at random would have so few correct predictions (one-sided
    Fisher's exact test), times the number of slices, to correct for multiple comparisons (Bonferroni); at most 1.
    """

    property_name: str
    kind: str
    accuracy: Proportion
    p_value: float

    @property
    def is_weak(self) -> bool:
        """True if the accuracy is significantly below that of the other images."""
        return self.p_value < LEVEL


@dataclass(frozen=True, slots=True)
class Averaged:
    """Scores of averaged probabilities: with the mirrored image (`flip`), with the networks named, or both.

    `levels` are the scores, as in a `Result` but without calibration; `paired` compares the top-1 accuracy with that of
    the network alone.
    """

    of: tuple[str, ...]
    levels: tuple[LevelScore, ...]
    paired: Paired


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the numbers come from; enough to reproduce them.

    `crop`: the settings with which the evaluation cropped the images; None if it did not crop them.
    `crops`: whether the images were written by `whichcar crop`.
    """

    command: str
    time: str
    versions: dict[str, str]
    hardware: dict[str, str]
    experiment: str
    checkpoint: str
    checkpoint_checksum: str
    image_size: tuple[int, int]
    data_root: str
    split: str
    fingerprint: str
    evaluations: int
    crop: dict[str, Any] | None = None
    crops: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """One evaluation. Unreadable images count neither as correct nor as errors; they are listed in `unreadable`.

    `levels` are the scores for class (the first), model, make, body type and year, as far as class names state them.
    Paths in `unreadable` are relative to the data's root. `misclassified` are the errors, most confident first;
    `examples` are images of the pairs in `confused`. `warnings` say why the accuracy may be too high. `before_refit` is
    the top-1 accuracy on these images of the checkpoint that was refitted, if known. `calibration` is None if there are
    no validation images for it, and `answered` is then empty. `slices` are from `slices_of`.
    """

    origin: Origin
    levels: tuple[LevelScore, ...]
    log_loss: float
    confused: tuple[Confusion, ...]
    misclassified: tuple[Misclassified, ...]
    unreadable: tuple[Skipped, ...]
    seconds: float
    folder: Path
    predictions_checksum: str
    warnings: tuple[str, ...] = ()
    before_refit: Proportion | None = None
    calibration: Calibration | None = None
    answered: tuple[Answered, ...] = ()
    examples: tuple[ConfusedImages, ...] = ()
    slices: tuple[Slice, ...] = ()
    averages: tuple[Averaged, ...] = ()

    @property
    def top_1(self) -> Proportion:
        """Top-1 accuracy at class level."""
        return self.levels[0].top_1

    @property
    def top_5(self) -> Proportion:
        """Share of the images whose class is among the five most probable ones."""
        return self.levels[0].top_5

    @property
    def classes(self) -> tuple[ClassScore, ...]:
        """The score of each class, including classes without images."""
        return self.levels[0].per_group

    @property
    def mean_recall(self) -> float:
        """Mean recall over the classes that have images, so every class counts the same."""
        return self.levels[0].macro.recall.value

    @property
    def weak_slices(self) -> list[Slice]:
        """The slices whose accuracy is significantly below that of the other images, lowest first."""
        return sorted((one for one in self.slices if one.is_weak), key=lambda one: one.accuracy.value)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that have no image here."""
        return tuple(score.name for score in self.classes if not score.total)
