"""List the images in a folder of any layout, each with its class and its split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from whichcar import files
from whichcar.data.fetch.formats import IMAGES, LABELS
from whichcar.data.labels import read_labels
from whichcar.data.split.match import LabelledImage, RowProblem, match
from whichcar.data.split_names import TRAIN, VALIDATION
from whichcar.data.split_record import RECORD, read_record
from whichcar.data.structure import Structure, structure_of
from whichcar.errors import DataError
from whichcar.records import Label
from whichcar.text import as_text, nfc

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One image: its path relative to the collection's root, with `/`, and its class and split ("" if unknown).

    The split is `train`, `validation` or `test`; validation images may lie in the folder train/.
    """

    path: str
    class_name: str
    split: str


@dataclass(frozen=True)
class Collection:
    """The images of a folder, sorted by path, each once.

    `kind` describes the layout; `labels` is the label file, if the classes come from one. `problems` lists its rows
    that cannot be used, with their img_name; `disagreeing` maps an image to its labels if they contradict each other;
    `without_row` lists images that no row names; `others` lists files without an image suffix that lie next to images,
    or have the suffix of an unsupported format such as HEIC; `empty` are the class folders without an image.
    """

    root: Path
    kind: str
    entries: list[Entry]
    labels: Path | None = None
    problems: list[tuple[str, RowProblem]] = field(default_factory=list)
    disagreeing: dict[str, list[str]] = field(default_factory=dict)
    without_row: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def path_of(self, number: int) -> Path:
        """Return the path of an image by its index in `entries`."""
        return self.root / self.entries[number].path


def collect(root: Path, labels: Path | None = None) -> Collection:
    """List the images of a folder with a label file, with splits, with one folder per class, or with images only.

    Args:
        root: the folder.
        labels: the label file (default: car_dataset_labels.csv in `root`, unless its splits contain class folders).

    Raises:
        DataError: the folder is missing or has no images, its layout is refused by `structure_of`, or the label file
            cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give a folder with images")
    if labels is not None:
        return _labelled(root, labels)
    structure = structure_of(root)
    if (root / LABELS).is_file() and (structure.root != root or not structure.has_classes_in_splits):
        return _labelled(root, root / LABELS)
    paths, others = _walk(root)
    if not paths:
        raise DataError(f"{root}: {files.NO_IMAGES}")
    for remark in structure.remarks:
        log.warning("%s", remark)
    place = structure.splits.get(TRAIN, structure.root)
    empty = [nfc(folder.name) for folder in files.folders(place) if not any(files.walk_images(folder))]
    if structure.splits:
        names = _true_names(structure.root)
        empty = [names.get(name, name) for name in empty]
        *first, last = structure.splits
        kind = f"{', '.join(first)} and {last}" if first else last
        return Collection(root, kind, _divided(root, structure, paths), others=others, empty=empty)
    start = structure.root.relative_to(root).parts
    entries = [Entry(path, _class_of(path.split("/"), start), "") for path in paths]
    kind = "one folder per class" if any(entry.class_name for entry in entries) else "images"
    return Collection(root, kind, entries, others=others, empty=empty)


def _walk(root: Path, below: str = "") -> tuple[list[str], list[str]]:
    """Return the paths of the images, and of other files that may be images: see `Collection.others`."""
    start = f"{below}/" if below else ""
    paths = [start + path for path in files.walk_images(root / below)]
    folders = {path.rpartition("/")[0] for path in paths}
    known = set(paths)
    others = (path for file in files.walk(root / below) if (path := start + file) not in known)
    return paths, [path for path in others if path.rpartition("/")[0] in folders or files.is_unopened(path)]


def _true_names(root: Path) -> dict[str, str]:
    """Return the class names of the folders that split.json lists."""
    record = read_record(root)
    return {nfc(folder): name for folder, name in record["classes"].items()} if record else {}


def _divided(root: Path, structure: Structure, paths: Sequence[str]) -> list[Entry]:
    """Return the entries of `train/CLASS/...` and the other splits; images elsewhere have no class."""
    record = read_record(structure.root)
    names = _true_names(structure.root)
    held = {nfc(name) for name in record["validation"]} if record else set()
    starts = {folder.relative_to(root).parts: split for split, folder in structure.splits.items()}
    depth = len(next(iter(starts)))
    unlabelled = {starts[folder.relative_to(root).parts] for folder in structure.unlabelled}

    def entry(path: str) -> Entry:
        parts = tuple(path.split("/"))
        split, class_name = starts.get(parts[:depth], ""), _class_of(parts, parts[:depth])
        if not split or (not class_name and split not in unlabelled):
            return Entry(path, "", "")
        chosen = split == TRAIN and nfc("/".join(parts[depth:])) in held
        return Entry(path, names.get(class_name, class_name), VALIDATION if chosen else split)

    return [entry(path) for path in paths]


def _class_of(parts: Sequence[str], start: Sequence[str]) -> str:
    """Return an image's class from its path if it lies in a class folder inside the folder `start`, else ""."""
    inside = parts[len(start) :]
    return nfc(inside[0]) if len(inside) > 1 and tuple(parts[: len(start)]) == tuple(start) else ""


def _labelled(root: Path, labels: Path) -> Collection:
    rows = read_labels(labels)
    found, problems = match(root, rows)
    rows_of: dict[str, list[Label]] = {}
    for item in found:
        rows_of.setdefault(_inside(root, item), []).append(item.label)
    disagreeing = {path: sorted({f"{row.subset} {row.class_name!r}" for row in same}) for path, same in rows_of.items()}
    # If the labelled images lie in car_ims/, the label file says nothing about other folders next to it.
    inside = (root / IMAGES).is_dir() and all(path.startswith(f"{IMAGES}/") for path in rows_of)
    # Nor does it about folders that `split` and `crop` wrote, unless a row names an image there: they hold the same
    # images again.
    records = [path for name in (RECORD, files.CROP_RECORD) for path in root.glob(f"*/**/{name}")]
    written = {f"{path.parent.relative_to(root).as_posix()}/" for path in records}
    made = tuple(place for place in written if not any(path.startswith(place) for path in rows_of))
    walked = _walk(root, IMAGES if inside else "")
    paths, others = ([path for path in some if not path.startswith(made)] for some in walked)
    named = {PurePosixPath(row.img_name).as_posix() for row in rows}
    return Collection(
        root=root,
        kind="a label file",
        entries=[
            Entry(path, rows_of[path][0].class_name, rows_of[path][0].subset)
            if path in rows_of
            else Entry(path, "", "")
            for path in sorted({*paths, *rows_of})
        ],
        labels=labels,
        problems=[(as_text(rows[row - 1].img_name), problem) for row, problem in sorted(problems.items())],
        disagreeing={path: texts for path, texts in disagreeing.items() if len(texts) > 1},
        without_row=[
            path for path in paths if path not in rows_of and not named & {path, path.removeprefix(f"{IMAGES}/")}
        ],
        others=others,
    )


def _inside(root: Path, item: LabelledImage) -> str:
    return PurePosixPath(item.source.relative_to(root)).as_posix()
