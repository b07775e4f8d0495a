"""A data folder as lists of samples: train, validation and test.

`split.json` in it, where `split` wrote one, says which images of `train/` are the validation split.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whichcar import files
from whichcar.data.identity import fingerprint
from whichcar.data.labels import check_share, draw_share, folders_of, named, pictures_by_class
from whichcar.errors import DataError
from whichcar.records import Sample

RECORD = "split.json"


@dataclass(frozen=True)
class Tree:
    """The pictures of a data folder; a sample's class_index counts in the sorted class folders."""

    root: Path
    class_folders: tuple[str, ...]
    class_names: tuple[str, ...]
    train: list[Sample]
    validation: list[Sample]
    test: list[Sample]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests that identify the tree where it is moved: of `train` (with validation), and of `test` if any."""
        parts = {"train": [*self.train, *self.validation], "test": self.test}
        return {name: fingerprint(samples) for name, samples in parts.items() if samples}


def read_tree(directory: Path, validation: float, seed: int) -> Tree:
    """List the samples of a data folder and divide train as its `split.json` says.

    Args:
        directory: a folder with `train/` (and `test/`), such a `train/` itself, or a folder with one folder a class.
        validation: share of train set aside; must agree with the recorded one. 0 sets nothing aside, whatever is
            recorded, except images that the labels themselves give for validation.
        seed: of the choice where none is recorded; it is then written to `split.json`, if the folder can be written.

    Raises:
        DataError: no classes, an empty class, a test class that train lacks, an unfinished or different split.
    """
    if validation:
        check_share(validation, "data.validation_split")
    root, train_folder = _locate(directory)
    classes = pictures_by_class(train_folder)
    if len(classes) < 2:
        raise DataError(f"{train_folder}: one class only, {next(iter(classes))!r}; a classifier needs at least two")
    record = read_record(root) or _draw(root, classes, validation, seed)
    if validation:
        _check_share_agrees(root, record, validation)
    given = record["validation_share"] is None
    chosen = set(record["validation"]) if validation or given else set()
    numbers = {folder: number for number, folder in enumerate(classes)}
    train, held = _divide(train_folder, classes, chosen)
    test = _test_part(root / "test", numbers) if train_folder != root else []
    names = tuple(record["classes"].get(folder, folder) for folder in classes)
    return Tree(root, tuple(classes), names, train, held, test)


def load_record(root: Path) -> dict[str, Any] | None:
    """Return what split.json holds, or None where there is none."""
    path, fix = root / RECORD, "delete it to divide anew"
    if not path.exists():
        return None
    # The share is null where the label file named the validation images.
    keys = {"finished": bool, "validation_share?": float, "classes": dict, "validation": list}
    record = files.read_json(path, keys, fix)
    if not all(isinstance(name, str) for name in (*record["classes"].values(), *record["validation"])):
        raise DataError(f"{path}: damaged, names of classes or of validation images are no texts; {fix}")
    return record


def read_record(root: Path) -> dict[str, Any] | None:
    """Return what split.json holds, or None where there is none.

    Raises:
        DataError: it is damaged, or the split was interrupted.
    """
    record = load_record(root)
    if record is not None and not record["finished"]:
        raise DataError(f"{root}: its split was interrupted; run `whichcar split` again with the same arguments")
    return record


def _draw(root: Path, classes: Mapping[str, Sequence[str]], validation: float, seed: int) -> dict[str, Any]:
    """Draw the validation part of a tree that has none and write it down where that is allowed."""
    chosen = sorted(draw_share(classes, validation, seed)) if validation else []
    record = {
        "finished": True,
        "seed": seed,
        "validation_share": validation,
        "counts": {"train": sum(map(len, classes.values())), "validation": len(chosen)},
        "classes": {folder: folder for folder in classes},
        "sources": {"data": "the tree itself"},
        "problems": [],
        "validation": chosen,
    }
    if validation:
        with contextlib.suppress(OSError):
            files.write_json(root / RECORD, record)
    return record


def _check_share_agrees(root: Path, record: Mapping[str, Any], validation: float) -> None:
    recorded = record.get("validation_share")
    if recorded not in (None, validation):
        raise DataError(
            f"{root / RECORD}: {recorded} of train is set aside for validation, but {validation} is asked for; "
            f"set data.validation_split to {recorded}, or split into another folder with {validation}"
        )


def _locate(directory: Path) -> tuple[Path, Path]:
    """Return the folder split.json belongs to and the folder whose folders are the classes."""
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder; make it with `whichcar split DATA LABELS OUTPUT`")
    if (directory / "train").is_dir():
        return directory, directory / "train"
    if (directory / "car_ims").is_dir():
        raise DataError(
            f"{directory}: pictures not yet split; run `whichcar split {directory} LABELS OUTPUT`, use OUTPUT"
        )
    parent = directory.absolute().parent
    if directory.absolute().name == "train" and ((parent / RECORD).is_file() or (parent / "test").is_dir()):
        return parent, directory
    return directory, directory


def _divide(folder: Path, classes: Mapping[str, Sequence[str]], chosen: set[str]) -> tuple[list[Sample], list[Sample]]:
    """Return the samples to learn from and those held out, each in the order of classes and names."""
    train: list[Sample] = []
    held: list[Sample] = []
    for number, (class_folder, names) in enumerate(classes.items()):
        if chosen.issuperset(names):
            raise DataError(
                f"{folder / class_folder}: all its pictures are set aside for validation; add pictures, or split again"
            )
        for name in names:
            (held if name in chosen else train).append(Sample(folder / name, number))
    if chosen and not held:
        raise DataError(f"{folder}: none of the {len(chosen)} validation pictures in {RECORD} is there; split again")
    return train, held


def _test_part(folder: Path, numbers: Mapping[str, int]) -> list[Sample]:
    if not folder.is_dir() or not folders_of(folder):
        return []
    classes = pictures_by_class(folder)
    if unknown := [name for name in classes if name not in numbers]:
        raise DataError(f"{folder}: class {named(unknown)} is not in train; add it there or remove it")
    return [Sample(folder / name, numbers[of]) for of, names in classes.items() for name in names]
