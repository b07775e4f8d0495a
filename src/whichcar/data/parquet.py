"""Parquet tables with pictures in them, as data sets on the Hugging Face hub are kept, to pictures and a label file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from whichcar.data.labels import draw_share, write_labels
from whichcar.errors import DataError, MissingExtraError
from whichcar.progress import Bar
from whichcar.records import Label

SUFFIX = ".parquet"
_LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "class_name", "category")
_HALF = re.compile(r"(?:^|[^a-z])(train|test|validation|valid|val)(?:[^a-z]|$)")
_BEGINNINGS = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*": ".tif",
}
_ROWS = 64  # read at once


def unpack_parquet(
    tables: Sequence[Path], target: Path, pictures: str, labels: str, test_share: float, seed: int
) -> int:
    """Write the pictures of these tables and a label file; return how many pictures that were.

    A table's name says whether it is of the training or the test half; a validation half counts as test where there is
    no other, else as train. Where no name says anything, `test_share` of every class goes to test.

    Args:
        tables: their rows hold a picture (bytes, or a struct with `bytes`) and a label (a number with names in the
            table's metadata, or text).
        target: folder to write to.
        pictures: name of the folder for pictures inside it.
        labels: name of the label file inside it.
        test_share: of each class.
        seed: of what is drawn.

    Raises:
        DataError: a table cannot be read, or has no picture or label column.
        MissingExtraError: pyarrow is not installed.
    """
    rows: list[Label] = []
    halves = [_HALF.search(table.name.lower()) for table in tables]
    said = {half[1] for half in halves if half}
    with Bar("unpacking tables", None, "pictures") as bar:
        for table, half in zip(tables, halves, strict=True):
            subset = _subset(half[1] if half else "train", said)
            for content, name in _rows(table):
                img_name = f"{subset}_{len(rows) + 1:06d}{_suffix(content)}"
                path = target / pictures / img_name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                rows.append(Label(img_name, name, subset))
                bar.update()
    if "test" not in {row.subset for row in rows}:
        rows = _divided(rows, test_share, seed)
    write_labels(target / labels, rows)
    return len(rows)


def _divided(rows: Sequence[Label], test_share: float, seed: int) -> list[Label]:
    """Return the rows with some of each class in test."""
    classes: dict[str, list[str]] = {}
    for row in rows:
        classes.setdefault(row.class_name, []).append(row.img_name)
    test = draw_share(classes, test_share, seed)
    return [Label(row.img_name, row.class_name, "test" if row.img_name in test else "train") for row in rows]


def _subset(half: str, said: set[str]) -> str:
    if half in ("train", "test"):
        return half
    return "train" if "test" in said else "test"


def _rows(table: Path) -> Iterator[tuple[bytes, str]]:
    """Yield each row's picture, as the bytes of its file, and class name."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow, which reads .parquet files,", "hf") from error
    try:
        with pyarrow.parquet.ParquetFile(table) as file:
            image, label, names = _columns(table, file.schema_arrow)
            for batch in file.iter_batches(_ROWS, columns=[image, label]):
                for row in batch.to_pylist():
                    content = row[image]["bytes"] if isinstance(row[image], dict) else row[image]
                    if content is None or row[label] is None:
                        raise DataError(f"{table}: a row without picture or label; give a table that holds both")
                    yield content, _name(row[label], names)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{table}: cannot be read as a table ({' '.join(str(error).split())}); fetch it again"
        ) from error


def _columns(table: Path, schema: Any) -> tuple[str, str, list[str]]:  # noqa: ANN401  (pyarrow has no types)
    """Return the columns of picture and label, and the names of the classes where the labels are numbers."""
    kinds = {entry.name: str(entry.type) for entry in schema}
    image = next((name for name, kind in kinds.items() if "binary" in kind), None)
    label = next((name for name in _LABEL_COLUMNS if name in kinds), None)
    if image is None or label is None:
        lacking = "pictures" if image is None else f"labels ({', '.join(_LABEL_COLUMNS)})"
        raise DataError(f"{table}: no column of {lacking}; it has {', '.join(kinds)}")
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return image, label, list(features.get(label, {}).get("names", []))
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{table}: the names of its classes cannot be read ({error}); download it again") from error


def _name(label: int | str, names: list[str]) -> str:
    if isinstance(label, str):
        return label
    return names[label] if 0 <= label < len(names) else f"class {label}"


def _suffix(content: bytes) -> str:
    return next((suffix for start, suffix in _BEGINNINGS.items() if content.startswith(start)), ".jpg")
