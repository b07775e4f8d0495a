"""The label file (`img_name,class,subset`), class names as folder names, and labels taken from folders."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from whichcar import files
from whichcar.data.split_names import TRAIN, VALIDATION, split_of
from whichcar.data.split_record import read_record
from whichcar.data.structure import structure_of
from whichcar.errors import DataError
from whichcar.records import Label
from whichcar.text import listed, nfc, plural

COLUMNS = ("img_name", "class", "subset")
GROUP = "group"  # an optional fourth column
# Without a column `subset` the test split is drawn, so a subset column with another name must not be ignored.
_LIKE_SUBSET = frozenset({"split", "splits", "subsets", "set", "part", "partition", "phase", "usage", "fold"})
_LONGEST_FOLDER = 200  # bytes; file systems allow 255, and a number may have to be added


def read_labels(path: str | Path) -> list[Label]:
    """Read a label file; every row becomes a label, even one with empty fields.

    The file is comma-separated UTF-8 with a header. Columns may be in any order; columns other than `img_name`,
    `class`, `subset` and `group` are ignored. A subset is `train`, `validation` or `test`, by any of the names that
    `split_of` knows. The columns `subset` and `group` are optional; without them, the label's fields are "".

    Raises:
        DataError: the file cannot be read, lacks a column, has no rows, or has a row with too many fields.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _rows(path, file)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the label file's path") from error
    if not rows:
        raise DataError(f"{path}: no row below the header; add one row an image")
    return rows


def write_labels(path: Path, rows: Iterable[Label]) -> None:
    """Write a label file that `read_labels` reads back, whole or not at all."""
    rows = list(rows)
    columns = (*COLUMNS, GROUP) if any(row.group for row in rows) else COLUMNS
    cells = ((row.img_name, row.class_name, row.subset, row.group)[: len(columns)] for row in rows)
    files.write_csv(path, columns, cells)


def folder_name(class_name: str) -> str:
    """Return a class name as a folder name that is valid on any system: `Ram C/V Van` becomes `Ram C-V Van`.

    Different class names can result in the same folder name; `split` keeps them apart.
    """
    name = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "-", nfc(class_name))
    short = name.encode("utf-8", "replace")[:_LONGEST_FOLDER].decode("utf-8", "ignore")
    return short.strip().lstrip(".").rstrip(". ").lstrip() or "-"


def labels_from_folders(root: Path) -> list[Label]:
    """Create labels from a tree with one folder per class.

    A tree that is divided into splits (`data.structure`) keeps them, including the validation split and the true class
    names recorded in its `split.json`. Without a validation or test split, subsets are left empty, to be drawn later.
    `img_name` is the path relative to `root`, such as `BMW X3 2012/a b.jpg`.

    Raises:
        DataError: there is no class folder, a class without images, or the split is unfinished.
    """
    structure = structure_of(root)
    folders = {TRAIN: structure.root} if not structure.splits else structure.splits
    folders = {split: folder for split, folder in folders.items() if folder not in structure.unlabelled}
    if TRAIN not in folders:
        raise DataError(
            f"{structure.root}: no training images in class folders; they belong in train/, one folder per class"
        )
    found = {split: images_by_class(folder, empty=split != TRAIN) for split, folder in folders.items()}
    record = read_record(structure.root) or {"classes": {}, "validation": []}
    true_names = {nfc(folder): name for folder, name in record["classes"].items()}
    held = {(TRAIN, nfc(name)) for name in record["validation"]}
    is_divided = len(found) > 1 or bool(held)
    return [
        Label(
            (folders[split] / name).relative_to(root).as_posix(),
            true_names.get(class_name, class_name),
            "" if not is_divided else VALIDATION if (split, nfc(name)) in held else split,
        )
        for split, classes in found.items()
        for class_name, names in classes.items()
        for name in names
    ]


