"""Read a data folder as lists of samples for training, validation and test.

If `split` wrote a `split.json` there, it says which images in `train/` are the validation split. Class names are
compared in NFC, so that a tree from a Mac has the same classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whichcar import files
from whichcar.data.identity import fingerprint
from whichcar.data.labels import check_share, draw_share, images_by_class, named
from whichcar.data.split_names import TEST, TRAIN, VALIDATION, split_of
from whichcar.data.split_record import RECORD, read_record
from whichcar.data.structure import Structure, splits_in, structure_of
from whichcar.errors import DataError
from whichcar.records import Sample
from whichcar.text import as_text, nfc, plural, shell_command


@dataclass(frozen=True)
class Tree:
    """The images of a data folder; a sample's class_index refers to the sorted class folders, whose names are NFC.

    In `class_names`, bytes of a folder's name that are not UTF-8 are escaped. `drawn` are the validation images as
    paths relative to the training folder, if they were drawn because neither folders nor `split.json` define them; a
    training run has to remember them. `remarks` are lines about folders that are not used. `given_in` are the folder
    and the file that define the validation split.
    """

    root: Path
    class_folders: tuple[str, ...]
    class_names: tuple[str, ...]
    train: list[Sample]
    validation: list[Sample]
    test: list[Sample]
    drawn: frozenset[str] | None = None
    remarks: tuple[str, ...] = ()
    given_in: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line on the classes, the number of images in each split, and where the validation split comes from."""
        origin = f" (given in {' and '.join(self.given_in)})" if self.given_in else ""
        if self.drawn is not None:
            origin = f" (drawn from {plural(len(self.train) + len(self.validation), 'image')})"
        return (
            f"{self.root}: {plural(len(self.class_names), 'class')}: {named(self.class_names)}; "
            f"{len(self.train):,} training, {len(self.validation):,} validation{origin}, {len(self.test):,} test images"
        )

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests that identify the tree even if it is moved: of `train` (with validation), and of `test` if any."""
        parts = {"train": [*self.train, *self.validation], "test": self.test}
        return {name: fingerprint(samples) for name, samples in parts.items() if samples}


def read_tree(
    directory: str | Path,
    validation: float,
    seed: int,
    chosen: Collection[str] | None = None,
    train_on_validation: bool = False,
) -> Tree:
    """List the samples of a data folder; nothing is written.

    The validation split consists of the folder's `validation/` and the images that its `split.json` names. If there is
    neither, a share of train is drawn, which depends only on the names, the share and the seed.

    Args:
        directory: a folder with `train/` (and `validation/`, `test/`, by any name that `split_of` knows), such a
            `train/` itself, or a folder with one folder per class.
        validation: share of train to set aside; must agree with the recorded one. 0 sets nothing aside, whatever is
            recorded, except images that the labels or folders themselves assign to validation.
        seed: random seed of the draw.
        chosen: the images that an earlier call drew (`Tree.drawn`), used instead of drawing again.
        train_on_validation: append the validation images to the training images, leaving none for validation.

    Raises:
        DataError: there are fewer than two classes, an empty class, or a held-out class that train lacks, or the split
            or the crop is unfinished, or the split has another share.
    """
    check_share(validation, "data.validation_split")
    structure = locate(Path(directory))
    folder, root = _train_folder(structure), structure.root
    classes = images_by_class(folder)
    if len(classes) < 2:
        raise DataError(f"{folder}: one class only, {next(iter(classes))!r}; a classifier needs at least two")
    numbers = {name: number for number, name in enumerate(classes)}
    given = _held_out(structure, VALIDATION, numbers)
    record, drawn = read_record(root), None
    held: Collection[str] = ()
    if record is not None:
        if validation:
            _check_share_agrees(root, record, validation)
        if validation or record.get("validation_share") is None:
            held = {nfc(name) for name in record["validation"]}
    elif validation and not given:
        held = drawn = frozenset(map(nfc, draw_share(classes, validation, seed) if chosen is None else chosen))
    train, of_train = _divide(folder, classes, held)
    of_validation = [*of_train, *given]
    if train_on_validation:
        train, of_validation, drawn = [*train, *of_validation], [], None
    true_names = {nfc(name): true_name for name, true_name in (record["classes"] if record else {}).items()}
    return Tree(
        root=root,
        class_folders=tuple(classes),
        class_names=tuple(as_text(nfc(true_names.get(name, name))) for name in classes),
        train=train,
        validation=of_validation,
        test=_held_out(structure, TEST, numbers),
        drawn=drawn,
        remarks=tuple(structure.remarks),
        given_in=(
            *([RECORD] if of_train and of_validation and drawn is None else []),
            *([f"{structure.splits[VALIDATION].name}/"] if given and of_validation else []),
        ),
    )


def unopened(images: Iterable[Path]) -> int:
    """Return the number of files next to these images that are in an unsupported image format, such as HEIC."""
    folders = {path.parent for path in images}
    return sum(
        files.is_visible(path.name) and files.is_unopened(path) for folder in folders for path in folder.iterdir()
    )


def locate(directory: Path) -> Structure:
    """Return the layout of a data folder; for a training folder, that of the folder with its other splits too.

    Raises:
        DataError: the folder is missing, its images have not been split yet or not all cropped, or its layout
            is ambiguous.
    """
    if not directory.is_dir():
        where = "" if directory.is_absolute() else f" in {Path.cwd()}; run the command where it is, or link it there"
        raise DataError(
            f"{directory}: no such folder{where}; a new one is made with `whichcar split DATA [LABELS] OUTPUT`"
        )
    here = directory.absolute()
    if split_of(here.name) == TRAIN and not any(split_of(entry.name) == TRAIN for entry in files.folders(here)):
        names = {split_of(entry.name) for entry in files.folders(here.parent)} - {None}
        if (here.parent / RECORD).is_file() or len(names) > 1:
            return splits_in(here.parent)
    structure = structure_of(directory)
    if (directory / "car_ims").is_dir() and (structure.root != directory or not structure.splits):
        command = shell_command(["whichcar", "split", directory])
        raise DataError(f"{directory}: images not yet split; run {command} LABELS OUTPUT, and use OUTPUT")
    return structure


def check_outside(folder: Path, directory: Path) -> None:
    """Check that a folder to be written does not lie where its images would be taken for those of one more class.

    Raises:
        DataError: it does, or the layout of the dataset is ambiguous.
    """
    place = folder.resolve()
    if not place.is_relative_to(directory.resolve()):
        return
    structure = locate(directory)
    splits = structure.splits.values() if place.is_relative_to(structure.root.resolve()) else ()
    # Next to a single split, and next to the only folder of a wrapper, a folder with images changes the layout.
    for classes in splits if len(splits) > 1 else [directory]:
        classes_at = classes.resolve()
        if place.is_relative_to(classes_at) and all(map(files.is_visible, place.relative_to(classes_at).parts)):
            raise DataError(
                f"{folder}: lies in {classes}, where it would be taken for a class; choose a folder outside, or run "
                "the command in another one"
            )


def _train_folder(structure: Structure) -> Path:
    """Return the folder that contains the class folders of the training split."""
    if not structure.splits:
        return structure.root
    folder = structure.splits.get(TRAIN)
    if folder is None:
        splits = ", ".join(f"{path.name}/" for path in structure.splits.values())
        raise DataError(f"{structure.root}: no training split, only {splits}; add train/ with one folder per class")
    if folder in structure.unlabelled:
        raise DataError(f"{folder}: images in no class folder; sort them into one folder per class")
    return folder


def _check_share_agrees(root: Path, record: Mapping[str, Any], validation: float) -> None:
    recorded = record.get("validation_share")
    if recorded not in (None, validation):
        raise DataError(
            f"{root / RECORD}: {recorded} of train is set aside for validation, but {validation} is asked for; "
            f"set data.validation_split to {recorded}, or split into another folder with {validation}"
        )


def _divide(
    folder: Path, classes: Mapping[str, Sequence[str]], chosen: Collection[str]
) -> tuple[list[Sample], list[Sample]]:
    """Return the training samples and the held-out samples, each in the order of classes and names."""
    train: list[Sample] = []
    held: list[Sample] = []
    for number, (class_name, names) in enumerate(classes.items()):
        inside = [nfc(name) in chosen for name in names]
        if all(inside):
            raise DataError(
                f"{folder / class_name}: all its images are set aside for validation; add images, or split again"
            )
        for name, is_held in zip(names, inside, strict=True):
            (held if is_held else train).append(Sample(folder / name, number))
    if chosen and not held:
        raise DataError(
            f"{folder}: none of its {plural(len(chosen), 'validation image')} is there any more; "
            "put them back, or split and train again"
        )
    return train, held


def _held_out(structure: Structure, split: str, numbers: Mapping[str, int]) -> list[Sample]:
    """Return the samples of a validation or test folder; classes may be missing there."""
    folder = structure.splits.get(split)
    if folder is None or folder in structure.unlabelled:
        return []
    classes = images_by_class(folder, empty=True)
    if unknown := [name for name in classes if name not in numbers]:
        raise DataError(
            f"{folder}: {plural(len(unknown), 'class')} that {_train_folder(structure)} lacks: {named(unknown)}; "
            "add training images of each, or remove its folder here"
        )
    return [Sample(folder / name, numbers[of]) for of, names in classes.items() for name in names]
