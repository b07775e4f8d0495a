"""Convert Parquet tables with images, as used for datasets on the Hugging Face hub, to images and a label file."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whichcar.data.labels import write_labels
from whichcar.data.split_names import SPLITS, TRAIN, split_in, split_of
from whichcar.errors import DataError, extra
from whichcar.progress import Bar
from whichcar.records import Label
from whichcar.text import nfc, plural, reason_of

log = logging.getLogger(__name__)

SUFFIX = ".parquet"
_LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "class_name", "category")
_SPLIT_COLUMNS = ("split", "subset")
# The types that a column may have, as Arrow writes them.
_IMAGE = re.compile("(dictionary<values=|struct<[^<>]*\\bbytes: )?(large_)?binary")
_TEXT = re.compile("(dictionary<values=)?((large_)?string|null)")
_NUMBER = re.compile("(dictionary<values=)?(u?int|bool|(half)?float|double)")
_CLASS = re.compile(f"{_TEXT.pattern}|{_NUMBER.pattern}")
_BEGINNINGS = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*": ".tif",
}
_ROWS = 64  # read at once


@dataclass(frozen=True)
class _Table:
    """A table: its columns, the names for their numbers, and the split that its path stands for."""

    path: Path
    image: str
    label: str
    names: list[str]
    split_column: str | None
    split_names: list[str]
    split: str | None


def unpack_parquet(tables: Sequence[Path], target: Path, images: str, labels: str) -> int:
    """Write the images of these tables and a label file, and return the number of images.

    A row's split comes from its column `split` or `subset`, as text or as numbers with names, or else from a word in
    the table's path below `target` (`data.split_names`). If some rows have a split, those without one are left out. If
    none has a split, or all are in the training split, the label file names no splits, and they are to be drawn.

    Args:
        tables: Parquet files whose rows contain an image (bytes, or a struct with `bytes`) and a label (text, or a
            number with names in the table's metadata); rows with a number below 0 have no label and are left out.
        target: folder to write to, which contains the tables.
        images: name of the folder for images in `target`.
        labels: name of the label file in `target`.

    Raises:
        DataError: a table cannot be read, or has no image or label column.
        MissingExtraError: pyarrow is not installed.
    """
    described = [_described(table, table.relative_to(target).as_posix()) for table in tables]
    rows: list[Label] = []
    without_class = 0
    with Bar("unpacking tables", None, "images") as bar:
        for table in described:
            for content, name, split in _rows(table):
                if name is None:
                    without_class += 1
                    continue
                img_name = f"{split or 'image'}_{len(rows) + 1:06d}{_suffix(content)}"
                path = target / images / img_name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                rows.append(Label(img_name, name, split or ""))
                bar.update()
    if without_class:
        log.warning("%s without a class left out", plural(without_class, "row"))
    if any(row.subset for row in rows) and (lost := [row for row in rows if not row.subset]):
        log.warning("%s in none of the splits %s left out", plural(len(lost), "row"), ", ".join(SPLITS))
        for row in lost:
            (target / images / row.img_name).unlink()
        rows = [row for row in rows if row.subset]
    if {row.subset for row in rows} <= {TRAIN, ""}:
        rows = [replace(row, subset="") for row in rows]
    write_labels(target / labels, rows)
    return len(rows)


def _rows(table: _Table) -> Iterator[tuple[bytes, str | None, str | None]]:
    """Yield each row's image (the bytes of its file), class and split; class and split are None if there is none."""
    columns = [table.image, table.label, *([table.split_column] if table.split_column else [])]
    with _opened(table.path) as file:
        for batch in file.iter_batches(_ROWS, columns=columns):
            for row in batch.to_pylist():
                content = row[table.image]["bytes"] if isinstance(row[table.image], dict) else row[table.image]
                if content is None or row[table.label] is None:
                    raise DataError(f"{table.path}: a row without image or label; give a table that holds both")
                named = _name(table.path, row[table.split_column], table.split_names) if table.split_column else None
                split = split_of(named or "") or table.split
                yield content, _name(table.path, row[table.label], table.names), split


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a table; errors in reading it while the block runs become a DataError."""
    with extra("pyarrow, which reads .parquet files,", "hf"):
        import pyarrow
        import pyarrow.parquet
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a table ({reason}); fetch it again") from error


def _described(path: Path, inside: str) -> _Table:
    """Find the columns of a table; `inside` is the part of its path that may name a split.

    Of several columns that may contain images, `image` is preferred, then a struct, since no checksum is a struct.
    """
    with _opened(path) as file:
        schema = file.schema_arrow
    kinds = {entry.name: str(entry.type) for entry in schema}
    images = [name for name, kind in kinds.items() if _IMAGE.match(kind)]
    image = min(images, key=lambda name: (name != "image", not kinds[name].startswith("struct")), default=None)
    label = next((name for name in _LABEL_COLUMNS if _CLASS.match(kinds.get(name, ""))), None)
    if image is None or label is None:
        lacking = "images" if image is None else f"labels ({', '.join(_LABEL_COLUMNS)}), a text or whole number each"
        raise DataError(f"{path}: no column of {lacking}; it has {', '.join(kinds)}")
    split, columns = split_in(inside), [name for name in _SPLIT_COLUMNS if name in kinds]
    numbers = [column for column in (label, *columns) if _NUMBER.match(kinds[column])]
    names = {column: _names(path, schema.metadata or {}, column) for column in numbers}
    of_split = next((name for name in columns if _TEXT.match(kinds[name]) or names.get(name)), None)
    if columns and not of_split and not split:
        log.warning("%s: its column %s holds %s, not text; not used", path, columns[0], kinds[columns[0]])
    return _Table(path, image, label, names.get(label, []), of_split, names.get(of_split or "", []), split)


def _names(path: Path, metadata: dict[bytes, bytes], column: str) -> list[str]:
    """Return the names for the numbers of a column, as `datasets` writes them into the metadata."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return list(features.get(column, {}).get("names", []))
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path}: the names of its classes cannot be read ({reason_of(error)}); download it again"
        ) from error


def _name(path: Path, label: float | str | None, names: list[str]) -> str | None:
    if isinstance(label, str):
        return nfc(label.strip()) or None
    if label is None or not label >= 0:  # NaN is not a class either
        return None
    if isinstance(label, float):
        if not label.is_integer():
            raise DataError(f"{path}: a label is {label}, which is no class; give whole numbers or text")
        label = int(label)
    return nfc(names[label]) if label < len(names) else f"class {label}"


def _suffix(content: bytes) -> str:
    return next((suffix for start, suffix in _BEGINNINGS.items() if content.startswith(start)), ".jpg")