def images_by_class(root: Path, empty: bool = False) -> dict[str, list[str]]:
    """Return the images of each class folder as paths relative to `root`; both are sorted, hidden files are left out.

    Class names are in NFC; folders whose names differ only in Unicode form are one class.

    Args:
        root: the folder that contains the class folders.
        empty: allow class folders to be empty, and leave them out.

    Raises:
        DataError: there is no class folder, one has no images, or one is a broken link.
    """
    found: dict[str, list[str]] = {}
    for folder in folders_of(root):
        found.setdefault(nfc(folder.name), []).extend(
            path.relative_to(root).as_posix() for path in files.images(folder)
        )
    if not found:
        raise DataError(f"{root}: no class folders in it; it must hold one folder per class")
    without = [name for name, names in found.items() if not names]
    if without and not empty:
        advice = "add images to each, or remove it"
        if any(files.is_unopened(path) and nfc(path.partition("/")[0]) in without for path in files.walk(root)):
            advice = "HEIC and the like are not opened: convert them to JPEG or PNG"
        raise DataError(f"{root}: {plural(len(without), 'class folder')} without an image: {named(without)}; {advice}")
    return {name: names for name, names in sorted(found.items()) if names}


def folders_of(root: Path) -> list[Path]:
    """Return the visible folders in `root`, sorted.

    Raises:
        DataError: `root` cannot be listed, or contains a broken link that may stand for a folder.
    """
    with files.system_errors(root, "cannot be listed", "give a folder of images"):
        broken = [path for path in sorted(root.iterdir()) if files.is_broken_link(path)]
        found = files.folders(root)
    if lost := [path for path in broken if files.is_visible(path.name) and not files.is_image(path)]:
        raise DataError(
            f"{lost[0]}: a link to {lost[0].readlink()}, which is not there; restore that or remove the link"
        )
    return found


def draw_share(
    classes: Mapping[str, Sequence[str]], share: float, seed: int, together: Sequence[Sequence[str]] = ()
) -> set[str]:
    """Draw `share` of all names, stratified by class, leaving at least one name in every class.

    The share applies to all classes together: what rounding down leaves goes to the classes with the largest
    remainders. Names are ranked by a hash, so the draw depends only on the seed and the names, not on their order or
    the machine. A group in `together` is drawn entirely or not at all: it is drawn if that brings its classes closer
    to their share, and the smallest group is drawn if a class would otherwise have none.
    """
    quota = _quotas(classes, share, seed)
    class_of = {name: class_name for class_name, names in classes.items() for name in names}
    grouped = {name for group in together for name in group}
    units = [sorted(group) for group in together] + [[name] for name in class_of if name not in grouped]
    units.sort(key=lambda unit: _rank(seed, unit[0]))
    drawn: set[str] = set()
    taken: Counter[str] = Counter()

    def draw(unit: Sequence[str], wanted: Callable[[Counter[str]], bool]) -> None:
        counts = Counter(class_of[name] for name in unit)
        if all(taken[name] + count < len(classes[name]) for name, count in counts.items()) and wanted(counts):
            drawn.update(unit)
            taken.update(counts)

    def nearer(counts: Counter[str]) -> bool:
        open_ = {name: quota[name] - taken[name] for name in counts}
        return sum(abs(open_[name] - count) - abs(open_[name]) for name, count in counts.items()) < 0

    for unit in units:
        draw(unit, nearer)
    for unit in sorted(units, key=len):  # stable: units of the same size stay ordered by rank
        draw(unit, lambda counts: any(quota[name] and not taken[name] for name in counts))
    return drawn


def _quotas(classes: Mapping[str, Sequence[str]], share: float, seed: int) -> dict[str, int]:
    """Return how many names to draw from each class for `share` of all names."""
    exact = {name: share * len(names) for name, names in classes.items()}
    quota = {name: int(exact[name]) for name in classes}
    growing = [name for name, names in classes.items() if quota[name] < len(names) - 1]
    growing.sort(key=lambda name: (quota[name] - exact[name], _rank(seed, name)))
    wanted = max(1, round(sum(exact.values()))) - sum(quota.values())
    for name in growing[: max(0, wanted)]:
        quota[name] += 1
    return quota


