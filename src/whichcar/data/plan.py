"""Which labelled picture goes where in the split tree, and which row cannot be used, and why. Nothing is written."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

from whichcar import files
from whichcar.data.duplicates import copies_among
from whichcar.data.labels import folder_name
from whichcar.data.split_names import TEST, TRAIN, VALIDATION, split_of
from whichcar.errors import DataError
from whichcar.records import Label


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be used.

    `kind` is `missing` (no such file), `unusable` (the file), `bad` (the row itself), `repeated`, `conflict` (its rows
    disagree), `copy` (an image of train that is in validation or test too, or one of validation that is in test) or
    `orphan` (a held-out image of a class without train images).
    """

    kind: Literal["missing", "unusable", "bad", "repeated", "conflict", "copy", "orphan"]
    reason: str


@dataclass(frozen=True)
class Plan:
    """Every row of the labels, accounted for.

    `targets` maps a place in the output, `<subset>/<folder>/<file>`, to the picture; `classes` maps folder to true
    name; `problems` maps the number of a row (the first is 1) to why it cannot be used; `renamed` maps an img_name to
    its target where that does not have the picture's own file name; `unlabelled` counts pictures that lie beside
    usable ones and have no row; `copied` are the targets in train that have copies there; `validation` are the targets
    that the labels give to the validation split, which lie in train/ too.
    """

    targets: dict[str, Path]
    classes: dict[str, str]
    problems: dict[int, Problem]
    renamed: dict[str, str]
    unlabelled: int
    copied: frozenset[str]
    validation: frozenset[str]


@dataclass(frozen=True, slots=True)
class Found:
    """A row whose picture is there; the first row is 1."""

    row: int
    label: Label
    source: Path


def make_plan(data: Path, labels: Sequence[Label], keep_copies: bool = True) -> Plan:
    """Decide for every label where its picture goes, or why it cannot be used.

    Args:
        data: folder with the pictures, or with the pictures in `car_ims/`.
        labels: the rows.
        keep_copies: use images of which a held-out split has a copy.

    Raises:
        DataError: no row can be used; the message has the commonest reason.
    """
    found, problems = match(data, labels)
    used = _without_orphans(_without_repeats(found, problems), problems)
    groups = _copies(used)
    if not keep_copies:
        used = _without_orphans(_without_copies(used, groups, problems), problems)
    if not used:
        raise DataError(_nothing_usable(data, problems))
    folders = _folders({item.label.class_name for item in used})
    targets, renamed = _targets(used, folders)
    several = {item.source for group in groups for item in group}
    held = {item.source for item in used if item.label.subset == VALIDATION}
    return Plan(
        targets=targets,
        classes={folder: name for name, folder in sorted(folders.items(), key=lambda pair: pair[1])},
        problems=dict(sorted(problems.items())),
        renamed=renamed,
        unlabelled=_unlabelled(data, labels, found),
        copied=frozenset(target for target, source in targets.items() if source in several),
        validation=frozenset(target for target, source in targets.items() if source in held),
    )


def match(data: Path, labels: Sequence[Label]) -> tuple[list[Found], dict[int, Problem]]:
    """Find the picture of every row; rows without one that can be used are problems, by the number of the row.

    Raises:
        DataError: there is no such folder.
    """
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; give the folder with the pictures")
    problems: dict[int, Problem] = {}
    found: list[Found] = []
    for row, label in enumerate(labels, start=1):
        source = _find(label, _bases(data))
        if isinstance(source, Problem):
            problems[row] = source
        else:
            found.append(Found(row, replace(label, subset=split_of(label.subset) or label.subset), source))
    return found, problems


def _unlabelled(data: Path, labels: Iterable[Label], found: Sequence[Found]) -> int:
    known = {base / PurePosixPath(label.img_name) for label in labels for base in _bases(data)}
    known.update(item.source for item in found)
    return sum(
        entry not in known and entry.suffix.lower() in files.IMAGE_SUFFIXES and not entry.name.startswith(".")
        for folder in {item.source.parent for item in found}
        for entry in folder.iterdir()
    )


def _bases(data: Path) -> list[Path]:
    """Return the folders that an img_name may be seen from."""
    return [folder for folder in (data / "car_ims", data) if folder.is_dir()]


def _find(label: Label, bases: Sequence[Path]) -> Path | Problem:
    """Return the label's picture, or why it cannot be used."""
    if reason := _refused(label):
        return Problem("bad", reason)
    for base in bases:
        for form in (label.img_name, *(unicodedata.normalize(f, label.img_name) for f in ("NFC", "NFD"))):
            path = base / PurePosixPath(form)
            try:
                if path.is_file():
                    reason = _unusable(path)
                    return Problem("unusable", reason) if reason else path
            except OSError as error:
                return Problem("missing", f"cannot be reached ({error.strerror})")
    return Problem("missing", f"no such file in {' or '.join(map(str, bases))}")


