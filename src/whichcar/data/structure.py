"""Detect the layout of the images in a folder: divided into splits, one folder per class, or images only.

Names alone are not enough, since `train` may be a split or a class of vehicles: a split contains class folders, a class
contains images.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whichcar import files
from whichcar.data.split_names import SPLITS, split_of
from whichcar.data.split_record import RECORD
from whichcar.errors import DataError
from whichcar.text import listed


@dataclass(frozen=True)
class Structure:
    """The layout of `root`: split folders, or else one folder per class, or images only.

    `splits` maps those of `train`, `validation` and `test` that exist to their folders; it is empty if the folders are
    classes. `unlabelled` are splits whose images lie in no class folder; `left_out` are folders with images next to
    the splits.
    """

    root: Path
    splits: dict[str, Path] = field(default_factory=dict)
    unlabelled: tuple[Path, ...] = ()
    left_out: tuple[Path, ...] = ()

    @property
    def has_classes_in_splits(self) -> bool:
        """Whether a split contains class folders, so that a label file is not needed."""
        return len(self.splits) > len(self.unlabelled)

    @property
    def remarks(self) -> list[str]:
        """One line for each folder whose images are not used."""
        return [
            *(
                f"{folder}: images in no class folder; they have no class and are not used"
                for folder in self.unlabelled
            ),
            *(f"{folder}: none of {', '.join(SPLITS)}; its images are not used" for folder in self.left_out),
        ]


def structure_of(folder: Path) -> Structure:
    """Return the layout of a folder, or of a folder inside it if the outer one is only a wrapper.

    Raises:
        DataError: two folders stand for the same split, a folder may be either a split or a class, the folders are
            several datasets, a folder cannot be listed, or the images were not all cropped.
    """
    try:
        root = _unwrapped(folder)
        check_cropped(root)
        structure = _structure(root)
        if not structure.splits:
            _check_classes(root)
        return structure
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot be listed ({error.strerror}); give a folder of images"
        ) from error


def cropped_above(folder: Path) -> Path | None:
    """Return the nearest of a folder and its parents that `whichcar crop` wrote to, or None."""
    places = (folder, *folder.absolute().parents)
    # False for a folder without access, for which Path raises
    return next((place for place in places if os.path.isfile(place / files.CROP_RECORD)), None)  # noqa: PTH113


def check_cropped(folder: Path) -> None:
    """Check that no interrupted `whichcar crop` left this folder, or a parent of it, with only some of its images.

    Raises:
        DataError: one did.
    """
    above = cropped_above(folder)
    if above is None:
        return
    try:
        finished = files.read_json(above / files.CROP_RECORD, {"finished": bool})["finished"]
    except DataError:  # damaged, or of another program
        return
    if not finished:
        raise DataError(f"{above}: its crop was interrupted; run `whichcar crop` again with the same arguments")


def _check_classes(root: Path) -> None:
    """Check that the folders of `root` are not datasets of their own, which would be taken for classes.

    Raises:
        DataError: all of them are.
    """
    datasets = list(_filled(root))
    if len(datasets) > 1 and all(map(_is_dataset, datasets)):
        raise DataError(f"{root}: its folders are datasets, not classes; name one: {listed(list(map(str, datasets)))}")


def _is_dataset(folder: Path) -> bool:
    """Return whether `split` or `crop` wrote the class folders in a folder, or they are divided into splits."""
    if _has_images(folder):  # as in a class folder
        return False
    splits = {split_of(entry.name) for entry, content in _contents(folder).items() if not content.direct} - {None}
    return len(splits) > 1 or any((folder / name).is_file() for name in (RECORD, files.CROP_RECORD))


def _structure(root: Path) -> Structure:
    if not any(split_of(entry.name) for entry in files.folders(root)):
        return Structure(root)
    contents = _contents(root)
    named = [entry for entry in contents if split_of(entry.name)]
    others = [entry for entry in contents if entry not in named]
    if not named or not _is_divided(root, contents, named, others):
        return Structure(root)
    return _with_splits(root, contents)


def splits_in(root: Path) -> Structure:
    """Return the layout of `root`, in which every folder with images and the name of a split is one.

    Raises:
        DataError: two folders are the same split, or the images were not all cropped.
    """
    check_cropped(root)
    return _with_splits(root, _contents(root))


def _with_splits(root: Path, contents: dict[Path, _Content]) -> Structure:
    splits: dict[str, Path] = {}
    for entry in contents:
        if (split := split_of(entry.name)) in splits:
            raise DataError(f"{root}: {splits[split].name}/ and {entry.name}/ are both the {split} split; keep one")
        if split:
            splits[split] = entry
    return Structure(
        root,
        {name: splits[name] for name in SPLITS if name in splits},
        tuple(entry for entry in splits.values() if not contents[entry].classes),
        tuple(entry for entry in contents if not split_of(entry.name)),
    )


@dataclass(frozen=True, slots=True)
class _Content:
    """The content of a folder: whether images lie in it directly, and which of its folders contain images."""

    direct: bool
    classes: frozenset[str]

    @property
    def like_split(self) -> bool:
        """Whether the folder looks like a split; a single inner folder next to images is part of a class."""
        return len(self.classes) > 1 or bool(self.classes and not self.direct)


def _is_divided(root: Path, contents: dict[Path, _Content], named: Sequence[Path], others: Sequence[Path]) -> bool:
    """Return True if folders named like splits are splits, and False if they are classes.

    Raises:
        DataError: both are possible.
    """
    deep = [entry for entry in named if contents[entry].like_split]
    if not others or len(deep) > 1:
        return True
    if not deep and len(named) == 1:
        return False
    if not deep:
        raise _ambiguous(root, named, others)
    if len(named) > 1:  # the other one holds images only, as a test split without labels does
        return True
    classes = contents[deep[0]].classes
    rivals = [contents[entry].classes for entry in others if contents[entry].like_split]
    if any(classes & rival for rival in rivals):  # another split, with a name that is not known
        return True
    if len(rivals) == len(others) or len(classes) == 1:
        return False
    if len(others) > 1 or rivals:
        raise _ambiguous(root, named, others)
    return True


def _ambiguous(root: Path, named: Sequence[Path], others: Sequence[Path]) -> DataError:
    splits, classes = (
        f"{', '.join(f'{entry.name}/' for entry in some[:3])}{' and others' if len(some) > 3 else ''}"
        for some in (named, others)
    )
    return DataError(
        f"{root}: {splits} may be meant as a split or as a class in addition to {classes}; "
        "move what does not belong there elsewhere, or rename it"
    )


def _unwrapped(folder: Path) -> Path:
    """Return the folder itself, or a folder inside it whose class or split folders contain all its images."""
    inside = folder
    while filled := list(itertools.islice(_filled(inside), 2)):
        if len(filled) > 1 or split_of(filled[0].name):
            return inside
        inside = filled[0]
    return folder


def _filled(folder: Path) -> Iterator[Path]:
    """Yield the subfolders that contain images; none if images lie in the folder directly."""
    if not _has_images(folder):
        yield from (entry for entry in files.folders(folder) if any(files.walk_images(entry)))


def _contents(root: Path) -> dict[Path, _Content]:
    """Return the content of each folder in `root` that contains images."""
    contents = {}
    for folder in files.folders(root):
        inner = frozenset(entry.name for entry in files.folders(folder) if any(files.walk_images(entry)))
        if (direct := _has_images(folder)) or inner:
            contents[folder] = _Content(direct, inner)
    return contents


def _has_images(folder: Path) -> bool:
    return any(
        files.is_visible(entry.name) and files.is_image(entry) and not entry.is_dir() for entry in folder.iterdir()
    )
