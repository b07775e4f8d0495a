"""A file of predictions, CSV or JSON Lines, that can be resumed after the process was killed.

`answers.csv.json` next to `answers.csv` records what wrote it, since a run with another model or other options would
mix its rows with the existing ones.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from whichcar import files
from whichcar.errors import DataError
from whichcar.images.inputs import Given
from whichcar.records import NUMBER_COLUMN, Skipped
from whichcar.text import as_text, reason_of

FORMS: dict[str, Literal["csv", "json"]] = {".csv": "csv", ".jsonl": "json"}
_ADVICE = "choose another file, or delete this one"
_FOLDERS = ("annotate", "save-crops", "explain")


class OutputFile:
    """Rows of predictions on disk; `done` counts images with complete rows by path, and `rows` is the number of rows.

    `usable` is true if one of these rows is of a readable image, and `problems` counts those that are not.

    Args:
        path: `NAME.csv` or `NAME.jsonl`.
        columns: names of a row's cells, in order; the first is `path`, the last `problem`.
        origin: what wrote the file, for JSON: the model, how images were cropped, and the options that affect the rows,
            by name. A folder among them is compared by its path relative to this file.
        rows_per_image: `many` if each vehicle in an image has a row; an image with incomplete rows is then redone.

    Raises:
        DataError: the name has another suffix; by `opened`: the file is damaged, was written by something else or with
            another model or other options, or is being written by another process.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], origin: Mapping[str, Any], rows_per_image: Literal["one", "many"]
    ) -> None:
        if path.suffix.lower() not in FORMS:
            raise DataError(f"{path}: its name tells the format; end it in {' or '.join(FORMS)}")
        self.path, self.form = path, FORMS[path.suffix.lower()]
        self.done: Counter[str] = Counter()
        self.rows, self.usable, self.problems = 0, False, 0
        self._counts = [columns.index(NUMBER_COLUMN), columns.index("candidates")] if rows_per_image == "many" else []
        self._columns = list(columns)
        self._origin = {name: _relative(value, path) for name, value in origin.items()}
        self._about = path.with_name(f"{path.name}.json")
        self._file: IO[bytes] | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[OutputFile]:
        """Read existing rows, remove an incomplete one at the end, and accept more until the block ends."""
        with files.system_errors(self.path, f"cannot be written in {self.path.parent}", "choose another folder"):
            files.check_writable(self.path)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(files.locked(self.path.with_name(f".{self.path.name}.lock"), remove=True))
            except BlockingIOError as error:
                raise DataError(f"{self.path}: another process writes it; wait, or choose another file") from error
            end = self._read() if self._is_ours() else 0
            self._file = stack.enter_context(self.path.open("ab", buffering=0))
            stack.callback(self._remove_empty)
            self._file.truncate(end)
            files.write_json(self._about, {"columns": self._columns, **self._origin})
            yield self

    def remaining(self, images: Iterable[Given | Skipped]) -> Iterator[Given | Skipped]:
        """Yield the images that have no row yet; an image given twice gets two rows."""
        missing = self.done.copy()
        for image in images:
            name = as_text(image.path)
            if missing[name]:
                missing[name] -= 1
            else:
                yield image

    def write(self, lines: Iterable[str]) -> int:
        """Append lines as they come, the CSV header with the first row of an empty file, and return the number of rows.

        Raises:
            DataError: the system refuses to write, for example because the disk is full.
        """
        assert self._file is not None  # noqa: S101  (within `opened`)
        count, header = 0, ""
        for number, line in enumerate(lines):
            if self.form == "csv" and number == 0:
                header = "" if self.done else f"{line}\n"
                continue
            # One system call per row, so that a kill leaves it complete or absent
            content = f"{header}{line}\n".encode()
            with files.system_errors(self.path, "cannot be written", "its rows are kept; make room and run it again"):
                if self._file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count, header = count + 1, ""
        return count

    def _remove_empty(self) -> None:
        """Remove the file and its record of origin if an error came before the first row."""
        if self.path.is_file() and not self.path.stat().st_size:
            self.path.unlink()
            self._about.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        """Return whether the file has rows, written with the same model and options.

        Raises:
            DataError: the file has another origin.
        """
        if not self.path.exists() or not self.path.stat().st_size:
            return False
        if not self._about.exists():
            raise DataError(f"{self.path}: is there already, and `predict --output` did not write it; {_ADVICE}")
        before = files.read_json(self._about, fix=f"delete it and {self.path}")
        origin = json.loads(json.dumps(self._origin))
        differences = "; ".join(
            _difference(name, *(_folder(value, self.path) if name in _FOLDERS else value for value in (then, now)))
            for name, now in origin.items()
            if (then := before.get(name)) != now
        )
        if not differences and before.get("columns") != self._columns:
            differences = "with other columns"
        if differences:
            raise DataError(
                f"{self.path}: was written {differences}; use the options of before, choose another file, or delete "
                "this one"
            )
        return True

    def _read(self) -> int:
        """Count the images with complete rows, by path, and return the position in the file where these end."""
        end = rows = 0
        with self.path.open("rb") as file:
            try:
                for number, (cells, place) in enumerate(_rows(file, self.form)):
                    if len(cells) != len(self._columns) or (
                        number == 0 and self.form == "csv" and cells != self._columns
                    ):
                        raise ValueError(f"row {number + 1} has other columns")
                    if self.form == "csv" and number == 0:
                        continue
                    rows += 1
                    is_usable = cells[-1] in ("", "None")
                    self.usable |= is_usable
                    self.problems += not is_usable
                    if self._ends_image(cells):
                        self.done[cells[0]] += 1
                        self.rows, end = rows, place
            except (ValueError, csv.Error) as error:
                raise DataError(f"{self.path}: is damaged ({reason_of(error)}); {_ADVICE}") from error
        return end

    def _ends_image(self, cells: Sequence[str]) -> bool:
        """Return whether this is the last row of an image."""
        number, vehicles = (cells[place] for place in self._counts) if self._counts else ("", "")
        return number in ("", "None", vehicles)


