"""The images that are evaluated: a split of a tree, its classes matched by name with those of the checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from whichcar.data.identity import fingerprint
from whichcar.data.labels import folders_of, named, renamed
from whichcar.data.split.tree import Tree, locate, read_tree
from whichcar.data.split_names import SPLITS, TEST, TRAIN, VALIDATION, split_of
from whichcar.data.structure import structure_of
from whichcar.errors import DataError
from whichcar.files import images
from whichcar.records import Metadata, Sample
from whichcar.text import file_name, listed, nfc, plural


@dataclass(frozen=True, slots=True)
class EvalSet:
    """Images with their labels; `split` is `test`, `validation`, `train`, or `images` for any other folder.

    `own` is true for the test or validation split of the tree that the checkpoint was trained on; `trained` is that
    tree, None where it is gone.
    """

    root: Path
    split: str
    samples: tuple[Sample, ...]
    own: bool = False
    trained: Path | None = None

    @property
    def fingerprint(self) -> str:
        """The digest that is the same for these images elsewhere (`data.identity.fingerprint`)."""
        return fingerprint(self.samples)

    @property
    def folder_name(self) -> str:
        """A name for a folder of results: readable, and another one for every folder of images."""
        if self.own:
            return self.split
        place = self.root.resolve()
        names = [place.name, *([self.split] if self.split in SPLITS else [])]
        return file_name("-".join(names), of=str(place / self.split))


def choose_eval_set(data: Path | None, metadata: Metadata) -> EvalSet:
    """Return the images that an evaluation is about.

    Args:
        data: what `labelled` takes; None, or the tree the checkpoint was trained on, stands for what `held_out` gives.
        metadata: the checkpoint's.

    Raises:
        DataError: the images are missing, or their classes are not the checkpoint's.
    """
    trained = trained_tree(data, metadata)
    if data is None or (trained is not None and data.resolve() == trained.resolve()):
        if trained is None:
            gone = f"{metadata.data_root}: the folder this experiment was trained on is not there; name it"
            advice = gone if metadata.data_root else "a bundle does not say where its data are; name a folder of images"
            raise DataError(f"{advice} with --data DIR")
        return replace(held_out(trained, metadata), trained=trained)
    eval_set = labelled(data, metadata)
    own = eval_set.split == "test" and trained is not None and eval_set.root.resolve() == locate(trained).root.resolve()
    return replace(eval_set, own=own, trained=trained)


def trained_tree(data: Path | None, metadata: Metadata) -> Path | None:
    """Return the tree the checkpoint was trained on: where it was, or else `data` if that is the same tree, moved."""
    if metadata.data_root and Path(metadata.data_root).is_dir():
        return Path(metadata.data_root)
    return None if data is None else _moved_tree(data, metadata)


def named_tree(data: Path | None, metadata: Metadata) -> Path | None:
    """Return the tree the checkpoint was trained on: `data`, None if that is another one; by default where it was."""
    trained = trained_tree(None, metadata)
    if data is None or (trained is not None and data.resolve() == trained.resolve()):
        return trained
    return _moved_tree(data, metadata)


def _moved_tree(data: Path, metadata: Metadata) -> Path | None:
    """Return `data`, or the tree that it is a split of, if that is the tree the checkpoint was trained on.

    It is recognised by the fingerprint of its test images, or of its training images where it has no test.
    """
    if not data.is_dir():
        return None
    above = [data.resolve().parent] if split_of(data.resolve().name) else []
    return next((root for root in (data, *above) if _is_moved(root, metadata)), None)


def is_trained_tree(data: Path, metadata: Metadata) -> bool:
    """True when `data` is the tree the checkpoint was trained on, also where it was moved."""
    trained = trained_tree(data, metadata)
    return trained is not None and trained.resolve() == data.resolve()


def _is_moved(root: Path, metadata: Metadata) -> bool:
    # What cannot be read as such a tree is not that tree; its errors are reported when it is read as other images.
    with contextlib.suppress(DataError):
        eval_set = labelled(root, metadata)
        if eval_set.split == "test" and eval_set.root.resolve() == root.resolve():
            return eval_set.fingerprint == metadata.fingerprints.get("test")
    with contextlib.suppress(DataError, KeyError):  # also without the settings that a tree is read with
        known = metadata.fingerprints.get("train")
        return known is not None and tree_of(root, metadata).fingerprints["train"] == known
    return False


def tree_of(root: Path, metadata: Metadata, join: bool = True) -> Tree:
    """Return a tree as the checkpoint's training read it; without `join`, its validation images stay apart.

    Raises:
        DataError: it cannot be read so, or its classes are not the checkpoint's.
    """
    seed, data = metadata.settings["seed"], metadata.settings["data"]
    joins = join and data.get("train_on_validation", False)
    tree = read_tree(root, data["validation_split"], seed, metadata.validation, joins)
    known = tuple(map(nfc, metadata.class_folders))
    if tree.class_folders != known:
        raise _disagreeing(root, known, tree.class_folders)
    return tree


def held_out(root: Path, metadata: Metadata) -> EvalSet:
    """Return the held-out images of an experiment: `test/` of its tree, or the validation split where there is none.

    Args:
        root: the tree it was trained on.
        metadata: the checkpoint's.

    Raises:
        DataError: its classes are not the checkpoint's.
    """
    structure = locate(root)
    test = structure.splits.get(TEST)
    if test is not None and test not in structure.unlabelled:
        return replace(labelled(test, metadata), own=True)
    tree = tree_of(root, metadata)
    if not tree.validation:
        raise DataError(f"{tree.root}: no image that the experiment was not trained on; give others with --data DIR")
    return EvalSet(tree.root, "validation", tuple(tree.validation), own=True)


def labelled(directory: Path, metadata: Metadata) -> EvalSet:
    """Return the images of a tree's `test/`, or of a folder with one folder per class; classes may be missing.

    Of a tree without a test split it is the validation split, else the training split.

    Args:
        directory: its class folders are named as those trained on, or as the classes themselves.
        metadata: the checkpoint's.

    Raises:
        DataError: no such folder, no image, or a class folder that the checkpoint does not know.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder; give a tree with test/, or a folder with one folder per class")
    numbers = {nfc(name): number for number, name in enumerate(metadata.class_names)}
    numbers |= {nfc(folder): number for number, folder in enumerate(metadata.class_folders)}
    base = directory
    if not all(nfc(folder.name) in numbers for folder in folders_of(directory)):
        structure = structure_of(directory)
        base = next(
            (structure.splits[split] for split in (TEST, VALIDATION, TRAIN) if split in structure.splits),
            structure.root,
        )
    base = base.resolve() if base.name in ("", "..") else base  # `.` may be a folder called test
    classes = folders_of(base)
    if any(nfc(folder.name) not in numbers for folder in classes):
        raise _unknown(base, [name for folder in classes if (name := nfc(folder.name)) not in numbers], numbers)
    samples = [Sample(path, numbers[nfc(folder.name)]) for folder in classes for path in images(folder)]
    if not samples:
        raise DataError(f"{base}: no images in class folders; it must hold one folder per class, named as the classes")
    split = split_of(base.name)
    return EvalSet(base.parent, split, tuple(samples)) if split else EvalSet(base, "images", tuple(samples))


def _unknown(where: Path, found: Sequence[str], known: Iterable[str]) -> DataError:
    """Return the error of folders that are named as no class, with the class of which one is another spelling."""
    spelt = {_letters(name): name for name in known}
    near = [f"{name!r} to {spelt[key]!r}" for name in found if (key := _letters(name)) in spelt]
    others = "rename or remove what is no class, or evaluate a model trained on these classes"
    return DataError(
        f"{where}: {plural(len(found), 'folder is', 'folders are')} named as no class of the model: {named(found)}; "
        f"{f'rename {listed(near)}' if near else others}"
    )


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, nfc(name))).casefold()


def _disagreeing(where: Path, known: Sequence[str], found: Sequence[str]) -> DataError:
    return DataError(
        f"{where}: the class folders are not those that the checkpoint was trained on ({renamed(known, found)}); "
        "rename or remove those that are new, or take an experiment trained on these classes"
    )
