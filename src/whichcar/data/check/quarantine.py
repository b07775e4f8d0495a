"""Move images into quarantine, never deleting one, and move them back.

What is moved is written down first, in DIR/quarantine.csv, a line an image: a run that is killed between two moves can
be undone like any other.
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
# Findings about rows and classes: what they name is no image that was found.
OF_NO_IMAGE = frozenset({"row_without_file", "bad_row", "missing_class", "class_name", "imbalance"})
COLUMNS = ("path", "from", "issue", "detail")
_HEADER = ",".join(f'"{name}"' for name in COLUMNS).encode() + b"\n"


def check_place(root: Path, into: Path) -> None:
    """Raise DataError unless `into` is a folder outside `root` that is new, empty, or such a quarantine of `root`.

    Raises:
        OSError: no file can be written into it.
    """
    if into.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{into}: lies in {root}, where its images would be found again; give a folder outside")
    if into.is_dir() and any(into.iterdir()):
        if not (into / FILE).is_file():
            raise DataError(f"{into}: holds files that `whichcar check` did not write; give an empty folder")
        for path, home in _read(into):
            if home != root.absolute() / path:
                raise DataError(f"{into}: holds images of another folder ({home}); give a folder of its own")
    files.check_writable(into / FILE)


def quarantine(root: Path, findings: Iterable[Finding], into: Path) -> int:
    """Move the images of these findings from `root` to the same place in `into`; return how many were moved.

    What is no image in `root` is passed over: a row of a label file, a class, a path that leads out of it.

    Raises:
        DataError: `into` lies in `root`, holds other files, or an image cannot be moved.
    """
    check_place(root, into)
    chosen: dict[str, Finding] = {}
    for one in findings:
        inside = PurePosixPath(one.path)
        if one.path in chosen or one.issue in OF_NO_IMAGE or inside.is_absolute() or ".." in inside.parts:
            continue
        if (root / inside).is_file():
            chosen[one.path] = one
    try:
        _end_row(into / FILE)
        for path, one in track(sorted(chosen.items()), "moving"):
            if os.path.lexists(into / path):
                raise DataError(f"{into / path}: is there already; give another folder, or put back what it holds")
            _write_down(into / FILE, (path, str((root / path).absolute()), one.issue, one.detail))
            _move(root / path, into / path)
    except OSError as error:
        back = shell_command(["whichcar", "check", "--undo", into])
        raise DataError(f"{error.filename or into}: {error.strerror}; put back with: {back}") from error
    return len(chosen)


def put_back(quarantined: Path) -> int:
    """Move everything that `quarantine` put into a folder back to where it was; return how many were moved.

    The folder is removed when nothing else is in it.

    Raises:
        DataError: it is no such folder, or another file lies in an image's place; what came before it is back.
    """
    moved = 0
    for path, home in track(_read(quarantined), "putting back"):
        if os.path.lexists(quarantined / path):  # else it was never moved, or is back
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


def _read(quarantined: Path) -> list[tuple[str, Path]]:
    """Return each path in the quarantine and where it came from; a row that was cut short is of an image not moved."""
    table = quarantined / FILE
    try:
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [(row["path"], Path(row["from"])) for row in csv.DictReader(file) if row["detail"] is not None]
    except (OSError, KeyError) as error:
        raise DataError(f"{table}: is not there, or not as `whichcar check --quarantine` writes it") from error


def _end_row(table: Path) -> None:
    """End the last row of the table where writing it was cut short, so that another one can follow.

    A table without a row is removed: its header may be cut short, and is written again with the first row.
    """
    content = table.read_bytes() if table.exists() else b""
    if _HEADER.startswith(content):
        table.unlink(missing_ok=True)
    elif content.count(b'"') % 2 or content[-1:] not in (b"", b"\n"):
        with table.open("ab") as file:
            file.write(b'"' * (content.count(b'"') % 2) + b"\n")


def _write_down(table: Path, row: tuple[str, ...]) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    new = not table.exists() or not table.stat().st_size
    with table.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a name may hold any line break
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
        with files.atomic_write(target) as tmp:
            shutil.copy2(source, tmp)
        source.unlink()
