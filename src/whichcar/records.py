"""The records that are passed between stages. Conventions are documented here, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whichcar.errors import ImageError
from whichcar.text import as_text

TINY = 64  # pixels; an image with a shorter side below this is tiny


@dataclass(frozen=True, slots=True)
class Label:
    """One row of the label file: an image's name, its true class name, its subset and its group.

    The subset is `train`, `validation` or `test`, or "" if it is still to be drawn. Images of one group, such as the
    images of one car, belong on one side of a split; "" means that the image is in no group.
    """

    img_name: str
    class_name: str
    subset: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image on disk and the number of its class in the sorted list of class folders."""

    path: Path
    class_index: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image (or a folder of them) that could not be used, and why, in a few words."""

    path: Path | str
    reason: str

    @property
    def best(self) -> str:
        """Not available: raise ImageError with the reason."""
        raise ImageError(f"{as_text(self.path)}: {self.reason}", self.reason)

    @property
    def answer(self) -> Answer | None:
        """Not available: raise ImageError with the reason."""
        raise ImageError(f"{as_text(self.path)}: {self.reason}", self.reason)

    def as_row(self) -> dict[str, object]:
        """Return flat cells, as `Prediction.as_row` does."""
        return {"path": as_text(self.path), "problem": self.reason}


@dataclass(frozen=True, slots=True)
class NoVehicle(Skipped):
    """An image in which each vehicle was to be classified, but none was found or all are too small."""

    def as_row(self) -> dict[str, object]:
        """Return flat cells, as `Prediction.as_row` does."""
        return {"path": as_text(self.path), "candidates": 0, "outcome": self.reason, "problem": None}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Metadata of an image file: Pillow's names of its format (`JPEG`) and mode (`CMYK`), and its upright size.

    `orientation` is the EXIF orientation, 1 (upright) to 8.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    animated: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `check` found: a row of issues.csv.

    `path` is the image, relative to the data folder with `/`, or the img_name of a row, or the name of a class. `issue`
    is a name from `data.check.issues.ISSUES`. `other` is the image that it was compared with, if any. Findings that can
    be ranked have a `rank`, 1 for the most confident.
    """

    path: str
    issue: str
    severity: str
    detail: str
    other: str = ""
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels; right and bottom are exclusive, as in `array[top:bottom, left:right]`."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    @property
    def area(self) -> int:
        """Pixels inside."""
        return self.width * self.height

    @property
    def is_tiny(self) -> bool:
        """Whether an image of this size is tiny."""
        return min(self.width, self.height) < TINY


@dataclass(frozen=True, slots=True)
class Detection:
    """One detected object: its COCO class name, its confidence (0..1), and its box in the upright image."""

    label: str
    score: float
    box: Box


@dataclass(frozen=True, slots=True)
class Crop:
    """The result of the crop stage for one image: a row of boxes.csv.

    `path` is relative to the input folder, with `/`, and is the same in the output folder. `box`, `label` and `score`
    belong to the chosen vehicle; if none was found, `box` is the whole image and the others are empty. `candidates`
    counts the vehicles to choose from. `outcome` is `cropped`, `whole: …` or `skipped: …`; a skipped image has no box
    and no output. `box` is the detector's box: a margin is added when the image is cropped.
    If each vehicle of an image is classified, `number` is the place of this one among the candidates, from 1, the
    largest.
    """

    path: str
    box: Box | None
    label: str
    score: float | None
    candidates: int
    outcome: str
    number: int | None = None

    @property
    def kind(self) -> str:
        """`cropped`, `whole` or `skipped`."""
        return self.outcome.partition(":")[0]

    def as_row(self) -> dict[str, object]:
        """Return the cells for this crop in a prediction's row, named as in `CROP_COLUMNS`."""
        box = self.box
        sides = (None, None, None, None) if box is None else (box.left, box.top, box.right, box.bottom)
        cells = (self.label or None, self.score, self.candidates, *sides, self.outcome)
        return dict(zip(CROP_COLUMNS, cells, strict=True))


CROP_COLUMNS = ("vehicle", "vehicle_score", "candidates", "left", "top", "right", "bottom", "outcome")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for an image at the required accuracy: `name`, a group of level `level`, and its probability.

    `level` is `class`, `model` or `make`. If no level is certain enough, it is "", `name` is `unknown`, and the
    probability is that of the best group of the last level.
    """

    level: str
    name: str
    probability: float

    def as_row(self) -> dict[str, object]:
        """Return flat cells, named as in `ANSWER_COLUMNS`."""
        return dict(zip(ANSWER_COLUMNS, (self.name, self.level, round(self.probability, 6)), strict=True))


ANSWER_COLUMNS = ("answer", "answer_level", "answer_probability")


@dataclass(frozen=True, slots=True)
class ExplanationMap:
    """Where a network sees its answer: what each place in its input adds to a logit, in rows from the top.

    `for_answer` compares the predicted class with the mean of all classes, `against_rival` with `rival`, the second
    most probable class. `box` is the part of the image that the network saw; None means all of it.
    """

    rival: str
    box: Box | None
    for_answer: tuple[tuple[float, ...], ...]
    against_rival: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The k best classes of one image, best first; probabilities are 0..1, in the order of `classes`.

    `path` is the path of a file; for other images it is the address, or `image 3` for the third image given. `crop`
    describes how the image was cropped first; None if it was not to be cropped. `answer` is set if an accuracy was
    requested, `explanation` if a server was asked for one.
    """

    path: Path | str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    crop: Crop | None = None
    answer: Answer | None = None
    explanation: ExplanationMap | None = None

    @property
    def best(self) -> str:
        """The most probable class."""
        return self.classes[0]

    def as_row(self) -> dict[str, object]:
        """Return flat, named cells: an entry in JSON, or a row of a CSV file or a `pandas.DataFrame`.

        They are `path`, `vehicle_number` if each vehicle has a row, `ANSWER_COLUMNS` if there is an answer,
        `prediction` and `probability`, `class_2` and `probability_2` and so on, `CROP_COLUMNS` if there is a crop, and
        `problem`, which is None.
        """
        row: dict[str, object] = {"path": as_text(self.path)}
        if self.crop is not None and self.crop.number is not None:
            row[NUMBER_COLUMN] = self.crop.number
        row |= {} if self.answer is None else self.answer.as_row()
        for place, (name, probability) in enumerate(zip(self.classes, self.probabilities, strict=True), 1):
            row |= dict(zip(class_columns(place), (name, round(probability, 6)), strict=True))
        return row | ({} if self.crop is None else self.crop.as_row()) | {"problem": None}


NUMBER_COLUMN = "vehicle_number"


def class_columns(place: int) -> tuple[str, str]:
    """Return the names of the cells for the class at this place (1 is best) and for its probability."""
    return ("prediction", "probability") if place == 1 else (f"class_{place}", f"probability_{place}")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata of a trained network, stored in its checkpoint or bundle.

    `image_size` is (height, width); class i of the output is `class_names[i]`.
    `crop` is the record of how the training images were cropped (`detection.crop.read_record`); None: not by whichcar.
    `validation` names the images drawn for validation (`data.split.tree.Tree.drawn`); None: the data define the split.
    `fingerprints` (`data.split.tree.Tree.fingerprints`) identify the data after a move; empty in earlier versions.
    `data_root` is the absolute path of the training data; empty in a bundle.
    """

    class_names: tuple[str, ...]
    class_folders: tuple[str, ...]
    image_size: tuple[int, int]
    created_with: dict[str, str]
    settings: dict[str, Any]
    data_root: str
    crop: dict[str, Any] | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)
    validation: tuple[str, ...] | None = None
