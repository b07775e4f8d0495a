"""Read the annotations of Stanford Cars (Krause et al. 2013), which are MATLAB tables, as labels.

`cars_annos.mat` lists all images, as paths `car_ims/NNNNNN.jpg`, with a flag for the test split. `cars_train_annos.mat`
and `cars_test_annos_withlabels.mat` list `NNNNN.jpg` in `cars_train/` and `cars_test/`; their class names are in
`cars_meta.mat`. Some copies of the devkit call the labelled test table `cars_test_annos.mat`, or count classes from 0.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whichcar import files
from whichcar.data.split_names import TEST, TRAIN
from whichcar.errors import DataError, extra
from whichcar.records import Label
from whichcar.text import nfc, reason_of

log = logging.getLogger(__name__)

WHOLE, META = "cars_annos.mat", "cars_meta.mat"
SPLIT_TABLES = (
    (TRAIN, "cars_train_annos.mat"),
    (TEST, "cars_test_annos_withlabels.mat"),
    (TEST, "cars_test_annos.mat"),  # in the devkit itself it has no classes
)


@dataclass(frozen=True, slots=True)
class _Row:
    table: Path
    name: str
    number: int
    split: str


def read(root: Path, tables: Mapping[str, Path], called: str) -> tuple[Path, list[Label]] | None:
    """Return the folder of the images, and labels with names relative to it, or None if there is no devkit.

    Args:
        root: the folder that contains everything.
        tables: the `.mat` files by name.
        called: what messages call `root`.

    Raises:
        DataError: a table is damaged, lacks a column or the class names, or has a class without a name.
        MissingExtraError: SciPy is not installed.
    """
    if whole := tables.get(WHOLE):
        content = _read_mat(whole)
        annotations = _annotations(whole, content, ("relative_im_path", "test", "class"))
        rows = [
            _row(whole, row, Path(str(row["relative_im_path"])).name, TEST if row["test"] else TRAIN)
            for row in annotations
        ]
        folder = folder_called(root, "car_ims")
        return root if folder is None else root / folder, _labelled(rows, _class_names(whole, content))
    split_tables = _split_tables(tables)
    if not split_tables:
        return None
    if META not in tables:
        table = next(iter(split_tables.values()))
        raise DataError(f"{called}: {table.name} without {META}, which names the classes; add it")
    names = _class_names(tables[META], _read_mat(tables[META]))
    rows = []
    for split, table in split_tables.items():
        folder = folder_called(root, f"cars_{split}") or f"cars_{split}"
        annotations = _annotations(table, _read_mat(table), ("fname", "class"))
        rows += [_row(table, row, f"{folder}/{row['fname']}", split) for row in annotations]
    return root, _labelled(rows, names)


def folder_called(root: Path, name: str) -> str | None:
    """Return the innermost folder with this name and images, relative to `root`: some copies nest it in another one."""
    for inside in files.walk_images(root):
        folders = inside.split("/")[:-1]
        if name in folders:
            return "/".join(folders[: len(folders) - folders[::-1].index(name)])
    return None


def _split_tables(tables: Mapping[str, Path]) -> dict[str, Path]:
    """Return the tables of the training and the test split that have classes."""
    found: dict[str, Path] = {}
    for split, name in SPLIT_TABLES:
        if name not in tables or split in found:
            continue
        table, may_lack_classes = tables[name], name == SPLIT_TABLES[-1][1]
        if may_lack_classes and "class" not in _annotations(table, _read_mat(table), ("fname",)).dtype.names:
            log.warning("%s has no classes, so test images get no labels; add %s", name, SPLIT_TABLES[1][1])
            continue
        found[split] = table
    return found


def _read_mat(path: Path) -> dict[str, Any]:
    with extra("SciPy, which reads .mat files,", "fetch"):
        from scipy.io import loadmat
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise DataError(f"{path}: a web page, not MATLAB's .mat; the address it came from no longer has the file")
        content: dict[str, Any] = loadmat(path, squeeze_me=True)
        return content
    except DataError:
        raise
    except Exception as error:  # SciPy raises nearly anything on damaged files
        raise DataError(f"{path}: cannot be read as MATLAB's .mat ({reason_of(error)}); fetch it again") from error


def _annotations(path: Path, content: Mapping[str, Any], columns: Iterable[str]) -> Any:  # noqa: ANN401  (rows of SciPy)
    rows = np.atleast_1d(content.get("annotations", ())).reshape(-1)
    present = rows.dtype.names or ()
    if lacking := [name for name in columns if name not in present]:
        found = f"; it has {', '.join(present)}" if present else ""
        raise DataError(f"{path}: no `annotations` with {', '.join(lacking)}{found}; fetch it again")
    return rows


def _class_names(path: Path, content: Mapping[str, Any]) -> list[str]:
    names = [nfc(str(name)) for name in np.atleast_1d(content.get("class_names", ())).reshape(-1)]
    if not names:
        raise DataError(f"{path}: no `class_names` in it, so its classes have no names; fetch it again")
    return names


def _row(table: Path, row: Any, name: str, split: str) -> _Row:  # noqa: ANN401
    try:
        return _Row(table, name, int(row["class"]), split)
    except (TypeError, ValueError) as error:
        raise DataError(f"{table}: class of {name} is not a number ({reason_of(error)}); fetch it again") from error


def _labelled(rows: Sequence[_Row], names: Sequence[str]) -> list[Label]:
    """Return labels with class names. MATLAB counts classes from 1; a table with a class 0 counts from 0."""
    zero = next((row for row in rows if row.number == 0), None)
    first, counted = (1, "counted from 1") if zero is None else (0, f"counted from 0 as {zero.name} has class 0")
    for row in rows:
        if not 0 <= row.number - first < len(names):
            raise DataError(
                f"{row.table}: class {row.number} of {row.name}, but only {len(names)} classes have names, {counted}; "
                "tables and names are not of one set"
            )
    return [Label(row.name, names[row.number - first], row.split) for row in rows]
