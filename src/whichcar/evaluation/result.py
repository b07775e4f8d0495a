"""The result of an evaluation, as a record and as result.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from whichcar.errors import DataError
from whichcar.evaluation.levels import Answered, LevelScore
from whichcar.evaluation.macro import Estimate
from whichcar.evaluation.paired import Paired
from whichcar.evaluation.upgrade import upgrade_result
from whichcar.files import REFIT, RESULT, read_json, write_json
from whichcar.inference.answer import Calibration
from whichcar.metrics import LEVEL, ClassScore, Confusion, Proportion
from whichcar.records import Skipped
from whichcar.text import as_text, shell_command

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)  # of the images, in `coverage`
TOP = 5  # of top-5 accuracy, which says nothing where there are no more classes
# The fields of a result that are read, with their types.
_KEYS = {
    **dict.fromkeys(("command", "time", "checkpoint.file", "data.split", "data.root", "data.fingerprint"), str),
    **dict.fromkeys(("data.images", "data.evaluations", "top_1.correct", "top_1.total"), int),
    **dict.fromkeys(("top_1.value", "top_5.value"), float),
    **dict.fromkeys(("top_1.interval_95", "image_size", "classes?", "warnings?"), list),
    "predictions?": dict,
}


def read_result(experiment: Path) -> dict[str, Any]:
    """Return the content of an experiment's own result.json.

    Raises:
        DataError: there is none, or it is damaged.
    """
    again = shell_command(["whichcar", "evaluate", experiment])
    if not (experiment / RESULT).is_file():
        if (experiment / REFIT / RESULT).is_file():
            raise DataError(f"{experiment}: was not evaluated before its refit; give {experiment / REFIT}")
        raise DataError(f"{experiment}: has not been evaluated; run: {again}")
    return read_json(experiment / RESULT, _KEYS, f"make it again with: {again}", upgrade_result)


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
    """Accuracy of averaged probabilities: of the mirrored image too (`flip`), of networks with these names, or both.

    `paired` compares it with what the network gives alone.
    """

    of: tuple[str, ...]
    top_1: Proportion
    top_5: Proportion
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

    `unreadable` paths are relative to the data's root; `misclassified` are the errors, most confident first;
    `examples` are images of the pairs in `confused`; `warnings` say why the accuracy may be too high;
    `before_refit` is the top-1 accuracy on these images of the checkpoint that was refitted, where it is known;
    `levels` are the scores at class, model, make, body type and year; `calibration` is None where there are no
    validation images for it, and `answered` is then empty. `slices` are those of `slices_of`.
    """

    origin: Origin
    top_1: Proportion
    top_5: Proportion
    log_loss: float
    classes: tuple[ClassScore, ...]
    confused: tuple[Confusion, ...]
    misclassified: tuple[Misclassified, ...]
    unreadable: tuple[Skipped, ...]
    seconds: float
    folder: Path
    predictions_checksum: str
    warnings: tuple[str, ...] = ()
    before_refit: Proportion | None = None
    levels: tuple[LevelScore, ...] = ()
    calibration: Calibration | None = None
    answered: tuple[Answered, ...] = ()
    examples: tuple[ConfusedImages, ...] = ()
    slices: tuple[Slice, ...] = ()
    averages: tuple[Averaged, ...] = ()

    @property
    def weak_slices(self) -> list[Slice]:
        """The slices whose accuracy is significantly below that of the other images, lowest first."""
        return sorted((one for one in self.slices if one.is_weak), key=lambda one: one.accuracy.value)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that have no image here."""
        return tuple(score.name for score in self.classes if not score.total)

    @property
    def mean_recall(self) -> float:
        """Mean over the classes that have images: every class counts the same."""
        present = [score.recall for score in self.classes if score.total]
        return sum(present) / len(present) if present else 0.0

    def write(self) -> Path:
        """Write result.json into the result's folder and return its path."""
        path = self.folder / RESULT
        write_json(path, self.as_json())
        return path

    def as_json(self) -> dict[str, Any]:
        """Return everything but the images, which are in predictions.csv."""
        origin = self.origin
        return {
            "command": origin.command,
            "time": origin.time,
            "warnings": list(self.warnings),
            "experiment": origin.experiment,
            "checkpoint": {"file": origin.checkpoint, "blake2b": origin.checkpoint_checksum},
            "predictions": {"blake2b": self.predictions_checksum},
            "image_size": list(origin.image_size),
            "crop": origin.crop,
            "data": {
                "root": origin.data_root,
                "split": origin.split,
                "fingerprint": origin.fingerprint,
                "images": self.top_1.total,
                "unreadable": len(self.unreadable),
                "evaluations": origin.evaluations,
            },
            "top_1": _proportion(self.top_1),
            "top_5": _proportion(self.top_5),
            "before_refit": None if self.before_refit is None else _proportion(self.before_refit),
            "averages": [_averaged(row) for row in self.averages],
            "mean_recall": round(self.mean_recall, 6),
            "log_loss": round(self.log_loss, 6),
            "levels": [_level(score) for score in self.levels],
            "groups": {score.name: list(map(_class, score.per_group)) for score in self.levels[1:]},
            "calibration": self.calibration
            and {
                "temperature": round(self.calibration.temperature, 4),
                "validation_images": self.calibration.images,
            },
            "answers": [_answered(row) for row in self.answered],
            "coverage": _coverage(self.levels[0]) if self.levels else [],
            "slices": [
                {
                    "property": one.property_name,
                    "kind": one.kind,
                    **_proportion(one.accuracy),
                    "p_value": round(one.p_value, 6),
                }
                for one in self.slices
            ],
            "seconds": round(self.seconds, 2),
            "images_per_second": round(self.top_1.total / self.seconds, 2) if self.seconds else None,
            "versions": origin.versions,
            "hardware": origin.hardware,
            "most_confused": [
                {"label": pair.label, "predicted": pair.predicted, "count": pair.count, "total": pair.total}
                for pair in self.confused
            ],
            "classes": [_class(score) for score in self.classes],
            "unreadable": [{"path": as_text(row.path), "error": row.reason} for row in self.unreadable],
        }