def _rows(file: IO[bytes], form: str) -> Iterator[tuple[list[str], int]]:
    """Yield the cells of each complete row, as text, and the position of its end; skip an incomplete row at the end."""
    end = 0

    def whole_lines() -> Iterator[str]:
        nonlocal end
        for line in file:
            if line.endswith(b"\n"):
                end += len(line)
                yield line.decode()

    if form == "json":
        for line in whole_lines():
            content = json.loads(line)
            yield [str(cell) for cell in content.values()] if isinstance(content, dict) else [], end
        return
    rows = csv.reader(whole_lines(), strict=True)
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error:
            if not file.read(1):  # the file ends within quotes
                return
            raise
        yield cells, end


def _relative(value: object, path: Path) -> object:
    """Return a folder's path relative to the file's folder, so that both can be moved."""
    return os.path.relpath(value.resolve(), path.parent.resolve()) if isinstance(value, Path) else value


def _difference(name: str, before: Any, now: Any) -> str:  # noqa: ANN401  (whatever JSON can hold)
    """Describe in a few words how an option differs between the runs."""
    if name == "model":
        return f"with another model {_change(before, now)}"
    if name == "crop" and isinstance(before, Mapping) and now:
        if before.get("all") != now.get("all"):
            return "without --crop, now with --crop" if now.get("all") else "with --crop, now without --crop"
        if before.get("detector") == now["detector"]:
            return "with other crop settings"
        return f"with another --detector {_change(before.get('detector'), now['detector'])}"
    if name == "crop":
        return "with --crop, now with --no-crop" if before else "with --no-crop, now with --crop"
    words = [
        f"without --{name}" if value is None else f"with --{name} {as_text(str(value))}" for value in (before, now)
    ]
    return ", now ".join(words)


def _folder(value: object, path: Path) -> object:
    return os.path.normpath(path.parent / value) if isinstance(value, str) else value


def _change(before: object, now: object) -> str:
    """Describe how a model or detector differs between the runs, in parentheses."""
    names = _name(before), _name(now)
    return f"({names[0]}, now {names[1]})" if names[0] != names[1] else f"(a file of the same name, {names[0]})"


def _name(value: object) -> str:
    return as_text(str(value["name"])) if isinstance(value, Mapping) and "name" in value else "none"
