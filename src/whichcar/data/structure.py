"""How the images under a folder are laid out: divided into splits, one folder per class, or images only.

Names alone do not tell: `train` may be a split or a class of vehicles. A split holds class folders, a class images.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whichcar import files
from whichcar.data.split_names import SPLITS, split_of
from whichcar.errors import DataError


@dataclass(frozen=True)
class Structure:
    """What `root` holds: the folders of its splits, or else one folder per class, or images only.

    `splits` maps `train`, `validation` and `test`, as far as they are there, to their folders, and is empty where the
    folders are classes. `unlabelled` are splits whose images lie in no class folder, `left_out` are folders with images
    next to the splits.
    """

    root: Path
    splits: dict[str, Path] = field(default_factory=dict)
    unlabelled: tuple[Path, ...] = ()
    left_out: tuple[Path, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """One line for each folder whose images have no class."""
        return [
            *(
                f"{folder}: images in no class folder; they have no class and are not used"
                for folder in self.unlabelled
            ),
            *(f"{folder}: none of {', '.join(SPLITS)}; its images are not used" for folder in self.left_out),
        ]


def structure_of(folder: Path) -> Structure:
    """Return how a folder is laid out; one that only wraps another is replaced by that.

    Raises:
        DataError: two folders are the same split, it is ambiguous whether a folder is a split or a class, or one may
            not be listed.
    """
    try:
        return _structure(_unwrapped(folder))
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot be listed ({error.strerror}); give a folder of images"
        ) from error


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
    """Take the folders in `root` that are named as splits and hold images for its splits, without any doubt.

    Raises:
        DataError: two folders are the same split.
    """
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
    """What lies in a folder: whether images do so directly, and the folders in it that hold some."""

    direct: bool
    classes: frozenset[str]

    @property
    def like_split(self) -> bool:
        """One inner folder next to images is part of a class."""
        return len(self.classes) > 1 or bool(self.classes and not self.direct)


def _is_divided(root: Path, contents: dict[Path, _Content], named: Sequence[Path], others: Sequence[Path]) -> bool:
    """Decide whether folders named as splits are splits (True) or classes.

    Raises:
        DataError: both can be meant.
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
    if any(classes & rival for rival in rivals):  # another split under a name of its own
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
    """Return the folder itself, or that of several class or split folders which all its images lie in."""
    inside = folder
    while filled := list(itertools.islice(_filled(inside), 2)):
        if len(filled) > 1 or split_of(filled[0].name):
            return inside
        inside = filled[0]
    return folder


def _filled(folder: Path) -> Iterator[Path]:
    """Yield the folders in it that hold images, none where images lie in it directly."""
    if not _has_images(folder):
        yield from (entry for entry in files.folders(folder) if any(files.walk_images(entry)))


def _contents(root: Path) -> dict[Path, _Content]:
    """Return what lies in each folder of `root` that holds images."""
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