def _refused(label: Label) -> str | None:
    """Return what is wrong with a row by itself, if anything."""
    name = PurePosixPath(label.img_name)
    if not label.img_name.strip():
        return "img_name is empty"
    if any(path.anchor or ".." in path.parts for path in (name, PurePath(label.img_name))):
        return "img_name leads out of the data folder"
    if "\0" in label.img_name or any(text != readable(text) for text in (label.img_name, label.class_name)):
        return "img_name or class holds bytes that are no text; rename it"
    if name.name.startswith("."):
        return "hidden file"
    if name.suffix.lower() not in files.IMAGE_SUFFIXES:
        return f"suffix {name.suffix!r} is none of {' '.join(sorted(files.IMAGE_SUFFIXES))}"
    if not label.class_name:
        return "class is empty"
    if split_of(label.subset) is None:
        return f"subset {label.subset!r} is none of train, validation and test"
    return None


def _unusable(path: Path) -> str | None:
    if path.stat().st_size == 0:
        return "the file is empty"
    return None if os.access(path, os.R_OK) else "the file may not be read; change its permissions"


def _without_repeats(found: Iterable[Found], problems: dict[int, Problem]) -> list[Found]:
    """Keep the first of equal rows, and none of rows that say different things about one picture."""
    by_source: dict[Path, list[Found]] = defaultdict(list)
    for item in found:
        by_source[item.source].append(item)
    used = []
    for items in by_source.values():
        said = sorted({f"{item.label.subset} {item.label.class_name!r}" for item in items})
        if len(said) == 1:
            used.append(items[0])
            problems.update({item.row: Problem("repeated", f"repeats row {items[0].row}") for item in items[1:]})
        else:
            told = Problem("conflict", f"its rows disagree: {' against '.join(said)}; none is used")
            problems.update({item.row: told for item in items})
    return used


def _copies(found: Sequence[Found]) -> list[list[Found]]:
    groups = copies_among([item.source for item in found], [item.label.class_name for item in found])
    return [[found[number] for number in group] for group in groups]


def _without_copies(
    found: Sequence[Found], groups: Sequence[Sequence[Found]], problems: dict[int, Problem]
) -> list[Found]:
    """Leave out images of which a held-out split has a copy: what was learnt by heart would count as recognised."""
    for group in groups:
        for held, others in ((TEST, (TRAIN, VALIDATION)), (VALIDATION, (TRAIN,))):
            kept = next((item for item in group if item.label.subset == held), None)
            for item in group if kept else ():
                if kept and item.label.subset in others and item.row not in problems:
                    problems[item.row] = Problem("copy", f"a copy of {kept.label.img_name} in {held}")
    return [item for item in found if item.row not in problems]


def _without_orphans(found: Sequence[Found], problems: dict[int, Problem]) -> list[Found]:
    """Leave out held-out images of classes that have no image to learn from."""
    learned = {item.label.class_name for item in found if item.label.subset == TRAIN}
    for item in found:
        if item.label.class_name not in learned:
            problems[item.row] = Problem("orphan", f"class {item.label.class_name!r} has no usable picture in train")
    return [item for item in found if item.label.class_name in learned]


def _nothing_usable(data: Path, problems: Mapping[int, Problem]) -> str:
    if not problems:
        return f"{data}: no labels given; add one row a picture"
    reason, count = Counter(problem.reason for problem in problems.values()).most_common(1)[0]
    return f"{data}: none of the {len(problems)} rows can be used; {count} of them: {reason}"


def _folders(names: Iterable[str]) -> dict[str, str]:
    """Give every class name a folder of its own; names that would meet, also but for case, get a number."""
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names):
        folders[name] = _free(folder_name(name), "", taken)
    return folders


def _targets(found: Iterable[Found], folders: Mapping[str, str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return target to source, and img_name to target for pictures whose name was taken in their folder."""
    targets: dict[str, Path] = {}
    renamed: dict[str, str] = {}
    taken: dict[str, set[str]] = defaultdict(set)
    for item in sorted(found, key=lambda item: (len(item.source.parts), str(item.source))):
        place = f"{TEST if item.label.subset == TEST else TRAIN}/{folders[item.label.class_name]}"
        name = _free(item.source.stem, item.source.suffix, taken[place])
        targets[f"{place}/{name}"] = item.source
        if name != item.source.name:
            renamed[item.label.img_name] = f"{place}/{name}"
    return dict(sorted(targets.items())), renamed


def _free(stem: str, suffix: str, taken: set[str]) -> str:
    """Return stem + suffix, with ` (2)`, ` (3)` ... between them if taken, and take it."""
    name = stem + suffix
    number = 1
    while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
        number += 1
        name = f"{stem} ({number}){suffix}"
    taken.add(key)
    return name


def readable(name: str) -> str:
    """Return a name that UTF-8 can hold: bytes of a file name that are no text are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
