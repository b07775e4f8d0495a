"""Putting pictures aside, never deleting one, and putting them back.

What is moved is written down first, in DIR/quarantine.csv, a line a picture: a run that is killed between two moves can
be undone like any other.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from whichcar import files
from whichcar.errors import DataError
from whichcar.progress import track
from whichcar.records import Finding

FILE = "quarantine.csv"
COLUMNS = ("path", "from", "issue", "detail")


def quarantine(root: Path, findings: Iterable[Finding], into: Path) -> int:
    """Move the pictures of these findings from `root` to the same place in `into`; return how many were moved.

    Raises:
        DataError: `into` lies in `root`, holds other files, or a picture cannot be moved.
    """
    if into.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{into}: lies in {root}, where its pictures would be found again; give a folder outside")
    if into.is_dir() and any(into.iterdir()) and not (into / FILE).is_file():
        raise DataError(f"{into}: holds files that `whichcar check` did not write; give an empty folder")
    chosen: dict[str, Finding] = {}
    for one in findings:
        if one.path not in chosen and (root / one.path).is_file():
            chosen[one.path] = one
    try:
        for path, one in track(sorted(chosen.items()), "moving"):
            if (into / path).exists():
                raise DataError(f"{into / path}: is there already; give another folder, or put back what it holds")
            _write_down(into / FILE, (path, str((root / path).absolute()), one.issue, one.detail))
            _move(root / path, into / path)
    except OSError as error:
        raise DataError(
            f"{error.filename or into}: {error.strerror}; `whichcar check --undo {into}` puts back"
        ) from error
    return len(chosen)


def put_back(quarantined: Path) -> int:
    """Move everything that `quarantine` put into a folder back to where it was; return how many were moved.

    The folder is removed when nothing else is in it.

    Raises:
        DataError: it is no such folder, or another file lies in a picture's place; what came before it is back.
    """
    table = quarantined / FILE
    try:
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = [(row["path"], Path(row["from"])) for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError) as error:
        raise DataError(f"{quarantined}: no {FILE} as `whichcar check --quarantine` writes it") from error
    moved = 0
    for path, home in track(rows, "putting back"):
        if (quarantined / path).is_file():  # else it was never moved, or is back
            if home.exists():
                raise DataError(f"{home}: another file lies in its place; move that away and run it again")
            try:
                _move(quarantined / path, home)
            except OSError as error:
                raise DataError(f"{home}: {error.strerror}; mend that and run it again") from error
            moved += 1
    table.unlink()
    for folder, _, _ in os.walk(quarantined, topdown=False):
        with contextlib.suppress(OSError):  # it holds something else
            Path(folder).rmdir()
    return moved


def _write_down(table: Path, row: tuple[str, ...]) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    new = not table.exists()
    with table.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def _move(source: Path, target: Path) -> None:
    """Move a file, also to another disk; it is whole in one of the two places at any moment."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if not files.is_other_disk(error):
            raise
        with files.replaced(target) as beside:
            shutil.copy2(source, beside)
        source.unlink()
