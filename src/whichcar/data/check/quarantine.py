"""Move images into quarantine, without deleting any, and move them back.

All moves are first recorded in DIR/quarantine.csv, so a run that is killed between two moves can be undone like any
other.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from whichcar import files
from whichcar.errors import DataError
from whichcar.progress import track
from whichcar.records import Finding
from whichcar.text import shell_command

FILE = "quarantine.csv"
# Findings about rows and classes, which do not name an existing image.
OF_NO_IMAGE = frozenset({"row_without_file", "bad_row", "missing_class", "class_name", "imbalance"})
COLUMNS = ("path", "from", "issue", "detail")


def check_place(root: Path, into: Path) -> None:
    """Raise DataError unless `into` lies outside `root` and is new, empty, or a quarantine of `root`.

    Raises:
        OSError: no file can be written to `into`.
    """
    if into.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{into}: lies in {root}, where its images would be found again; give a folder outside")
    if into.is_dir() and any(into.iterdir()):
        if not (into / FILE).is_file():
            raise DataError(f"{into}: holds files that `whichcar check` did not write; give an empty folder")
        for path, home, *_ in _read(into):
            if Path(home) != root.absolute() / path:
                raise DataError(f"{into}: holds images of another folder ({home}); give a folder of its own")
    files.check_writable(into / FILE)


def quarantine(root: Path, findings: Iterable[Finding], into: Path) -> int:
    """Move the images of these findings from `root` to the same relative paths in `into`; return how many were moved.

    Findings without an image in `root` are skipped: a row of a label file, a class, or a path that leads out of `root`.

    Raises:
        DataError: `into` lies in `root` or contains other files, or an image cannot be moved.
    """
    check_place(root, into)
    chosen: dict[str, Finding] = {}
    for one in findings:
        inside = PurePosixPath(one.path)
        if one.path in chosen or one.issue in OF_NO_IMAGE or inside.is_absolute() or ".." in inside.parts:
            continue
        if (root / inside).is_file():
            chosen[one.path] = one
    if not chosen:
        return 0
    if taken := next((into / path for path in sorted(chosen) if os.path.lexists(into / path)), None):
        raise DataError(f"{taken}: is there already; give another folder, or put back what it holds")
    try:
        _record([[path, str((root / path).absolute()), one.issue, one.detail] for path, one in chosen.items()], into)
        for path in track(sorted(chosen), "moving"):
            _move(root / path, into / path)
    except OSError as error:
        back = shell_command(["whichcar", "check", "--undo", into])
        raise DataError(f"{error.filename or into}: {error.strerror}; put back with: {back}") from error
    return len(chosen)


def put_back(quarantined: Path) -> int:
    """Move all images that `quarantine` put into a folder back to where they were; return how many were moved.

    The folder is removed if it contains nothing else.

    Raises:
        DataError: the folder is not a quarantine, or another file lies in an image's place; those before it are back.
    """
    moved = 0
    for path, original, *_ in track(_read(quarantined), "putting back"):
        home = Path(original)
        if os.path.lexists(quarantined / path):  # otherwise it was never moved, or is already back
            if os.path.lexists(home):
                raise DataError(f"{home}: another file lies in its place; move that away and run it again")
            try:
                _move(quarantined / path, home)
            except OSError as error:
                raise DataError(f"{home}: {error.strerror}; fix that and run it again") from error
            moved += 1
    (quarantined / FILE).unlink()
    for folder, _, _ in os.walk(quarantined, topdown=False):
        with contextlib.suppress(OSError):  # it holds something else
            Path(folder).rmdir()
    return moved


def _read(quarantined: Path) -> list[list[str]]:
    """Return the table's rows, with the cells of `COLUMNS`."""
    table = quarantined / FILE
    try:
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [[row[name] for name in COLUMNS] for row in csv.DictReader(file, restval="")]
    except (OSError, KeyError) as error:
        raise DataError(f"{table}: is not there, or not as `whichcar check --quarantine` writes it") from error


def _record(rows: Iterable[list[str]], quarantined: Path) -> None:
    """Add rows to the table, in place of those of the same images."""
    table = quarantined / FILE
    by_path = {row[0]: row for row in [*(_read(quarantined) if table.exists() else []), *rows]}
    with (
        files.atomic_write(table) as tmp,
        tmp.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a name may contain any line break
        writer.writerows([COLUMNS, *by_path.values()])


def _move(source: Path, target: Path) -> None:
    """Move a file, even to another disk; at any moment, it is complete in one of the two places."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if not files.is_other_disk(error):
            raise
        with files.atomic_write(target) as tmp:
            shutil.copy2(source, tmp)
        source.unlink()
