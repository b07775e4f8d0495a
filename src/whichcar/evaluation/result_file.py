"""Content of result.json, and reading it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whichcar.errors import DataError
from whichcar.evaluation.levels import Answered, LevelScore
from whichcar.evaluation.result import Averaged, Result
from whichcar.files import REFIT, RESULT, read_json
from whichcar.metrics import ClassScore, Covered, Proportion
from whichcar.text import as_text, shell_command

# The fields of a result that are read, with their types.
_KEYS = {
    **dict.fromkeys(("command", "time", "checkpoint.file", "data.split", "data.root", "data.fingerprint"), str),
    **dict.fromkeys(("data.images", "data.evaluations", "top_1.correct", "top_1.total"), int),
    **dict.fromkeys(("top_1.value", "top_5.value", "mean_recall", "log_loss"), float),
    **dict.fromkeys(("top_1.interval_95", "top_5.interval_95"), list),
    **dict.fromkeys(("image_size", "classes", "most_confused", "warnings"), list),
    "data.crops": bool,
    "predictions.blake2b": str,
}


def read_result(experiment: Path) -> dict[str, Any]:
    """Return the content of an experiment's own result.json.

    Raises:
        DataError: the file is missing or damaged.
    """
    again = shell_command(["whichcar", "evaluate", experiment])
    if not (experiment / RESULT).is_file():
        if (experiment / REFIT / RESULT).is_file():
            raise DataError(f"{experiment}: was not evaluated before its refit; give {experiment / REFIT}")
        raise DataError(f"{experiment}: has not been evaluated; run: {again}")
    return read_json(experiment / RESULT, _KEYS, f"delete it, or make it again with: {again}")


def as_json(result: Result) -> dict[str, Any]:
    """Return the content of result.json: everything but the images, which are in predictions.csv."""
    origin, calibration = result.origin, result.calibration
    content = {
        "command": origin.command,
        "time": origin.time,
        "warnings": result.warnings,
        "experiment": origin.experiment,
        "checkpoint": {"file": origin.checkpoint, "blake2b": origin.checkpoint_checksum},
        "predictions": {"blake2b": result.predictions_checksum},
        "image_size": origin.image_size,
        "crop": origin.crop,
        "data": {
            "root": origin.data_root,
            "crops": origin.crops,
            "split": origin.split,
            "fingerprint": origin.fingerprint,
            "images": result.top_1.total,
            "unreadable": len(result.unreadable),
            "evaluations": origin.evaluations,
        },
        "top_1": _proportion(result.top_1),
        "top_5": _proportion(result.top_5),
        "before_refit": result.before_refit and _proportion(result.before_refit),
        "averages": [_averaged(row) for row in result.averages],
        "mean_recall": result.mean_recall,
        "log_loss": result.log_loss,
        "levels": [_level(score) for score in result.levels],
        "groups": {score.name: [_class(group) for group in score.per_group] for score in result.levels[1:]},
        "calibration": calibration
        and {"temperature": calibration.temperature, "validation_images": calibration.images},
        "answers": [_answered(row) for row in result.answered],
        "coverage": [_covered(row, result.top_1.total) for row in result.levels[0].most_certain],
        "slices": [
            {"property": one.property_name, "kind": one.kind, **_proportion(one.accuracy), "p_value": one.p_value}
            for one in result.slices
        ],
        "seconds": round(result.seconds, 2),
        "images_per_second": round(result.top_1.total / result.seconds, 2) if result.seconds else None,
        "versions": origin.versions,
        "hardware": origin.hardware,
        "most_confused": [
            {"label": pair.label, "predicted": pair.predicted, "count": pair.count, "total": pair.total}
            for pair in result.confused
        ],
        "classes": [_class(score) for score in result.classes],
        "unreadable": [{"path": as_text(row.path), "error": row.reason} for row in result.unreadable],
    }
    return {name: _rounded(value) for name, value in content.items()}


def _rounded(value: Any) -> Any:  # noqa: ANN401  (whatever JSON can hold)
    """Return a value with tuples as lists and floats rounded to six decimals."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {name: _rounded(inner) for name, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def _proportion(proportion: Proportion) -> dict[str, Any]:
    counts = {"correct": proportion.correct, "total": proportion.total}
    return {"value": proportion.value, **counts, "interval_95": proportion.interval}


def _number(value: float, interval: tuple[float, float]) -> dict[str, Any]:
    return {"value": value, "interval_95": interval}


def _level(score: LevelScore) -> dict[str, Any]:
    means = {"precision": score.macro.precision, "recall": score.macro.recall, "f1": score.macro.f1}
    return {
        "name": score.name,
        "groups": score.groups,
        "top_1": _proportion(score.top_1),
        "top_5": _proportion(score.top_5),
        "macro": {name: _number(mean.value, mean.interval) for name, mean in means.items()},
        "calibration_error": {"before": score.before.error, "after": score.after and score.after.error},
    }


def _covered(row: Covered, total: int) -> dict[str, Any]:
    return {"share": row.accuracy.total / total, "least": row.least, "accuracy": _proportion(row.accuracy)}


def _averaged(row: Averaged) -> dict[str, Any]:
    return {
        "of": row.of,
        "top_1": _proportion(row.levels[0].top_1),
        "top_5": _proportion(row.levels[0].top_5),
        "levels": [_level(score) for score in row.levels],
        "difference": _number(row.paired.difference, row.paired.interval),
        "p_value": row.paired.p_value,
    }


def _answered(row: Answered) -> dict[str, Any]:
    levels = [
        {"name": name, "share": given.total / row.images, **_proportion(given)} for name, given in row.levels.items()
    ]
    return {
        "wanted": row.wanted,
        "share": row.accuracy.total / row.images,
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
        "recall": score.recall if score.total else None,
        "precision": score.precision,
        "f1": score.f1,
    }
