"""Read and write boxes.csv, which has one row per image of the crop stage, whatever the outcome."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Self, TextIO

from whichcar.errors import DataError
from whichcar.files import atomic_write, csv_line, system_errors
from whichcar.records import Box, Crop

FILE = "boxes.csv"
COLUMNS = ("path", "left", "top", "right", "bottom", "label", "score", "candidates", "outcome")
HEADER = ",".join(COLUMNS) + "\n"


def table_of(folder: Path) -> Path | None:
    """Return a folder's boxes.csv, or None if it is missing or was not written by `whichcar crop`."""
    path = folder / FILE
    if not path.is_file():
        return None
    with _open(path) as file:
        return path if file.readline() == HEADER else None


def read_boxes(path: Path) -> Iterator[Crop]:
    """Yield the rows of a boxes.csv, except one that an interrupted process has left incomplete.

    Raises:
        DataError: the file cannot be read or is another table.
    """
    advice = "give a table that `whichcar crop` wrote"
    with system_errors(path, "cannot be read", advice), _open(path) as file:
        if file.readline() != HEADER:
            raise DataError(f"{path}: its header is not {HEADER.strip()}; {advice}")
        yield from rows(file)


class BoxTable:
    """A boxes.csv that is written row by row.

    Rows are first appended to a second file, so that an interrupted run keeps them; `finish` puts them in order.

    Args:
        path: path of boxes.csv.
        growing: path of the second file.
    """

    def __init__(self, path: Path, growing: Path) -> None:
        """Read the rows that earlier runs left."""
        self._path, self._growing = path, growing
        # Kept as lines of text, since the records of all images would take several times the memory.
        self._known: dict[str, str] = {}
        for table in (path, growing):
            if table.is_file():
                self._known |= {row.path: line(row) for row in read_boxes(table)}

    def __enter__(self) -> Self:
        """Rewrite the second file with all known rows and keep it open."""
        _write(self._growing, self._known.values())
        self._file = _open(self._growing, "a")
        return self

    def __exit__(self, *_: object) -> None:
        """Close the second file."""
        self._file.close()

    def done(self, path: str, source: Path, output: Path) -> Crop | None:
        """Return an image's row if nothing is left to do: its output exists and is not older than its source.

        A skipped image is processed again, since it may have been fixed.
        """
        row = next(rows([self._known[path]])) if path in self._known else None
        if row is None or row.kind == "skipped":
            return None
        with contextlib.suppress(OSError):
            given, written = source.stat(), output.stat()
            # A replaced source may have an old modification time (cp -p, tar, rsync), but not an old ctime.
            if written.st_size and max(given.st_mtime_ns, given.st_ctime_ns) <= written.st_mtime_ns:
                return row
        return None

    def add(self, rows: Iterable[Crop]) -> Iterator[Crop]:
        """Append each row to the second file, then yield it."""
        for row in rows:
            self._file.write(line(row))
            self._file.flush()
            yield row

    def finish(self, order: Iterable[str]) -> list[str]:
        """Write boxes.csv with the rows of these paths, in this order; return the paths whose image is gone."""
        if not self._known:  # then the rows have come in order
            self._growing.replace(self._path)
            return []
        lines = {row.path: line(row) for row in read_boxes(self._growing)}
        # An image that was added meanwhile has no row yet; the next run processes it.
        _write(self._path, (lines.pop(path) for path in order if path in lines))
        return list(lines)


def _open(path: Path, mode: Literal["r", "a", "w"] = "r") -> TextIO:
    # File names need not be UTF-8.
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


def _write(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as tmp, _open(tmp, "w") as file:
        file.write(HEADER)
        file.writelines(lines)


def line(crop: Crop) -> str:
    """Return a crop as a row of boxes.csv, including the line break."""
    box = crop.box
    sides = ("", "", "", "") if box is None else (box.left, box.top, box.right, box.bottom)
    score = "" if crop.score is None else f"{crop.score:.4f}"
    return csv_line((crop.path, *sides, crop.label, score, crop.candidates, crop.outcome)) + "\n"


def rows(lines: Iterable[str]) -> Iterator[Crop]:
    """Yield the crops that rows of a boxes.csv describe, except damaged rows."""
    for fields in csv.reader(lines):
        if len(fields) != len(COLUMNS) or fields[-1].partition(":")[0] not in ("cropped", "whole", "skipped"):
            continue
        path, *sides, label, score, candidates, outcome = fields
        if path.startswith("/") or ".." in path.split("/"):  # a table from elsewhere must not reach outside its folder
            continue
        with contextlib.suppress(ValueError):  # the image of a damaged row is processed again
            box = Box(*map(int, sides)) if all(sides) else None
            yield Crop(path, box, label, float(score) if score else None, int(candidates), outcome)
