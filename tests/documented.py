"""The fields of written files that the documentation describes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
# Fields whose own keys are names of settings, packages, images, classes, levels or sizes.
OPEN = {"settings", "versions", "classes", "renamed", "groups", "test_sizes", "errors", "least"}


def described() -> dict[str, set[str]]:
    """Return the names in each table with a header such as "| column of `boxes.csv` | meaning |", by file."""
    tables: dict[str, set[str]] = {}
    for page in sorted(DOCS.glob("*.md")):
        for table in re.findall(r"(?:^\|.*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE):
            header, *rows = table.splitlines()
            file = re.match(r"\| (?:field|column) of [^`|]*`([\w.]+)`", header)
            if file:
                names = (name.split(".") for row in rows for name in re.findall(r"`([^`]+)`", row))
                tables.setdefault(file[1], set()).update(part for parts in names for part in parts)
    return tables


def fields(path: Path) -> set[str]:
    """Return the columns of a CSV, or the keys of a JSON file at all depths."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return set(next(csv.reader(file)))
    content = json.loads(path.read_text(encoding="utf-8"))
    return set(_keys(list(content.values()) if path.name == "test_uses.json" else content))


def _keys(content: Any) -> Iterator[str]:  # noqa: ANN401
    if isinstance(content, list):
        for item in content:
            yield from _keys(item)
    elif isinstance(content, dict):
        for key, value in content.items():
            yield key
            if not (key in OPEN and isinstance(value, dict)):
                yield from _keys(value)


def undocumented(folder: Path) -> list[str]:
    """Return each field of each file under `folder` that no table describes."""
    tables = described()
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".csv", ".json") and path.is_file())
    return [
        f"{path.name}: {name}"
        for path in files
        for name in sorted(fields(path) - tables.get(path.name, set()))
        if path.name not in ("car_dataset_labels.csv", "drawn.json")
    ]