def draw_folds(
    classes: Mapping[str, Sequence[str]], folds: int, seed: int, together: Iterable[Sequence[str]] = ()
) -> dict[str, int]:
    """Assign every name to a fold, 0 ... folds - 1, stratified by class.

    Names of a group in `together` get the same fold. As in `draw_share`, names are ranked by a hash of seed and name.

    Raises:
        DataError: all names of a class fell into one fold.
    """
    drawn: dict[str, int] = {}
    for names in classes.values():
        for name in sorted(names, key=lambda name: _rank(seed, name)):
            drawn[name] = len(drawn) % folds
    for group in together:
        drawn.update(dict.fromkeys(group, drawn[group[0]]))
    if alone := [name for name, names in classes.items() if len({drawn[one] for one in names}) == 1]:
        raise DataError(
            f"{plural(len(alone), 'class')} of too few images to be divided into folds: {named(alone)}; add images to "
            "each, or leave it out"
        )
    return drawn


def named(names: Sequence[str]) -> str:
    """Return names in quotes for a message: the first five, and the number of others."""
    return listed(list(map(repr, names)))


def renamed(known: Sequence[str], found: Sequence[str]) -> str:
    """Return, for a message, which known names are missing and which names are new; "" if they are the same."""
    missing, new = ([name for name in some if name not in other] for some, other in ((known, found), (found, known)))
    return "; ".join(f"{side}: {named(names)}" for side, names in (("missing", missing), ("new", new)) if names)


def check_share(share: float, what: str) -> None:
    """Raise DataError unless 0 <= share < 1."""
    if not 0 <= share < 1:
        raise DataError(f"{what} must be at least 0 and less than 1; got {share:g}")


def _rank(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{nfc(name)}".encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _rows(path: Path, file: Iterable[str]) -> list[Label]:
    reader = csv.reader(file, strict=True)  # otherwise an unclosed quote would swallow the rest of the file
    try:
        columns, where = _places(path, next(reader, []))
        rows: list[Label] = []
        for fields in filter(None, reader):
            if any(fields[columns:]):
                raise DataError(
                    f"{path}: line {reader.line_num} has {len(fields)} fields, the header {columns}; "
                    "put names with a comma in quotes"
                )
            img_name, class_name, subset, group = (fields[place] if place < len(fields) else "" for place in where)
            subset = split_of(subset) or subset.strip()
            rows.append(Label(img_name, nfc(class_name.strip()), subset, group.strip()))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is no CSV ({error}); fix its quotes") from error
    return rows


def _places(path: Path, header: list[str]) -> tuple[int, list[int]]:
    """Return the number of columns and the indices of img_name, class, subset and group, past the end if missing."""
    names = [name.strip() for name in header]
    meant = [name for name in names if name.casefold() in _LIKE_SUBSET] if "subset" not in names else []
    needed = [column for column in COLUMNS if column != "subset" or meant]
    if missing := [column for column in needed if column not in names]:
        other = next((sign for sign in ";\t|" if any(sign in name for name in names)), None)
        where = "the header" if {*COLUMNS, GROUP} & {*names} else "the header is missing or wrong: the first line"
        advice = f"{where} must name {', '.join(needed[:-1])} and {needed[-1]}"
        advice = f"separate columns by commas, not {other!r}" if other else advice
        advice = f"call the column {meant[0]!r} subset" if missing == ["subset"] else advice
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(names) or 'nothing'}; {advice}")
    known = (*COLUMNS, GROUP)
    if twice := [column for column in known if names.count(column) > 1]:
        raise DataError(f"{path}: column {', '.join(twice)} is twice in the header; remove one")
    return len(names), [names.index(column) if column in names else len(names) for column in known]
