"""result.json and predictions.csv of earlier versions, read with today's names of fields and columns."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_RENAMED = {
    "part": "split",
    "pictures": "images",
    "pictures_per_second": "images_per_second",
    "truth": "label",
    "truth_probability": "label_probability",
    "prediction": "predicted",
    "said": "predicted",
    "right": "correct",
    "of": "total",
    "problem": "error",
    "reason": "error",
}


def upgrade_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a result.json; what a damaged file holds stays as it is."""
    upgraded = {}
    for name, value in _renamed(result).items():
        upgraded[name] = [_renamed(row) for row in value] if isinstance(value, list) else _renamed(value)
    data = upgraded.get("data")
    if isinstance(data, dict) and data.get("split") == "pictures":
        data["split"] = "images"
    return upgraded


def _renamed(fields: Any) -> Any:  # noqa: ANN401  (whatever JSON can hold)
    return (
        {_RENAMED.get(name, name): value for name, value in fields.items()} if isinstance(fields, Mapping) else fields
    )


def read_predictions(table: Path) -> list[dict[str, str]]:
    """Return the rows of a predictions.csv.

    Raises:
        OSError, UnicodeDecodeError, csv.Error: it cannot be read.
    """
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        columns = _columns(next(rows, []))
        return [dict(zip(columns, row, strict=False)) for row in rows]


def _columns(names: Sequence[str]) -> list[str]:
    if "truth" not in names:
        return list(names)
    # With --crop there were two columns `right`: the first is now `correct`, the second is a side of the box.
    return [_RENAMED.get(name, name) if names.index(name) == number else name for number, name in enumerate(names)]
