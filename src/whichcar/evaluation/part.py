"""Which pictures are evaluated: the test part of a tree, matched by name with the classes the checkpoint knows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whichcar.data.tree import read_tree
from whichcar.errors import DataError
from whichcar.files import folders, images
from whichcar.records import Sample
from whichcar.training.checkpoint import Metadata


@dataclass(frozen=True, slots=True)
class Part:
    """Pictures with their true classes; `name` is `test`, `validation`, `train`, or `pictures` for any other folder."""

    root: Path
    name: str
    samples: tuple[Sample, ...]

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that are the same for the same files (by class folder, name and size) elsewhere."""
        files = [(sample.path, sample.path.stat().st_size) for sample in self.samples if sample.path.is_file()]
        lines = sorted(f"{path.parent.name}/{path.name}\t{size}" for path, size in files)
        return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def is_same_tree(data: Path, recorded: Path) -> bool:
    """True when `data` is the tree an experiment was trained on, or, where that is gone, a tree that can be it."""
    return data.resolve() == recorded.resolve() or (not recorded.is_dir() and (data / "test").is_dir())


def held_out(root: Path, metadata: Metadata) -> Part:
    """Return what the experiment did not learn from: `test/` of its tree, or the validation part where there is none.

    Args:
        root: the tree it was trained on.
        metadata: the checkpoint's.

    Raises:
        DataError: the tree is gone, or its classes are not the checkpoint's.
    """
    if not root.is_dir():
        raise DataError(f"{root}: the folder this experiment was trained on is not there; name it with --data DIR")
    base = root.absolute().parent if root.absolute().name == "train" and not (root / "test").is_dir() else root
    if (base / "test").is_dir() and folders(base / "test"):
        return labelled(base, metadata)
    tree = read_tree(root, metadata.settings["data"]["validation_split"], metadata.settings["seed"])
    if tree.class_folders != metadata.class_folders:
        raise _disagreeing(root, sorted(set(tree.class_folders) ^ set(metadata.class_folders)))
    return Part(tree.root, "validation", tuple(tree.validation))


def labelled(directory: Path, metadata: Metadata) -> Part:
    """Return the pictures of a tree's `test/`, or of a folder with one folder a class; classes may be missing.

    Args:
        directory: its class folders are named as those trained on, or as the classes themselves.
        metadata: the checkpoint's.

    Raises:
        DataError: no such folder, no picture, or a class folder that the checkpoint does not know.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder; give a tree with test/, or a folder with one folder a class")
    base = directory / "test" if (directory / "test").is_dir() else directory
    numbers = {name: number for number, name in enumerate(metadata.class_names)}
    numbers |= {folder: number for number, folder in enumerate(metadata.class_folders)}
    if unknown := [folder.name for folder in folders(base) if folder.name not in numbers]:
        raise _disagreeing(base, unknown)
    samples = [Sample(path, numbers[folder.name]) for folder in folders(base) for path in images(folder)]
    if not samples:
        raise DataError(f"{base}: no pictures in class folders; it must hold one folder a class, named as the classes")
    if base.name in ("test", "train"):
        return Part(base.parent, base.name, tuple(samples))
    return Part(base, "pictures", tuple(samples))


def _disagreeing(where: Path, names: Sequence[str]) -> DataError:
    shown = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return DataError(
        f"{where}: the checkpoint and this folder disagree about class {shown}; "
        "rename or remove what it does not know, or evaluate an experiment trained on these classes"
    )