def _proportion(proportion: Proportion) -> dict[str, Any]:
    low, high = proportion.interval
    return {
        "value": round(proportion.value, 6),
        "correct": proportion.correct,
        "total": proportion.total,
        "interval_95": [round(low, 6), round(high, 6)],
    }


def _level(score: LevelScore) -> dict[str, Any]:
    after = None if score.after is None else round(score.after.error, 6)
    return {
        "name": score.name,
        "groups": score.groups,
        "top_1": _proportion(score.top_1),
        "top_5": _proportion(score.top_5),
        "macro": {name: _estimate(getattr(score.macro, name)) for name in ("precision", "recall", "f1")},
        "calibration_error": {"before": round(score.before.error, 6), "after": after},
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": round(estimate.value, 6), "interval_95": [round(bound, 6) for bound in estimate.interval]}


def _coverage(score: LevelScore) -> list[dict[str, Any]]:
    """Return the accuracy of the most certain images, for the shares in `SHARES`."""
    total = score.top_1.total
    rows = [next(row for row in score.coverage if row.accuracy.total >= share * total - 1e-6) for share in SHARES]
    return [
        {
            "share": round(row.accuracy.total / total, 6),
            "least": round(row.least, 6),
            "accuracy": _proportion(row.accuracy),
        }
        for row in dict.fromkeys(rows)
    ]


def _averaged(row: Averaged) -> dict[str, Any]:
    low, high = row.paired.interval
    return {
        "of": list(row.of),
        "top_1": _proportion(row.top_1),
        "top_5": _proportion(row.top_5),
        "difference": {"value": round(row.paired.difference, 6), "interval_95": [round(low, 6), round(high, 6)]},
        "p_value": round(row.paired.p_value, 6),
    }


def _answered(row: Answered) -> dict[str, Any]:
    levels = [
        {"name": name, "share": round(given.total / row.images, 6), **_proportion(given)}
        for name, given in row.levels.items()
    ]
    return {
        "wanted": row.wanted,
        "share": round(row.accuracy.total / row.images, 6),
        "accuracy": _proportion(row.accuracy),
        "levels": levels,
        "validation_images_needed": row.images_needed,
    }


def _class(score: ClassScore) -> dict[str, Any]:
    return {
        "name": score.name,
        "images": score.total,
        "correct": score.correct,
        "predicted": score.predicted,
        "recall": round(score.recall, 6) if score.total else None,
        "precision": round(score.precision, 6),
        "f1": round(score.f1, 6),
    }
