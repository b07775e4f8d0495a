"""The evaluated images: a split of a tree, with its classes matched by name to those of the checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from whichcar.data.identity import fingerprint
from whichcar.data.labels import folders_of, named, renamed
from whichcar.data.split.tree import Tree, locate, read_tree
from whichcar.data.split_names import SPLITS, TEST, TRAIN, VALIDATION, split_of
from whichcar.data.structure import check_cropped, structure_of
from whichcar.errors import DataError
from whichcar.files import images
from whichcar.records import Metadata, Sample
from whichcar.text import file_name, listed, nfc, plural


@dataclass(frozen=True, slots=True)
class EvalSet:
    """Images with their labels; `split` is `test`, `validation`, `train`, or `images` for any other folder.

    `own` is true for the test or validation split of the tree that the checkpoint was trained on; `trained` is that
    tree, None if it is missing.
    """

    root: Path
    split: str
    samples: tuple[Sample, ...]
    own: bool = False
    trained: Path | None = None

    @property
    def fingerprint(self) -> str:
        """Digest of the images that does not depend on where they are stored (`data.identity.fingerprint`)."""
        return fingerprint(self.samples)

    @property
    def folder_name(self) -> str:
        """Readable name for a folder of results, different for every folder of images."""
        if self.own:
            return self.split
        place = self.root.resolve()
        names = [place.name, *([self.split] if self.split in SPLITS else [])]
        return file_name("-".join(names), of=str(place / self.split))


def choose_eval_set(data: Path | None, metadata: Metadata) -> EvalSet:
    """Return the images to evaluate.

    Args:
        data: a folder, as for `labelled`; None, or the tree the checkpoint was trained on, selects those of `held_out`.
        metadata: metadata of the checkpoint.

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
    """Return the tree the checkpoint was trained on: at its recorded path, or else `data` if it was moved there."""
    if metadata.data_root and Path(metadata.data_root).is_dir():
        return Path(metadata.data_root)
    return None if data is None else _moved_tree(data, metadata)


def named_tree(data: Path | None, metadata: Metadata) -> Path | None:
    """Return the tree the checkpoint was trained on: `data`, None if that is another; by default the recorded path."""
    trained = trained_tree(None, metadata)
    if data is None or (trained is not None and data.resolve() == trained.resolve()):
        return trained
    return _moved_tree(data, metadata)


def _moved_tree(data: Path, metadata: Metadata) -> Path | None:
    """Return `data`, or the tree that it is a split of, if the checkpoint was trained on that tree.

    The tree is recognised by the fingerprint of its test images, or of its training images if it has no test split.
    """
    if not data.is_dir():
        return None
    above = [data.resolve().parent] if split_of(data.resolve().name) else []
    return next((root for root in (data, *above) if _is_moved(root, metadata)), None)


def is_trained_tree(data: Path, metadata: Metadata) -> bool:
    """Return True if `data` is the tree the checkpoint was trained on, even if it was moved."""
    trained = trained_tree(data, metadata)
    return trained is not None and trained.resolve() == data.resolve()


def _is_moved(root: Path, metadata: Metadata) -> bool:
    # A folder that cannot be read as that tree is another one; errors are reported when it is read as other images.
    with contextlib.suppress(DataError):
        eval_set = labelled(root, metadata)
        if eval_set.split == "test" and eval_set.root.resolve() == root.resolve():
            return eval_set.fingerprint == metadata.fingerprints.get("test")
    with contextlib.suppress(DataError, KeyError):  # KeyError: no settings for reading a tree
        known = metadata.fingerprints.get("train")
        return known is not None and tree_of(root, metadata).fingerprints["train"] == known
    return False


def tree_of(root: Path, metadata: Metadata, join: bool = True) -> Tree:
    """Return a tree as the checkpoint's training read it; without `join`, its validation images are kept separate.

    Raises:
        DataError: the tree cannot be read, or its classes are not the checkpoint's.
    """
    seed, data = metadata.settings["seed"], metadata.settings["data"]
    joins = join and data.get("train_on_validation", False)
    tree = read_tree(root, data["validation_split"], seed, metadata.validation, joins)
    known = tuple(map(nfc, metadata.class_folders))
    if tree.class_folders != known:
        raise _disagreeing(root, known, tree.class_folders)
    return tree


def has_changed(tree: Tree, metadata: Metadata) -> bool:
    """Return True if a tree's training and validation images are not those of the checkpoint's training."""
    return metadata.fingerprints.get("train") not in (None, tree.fingerprints["train"])


def held_out(root: Path, metadata: Metadata) -> EvalSet:
    """Return the held-out images of an experiment: `test/` of its tree, or the validation split if there is none.

    Args:
        root: the tree the experiment was trained on.
        metadata: metadata of the checkpoint.

    Raises:
        DataError: the classes are not the checkpoint's, or no image was held out.
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

    A tree without a test split is represented by its validation split, or else its training split.

    Args:
        directory: its class folders are named like those used in training, or like the classes themselves.
        metadata: metadata of the checkpoint.

    Raises:
        DataError: the folder is missing, has no images, has a class folder that is unknown to the checkpoint, or holds
            the images of an interrupted crop.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder; give a tree with test/, or a folder with one folder per class")
    check_cropped(directory)
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
    """Return the error for folders that match no class, with a suggestion for those that are spelled differently."""
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
