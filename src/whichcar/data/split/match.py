"""Match each row of a label file to its image, or explain why it cannot be used and what name it may have meant."""

from __future__ import annotations

import contextlib
import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

from whichcar import files
from whichcar.data.split_names import split_of
from whichcar.errors import DataError
from whichcar.records import Label
from whichcar.text import as_text, one_line, plural

Form = Callable[[str], str]

_LISTED = 500_000  # maximum number of files that are searched for the name that was meant


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a row cannot be used, and the name that it may have meant ("" if none is close).

    `kind` is `missing` (there is no such file), `unusable` (invalid file), `bad` (invalid row), `repeated`,
    `conflict` (rows about the image disagree), `copy` (a train image with a copy in validation or test, or a validation
    image with a copy in test), `group` (an image whose group has images there) or `orphan` (a held-out image of a class
    without train images).
    """

    kind: Literal["missing", "unusable", "bad", "repeated", "conflict", "copy", "group", "orphan"]
    reason: str
    meant: str = ""

    def __str__(self) -> str:
        """Return the reason, and the name that may have been meant."""
        return f"{self.reason}; did you mean {self.meant!r}?" if self.meant else self.reason


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A row whose image exists; rows are counted from 1."""

    row: int
    label: Label
    source: Path


def match(data: Path, labels: Sequence[Label]) -> tuple[list[LabelledImage], dict[int, RowProblem]]:
    """Find the image of every row; return the rows with a usable image, and the problems of the others by row number.

    If no row has a subset, none is required.

    Raises:
        DataError: the folder does not exist.
    """
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; give the folder with the images")
    divided = any(label.subset for label in labels)
    problems: dict[int, RowProblem] = {}
    found: list[LabelledImage] = []
    for row, label in enumerate(labels, start=1):
        source = _find(label, bases_of(data), divided)
        if isinstance(source, RowProblem):
            problems[row] = source
        else:
            found.append(LabelledImage(row, replace(label, subset=split_of(label.subset) or label.subset), source))
    return found, _with_what_was_meant(data, labels, problems)


def bases_of(data: Path) -> list[Path]:
    """Return the folders that an img_name may be relative to."""
    return [folder for folder in (data / "car_ims", data) if folder.is_dir()]


def nothing_usable(data: Path, problems: Sequence[tuple[str, RowProblem]]) -> str:
    """Return the message for when no row can be used: the most common reason, an example, and what it may have meant.

    Args:
        data: the folder with the images.
        problems: the img_name of each row, and its problem.
    """
    if not problems:
        return f"{data}: no labels given; add one row per image"
    reason, count = Counter(problem.reason for _, problem in problems).most_common(1)[0]
    alike = [(name, problem) for name, problem in problems if problem.reason == reason]
    name, problem = next((one for one in alike if one[1].meant), alike[0])
    lost = "; give the folder that the names are relative to" if problem.kind == "missing" else ""
    meant = f"; did you mean {problem.meant!r}?" if problem.meant else lost
    return (
        f"{data}: none of the {plural(len(problems), 'row')} can be used; {count} of them: {reason}, "
        f"such as {one_line(name)!r}{meant}"
    )


def _find(label: Label, bases: Sequence[Path], divided: bool) -> Path | RowProblem:
    """Return the label's image, or why it cannot be used."""
    if reason := _refused(label, divided):
        return RowProblem("bad", reason)
    for base in bases:
        for form in (label.img_name, *(unicodedata.normalize(f, label.img_name) for f in ("NFC", "NFD"))):
            path = base / PurePosixPath(form)
            try:
                if path.is_file():
                    reason = _unusable(path)
                    return RowProblem("unusable", reason) if reason else path
                if files.is_broken_link(path):
                    return RowProblem("unusable", "a link to a file that is not there; restore it")
            except OSError as error:
                return RowProblem("missing", f"cannot be reached ({error.strerror})")
    return RowProblem("missing", f"no such file in {' or '.join(map(str, bases))}")


def _refused(label: Label, divided: bool) -> str | None:
    """Return what is wrong with the row itself, if anything."""
    if reason := _refused_name(label.img_name):
        return reason
    if any(text != as_text(text) for text in (label.class_name, label.group)):
        return "class or group contains bytes that are not text; rename it"
    if not label.class_name:
        return "class is empty"
    if divided and split_of(label.subset) is None:
        return f"subset {label.subset!r} is none of train, validation and test"
    return None


def _refused_name(img_name: str) -> str | None:
    """Return why an image cannot have this name, or None if it can."""
    name = PurePosixPath(img_name)
    if not img_name.strip():
        return "img_name is empty"
    if any(path.anchor or ".." in path.parts for path in (name, PurePath(img_name))):
        return "img_name leads out of the data folder"
    if "\0" in img_name or img_name != as_text(img_name):
        return "img_name contains bytes that are not text; rename it"
    if name.name.startswith("."):
        return "hidden file"
    if name.suffix.lower() not in files.IMAGE_SUFFIXES:
        return f"suffix {name.suffix!r} is none of {' '.join(sorted(files.IMAGE_SUFFIXES))}"
    return None


def _unusable(path: Path) -> str | None:
    if path.stat().st_size == 0:
        return "the file is empty"
    return None if os.access(path, os.R_OK) else "the file may not be read; change its permissions"


def _with_what_was_meant(data: Path, labels: Sequence[Label], problems: dict[int, RowProblem]) -> dict[int, RowProblem]:
    """Add to each name without an image the name in `data` that it may have meant, if there is one."""
    asked = {row: labels[row - 1].img_name for row, problem in problems.items() if problem.kind in ("missing", "bad")}
    asked = {row: name for row, name in asked.items() if problems[row].kind == "missing" or _refused_name(name)}
    if not asked:
        return problems
    names: list[str] = []
    with contextlib.suppress(PermissionError):  # suggestions are optional, so the names that can be listed are enough
        names.extend(itertools.islice(files.walk_images(bases_of(data)[0]), _LISTED))
    indices = [(form, _index(names, form)) for form in (_path, _stem, _file, lambda name: _stem(_file(name)))]
    return {
        row: replace(problem, meant=_meant(asked[row], indices)) if row in asked else problem
        for row, problem in problems.items()
    }


def _index(names: Sequence[str], form: Form) -> dict[str, str]:
    """Return a mapping from forms to names, without forms that several names share."""
    counts = Counter(map(form, names))
    return {form(name): name for name in names if counts[form(name)] == 1}


def _meant(name: str, indices: Sequence[tuple[Form, Mapping[str, str]]]) -> str:
    """Return another name that may have been meant, or ""."""
    return next((meant for form, index in indices if (meant := index.get(form(name), name)) != name), "")


def _path(name: str) -> str:
    """Return a name normalized for what is easily mistaken: case, the kind of slash, spaces, Unicode form."""
    return "".join(unicodedata.normalize("NFKC", name).replace("\\", "/").casefold().split()).strip("/")


def _stem(name: str) -> str:
    """Return the normalized name without its suffix, if that is the suffix of an image."""
    path = _path(name)
    suffix = PurePosixPath(path).suffix
    return path.removesuffix(suffix) if suffix in files.IMAGE_SUFFIXES else path


def _file(name: str) -> str:
    """Return the normalized name without folders."""
    return _path(name).rpartition("/")[2]
