"""The records that travel between stages. Conventions are written here, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whichcar.errors import ImageError
from whichcar.text import as_text


@dataclass(frozen=True, slots=True)
class Label:
    """One row of the label file: an image's name, its true class name, its subset and its group.

    The subset is `train`, `validation` or `test`, or "" where that is still to be drawn. Images of one group, such as
    those of one car, belong on one side of a split; "" stands for an image that is in no group.
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
        """There is none: raise ImageError, with the reason."""
        raise ImageError(f"{as_text(self.path)}: {self.reason}", self.reason)

    @property
    def answer(self) -> Answer | None:
        """There is none: raise ImageError, with the reason."""
        raise ImageError(f"{as_text(self.path)}: {self.reason}", self.reason)

    def as_row(self) -> dict[str, object]:
        """Return flat cells, as `Prediction.as_row` does."""
        return {"path": as_text(self.path), "problem": self.reason}


@dataclass(frozen=True, slots=True)
class NoVehicle(Skipped):
    """An image in which each vehicle was to be classified, and none was found, or only vehicles that are too small."""

    def as_row(self) -> dict[str, object]:
        """Return flat cells, as `Prediction.as_row` does."""
        return {"path": as_text(self.path), "candidates": 0, "outcome": self.reason, "problem": None}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image file says of itself: Pillow's names of format (`JPEG`) and mode (`CMYK`), and the upright size.

    `orientation` is EXIF's, 1 (upright) to 8.
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

    `path` is the image, relative to the data folder with `/`, or a row's img_name, or a class's name; `issue` is a name
    of `data.check.issues.ISSUES`; `other` is the image it was compared with, if any; findings that can be ranked
    have a `rank`, 1 for the most confident.
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


@dataclass(frozen=True, slots=True)
class Detection:
    """One object a detector saw: its COCO class name, how sure that is (0..1), and where in the upright image."""

    label: str
    score: float
    box: Box


@dataclass(frozen=True, slots=True)
class Crop:
    """What became of one image in the crop stage: a row of boxes.csv.

    `path` is relative to the input folder, with `/`, and is the same in the output folder. `box`, `label` and `score`
    are the chosen vehicle's; where none was found `box` is the whole image and the others are empty. `candidates`
    counts the vehicles to choose from. `outcome` is `cropped`, `whole: …` or `skipped: …`; a skipped image has no box
    and no output. `box` is the detector's: a margin is added when the image is cut.
    Where each vehicle of an image is classified, `number` says which of the candidates this is, from 1, the largest.
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
        """Return the cells that a prediction's row has for this crop, named as in `CROP_COLUMNS`."""
        box = self.box
        sides = (None, None, None, None) if box is None else (box.left, box.top, box.right, box.bottom)
        cells = (self.label or None, self.score, self.candidates, *sides, self.outcome)
        return dict(zip(CROP_COLUMNS, cells, strict=True))


CROP_COLUMNS = ("vehicle", "vehicle_score", "candidates", "left", "top", "right", "bottom", "outcome")


@dataclass(frozen=True, slots=True)
class Answer:
    """What can be said of an image with the accuracy wanted: `name`, a group of the level `level`, and its probability.

    `level` is `class`, `model` or `make`. Where no level is certain enough it is "", `name` is `unknown`, and the
    probability is that of the best group of the last level.
    """

    level: str
    name: str
    probability: float

    def as_row(self) -> dict[str, object]:
        """Return flat cells, those of `ANSWER_COLUMNS`."""
        return dict(zip(ANSWER_COLUMNS, (self.name, self.level, round(self.probability, 6)), strict=True))


ANSWER_COLUMNS = ("answer", "answer_level", "answer_probability")


@dataclass(frozen=True, slots=True)
class ExplanationMap:
    """Where a network sees its answer: what each place of what it saw adds to a logit, in rows from the top.

    `for_answer` compares the predicted class with the mean of all, `against_rival` with `rival`, the second most
    probable class. `box` is what of the image the network saw; None: all.
    """

    rival: str
    box: Box | None
    for_answer: tuple[tuple[float, ...], ...]
    against_rival: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The k best classes of one image, best first; probabilities are 0..1 and belong to `classes` by place.

    `path` is the file's; for other images the address, or `image 3` for the third one that was given. `crop` is what
    the image was cropped to first; None where it was not to be cropped. `answer` is given where an accuracy is wanted,
    `explanation` where a server was asked for it.
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
        """Return flat cells with a name each: what JSON and CSV hold, and a row of a `pandas.DataFrame`.

        `path`, `vehicle_number` where each vehicle is a row, those of the answer (`ANSWER_COLUMNS`) where there is one,
        `prediction` and `probability`, `class_2` and `probability_2` and so on, those of the crop (`CROP_COLUMNS`)
        where there is one, and `problem`, which is None.
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
    """Return the names of the cells for the class at this place, 1 is best, and for its probability."""
    return ("prediction", "probability") if place == 1 else (f"class_{place}", f"probability_{place}")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata of a trained network, stored in its checkpoint or bundle.

    `image_size` is (height, width); class i of the output is `class_names[i]`.
    `crop` tells how the images it was trained on were cropped (`detection.crop.read_record`); None: not by whichcar.
    `validation` names the images that were drawn for validation (`data.split.tree.Tree.drawn`); None: the data say it.
    `fingerprints` (`data.split.tree.Tree.fingerprints`) identify its data where they are moved; empty in earlier
    versions. `data_root` is where they were, an absolute path; empty in a bundle.
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
