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

    `map` is what the network sees of it, coloured where that speaks for the predicted class and against the label; None
    where the network cannot be explained.
    """

    path: Path
    label: str
    predicted: str
    probability: float
    label_probability: float
    map: Image.Image | None = None


@dataclass(frozen=True, slots=True)
class ConfusedImages:
    """An image that was predicted as another class, and one of that class.

    `reference` is from the images of `reference_split`, `train` where they are there; None where the class has none.
    """

    pair: Confusion
    image: Path
    reference: Path | None
    reference_split: str


@dataclass(frozen=True, slots=True)
class Slice:
    """Images of one kind.

    `p_value` is how often as many images taken at random would have so few correct predictions (Fisher's exact test,
    one-sided), times the number of slices, since the weakest is looked for (Bonferroni); at most 1.
    """

    property_name: str
    kind: str
    accuracy: Proportion
    p_value: float

    @property
    def is_weak(self) -> bool:
        """True where the accuracy is significantly below that of the other images."""
        return self.p_value < LEVEL


@dataclass(frozen=True, slots=True)
class Averaged:
    """Averaged probabilities: of the mirrored image too (`flip`), of networks with these names, or both.

    `levels` are their scores, as those of a `Result` but without calibration; `paired` compares their top-1 accuracy
    with that of the network alone.
    """

    of: tuple[str, ...]
    levels: tuple[LevelScore, ...]
    paired: Paired


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the numbers come from; enough to reproduce them.

    `crop`: the settings with which the evaluation cropped the images; None where it took them as they are.
    `crops`: the images are those that `whichcar crop` wrote.
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
    """One evaluation. Images that could not be read count neither as correct nor as errors; they are listed.

    `levels` are the scores at class, model, make, body type and year, as far as the class names tell them: the class
    is the first. `unreadable` paths are relative to the data's root; `misclassified` are the errors, most confident
    first; `examples` are images of the pairs in `confused`; `warnings` say why the accuracy may be too high;
    `before_refit` is the top-1 accuracy on these images of the checkpoint that was refitted, where it is known;
    `calibration` is None where there are no validation images for it, and `answered` is then empty. `slices` are those
    of `slices_of`.
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
        """Accuracy of the class."""
        return self.levels[0].top_1

    @property
    def top_5(self) -> Proportion:
        """Share of the images whose class is among the five most probable ones."""
        return self.levels[0].top_5

    @property
    def classes(self) -> tuple[ClassScore, ...]:
        """The score of each class, also of those without an image."""
        return self.levels[0].per_group

    @property
    def mean_recall(self) -> float:
        """Mean over the classes that have images: every class counts the same."""
        return self.levels[0].macro.recall.value

    @property
    def weak_slices(self) -> list[Slice]:
        """The slices whose accuracy is significantly below that of the other images, lowest first."""
        return sorted((one for one in self.slices if one.is_weak), key=lambda one: one.accuracy.value)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that have no image here."""
        return tuple(score.name for score in self.classes if not score.total)
