"""The record of a split: `split.json` in its folder, which lists the images in `train/` of the validation split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from whichcar import files
from whichcar.errors import DataError
from whichcar.parallel import ordered_map

RECORD = "split.json"
# The share is null if the label file named the validation images.
_KEYS = {"finished": bool, "validation_share?": float, "classes": dict, "validation": list}
_FIX = "delete it to divide again"
_READERS = 8  # files in a bucket that are requested at a time


def load_record(root: Path) -> dict[str, Any] | None:
    """Return the content of split.json, even of an interrupted split, or None if there is none."""
    path = root / RECORD
    return _checked(files.read_json(path, _KEYS, _FIX), path) if path.exists() else None


def read_record(root: Path) -> dict[str, Any] | None:
    """Return the content of split.json, or None if there is none.

    Raises:
        DataError: the file is damaged, or the split was interrupted.
    """
    record = load_record(root)
    return record and _finished(record, root)


def records_in(root: str | Path, folders: Iterable[str], read: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """Return the content of each split.json in a folder and its subfolders, by path relative to the folder.

    Args:
        root: what messages call the folder, which may be in a bucket.
        folders: the names of its subfolders.
        read: returns the content of a file by its path relative to the folder, or None if there is no such file.

    Raises:
        DataError: as `read_record`.
    """
    names = [RECORD, *(f"{folder}/{RECORD}" for folder in folders)]
    contents = zip(names, ordered_map(read, names, _READERS), strict=True)
    found = {name: content for name, content in contents if content is not None}
    for name, content in found.items():
        path = f"{root}/{name}"
        _finished(_checked(files.parse_json(content, path, _KEYS, _FIX), path), path.removesuffix(f"/{RECORD}"))
    return found


def _checked(record: dict[str, Any], path: str | Path) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in (*record["classes"].values(), *record["validation"])):
        raise DataError(f"{path}: damaged, names of classes or of validation images are not strings; {_FIX}")
    return record


def _finished(record: dict[str, Any], root: str | Path) -> dict[str, Any]:
    if not record["finished"]:
        raise DataError(f"{root}: its split was interrupted; run `whichcar split` again with the same arguments")
    return record
