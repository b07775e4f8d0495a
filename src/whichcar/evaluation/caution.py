"""Warnings about a result: images that training has seen, or that are cropped differently from its images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from whichcar.data.identity import in_common
from whichcar.environment import expanded
from whichcar.errors import CheckpointError, DataError
from whichcar.evaluation.eval_set import EvalSet, has_changed, trained_tree, tree_of
from whichcar.inference.bundle import read_bundle
from whichcar.inference.classifier import Classifier
from whichcar.records import Metadata, Sample
from whichcar.text import plural
from whichcar.training.run.checkpoint import read_metadata


def warnings_about(
    classifier: Classifier, members: Mapping[str, Classifier], eval_set: EvalSet, data: Path | None
) -> Iterator[str]:
    """Yield a sentence for each reason to treat the result with caution.

    Args:
        classifier: the evaluated classifier.
        members: the classifiers it is averaged with, by name.
        eval_set: the images that are evaluated.
        data: the folder given for the images, if any.
    """
    for name, network in {"": classifier, **members}.items():
        trained = trained_tree(data, network.metadata)
        start = f"{name}: " if name else ""
        if not name and eval_set.own and eval_set.split == "validation":
            yield (
                "there is no test split: these are the validation images on which the checkpoint was chosen, so the "
                "accuracy is optimistic; measure it with --data DIR on images that training has not seen"
            )
        else:
            used = _used(eval_set, classifier.class_names, trained, network.metadata, network.checkpoint)
            yield from (f"{start}{warning}" for warning in used)
            for path, before in _starts(network.metadata):
                used = _used(eval_set, classifier.class_names, trained_tree(data, before), before, path)
                yield from (f"{start}training started from {path}: {warning}" for warning in used)
        if framing := network.input_crop.disagreement(eval_set.samples[0].path):
            yield f"{name or Path(classifier.name).name}: {framing}"


def _starts(metadata: Metadata) -> Iterator[tuple[Path, Metadata]]:
    """Yield the checkpoint that a training started from, the one before it, and so on; for a bundle none."""
    seen: set[object] = {None, "imagenet"}
    with contextlib.suppress(CheckpointError, DataError):  # it is gone, or holds weights only
        while metadata.data_root and (weights := metadata.settings.get("model", {}).get("weights")) not in seen:
            seen.add(weights)
            path = expanded(weights)
            metadata = read_metadata(path)
            yield path, metadata


def _used(
    eval_set: EvalSet, class_names: Sequence[str], trained: Path | None, metadata: Metadata, checkpoint: Path
) -> tuple[str, ...]:
    """Return warnings about images that training has seen.

    Args:
        eval_set, class_names: the evaluated images, and the classes that they are numbered by.
        trained: the tree that training used, None if it is missing.
        metadata, checkpoint: those of the network.
    """
    if trained is None:
        return _unchecked(f"{metadata.data_root} is not there" if metadata.data_root else _of_bundle(checkpoint))
    try:
        tree = tree_of(trained, metadata)
    except DataError as error:
        return _unchecked(str(error))
    paths = [sample.path for sample in eval_set.samples]
    seen = in_common(paths, [sample.path for sample in tree.train])
    chosen = in_common(paths, [sample.path for sample in tree.validation])
    warnings = []
    if seen:
        warnings.append(
            f"{len(seen)} of {plural(len(paths), 'image')} are training images of this checkpoint (the same file or an "
            "identical copy), so the accuracy is too high; leave them out"
        )
    if chosen:
        warnings.append(
            f"{len(chosen)} of {plural(len(paths), 'image')} are validation images on which the checkpoint was chosen "
            "(the same file or an identical copy), so the accuracy is optimistic; leave them out"
        )
    names = {_name(sample, metadata.class_names) for sample in (*tree.train, *tree.validation)}
    # A name that is in the test split too says nothing, as where the images of each split are numbered from 1.
    names -= {_name(sample, metadata.class_names) for sample in tree.test}
    copies = {*seen, *chosen}
    others = [sample for sample in eval_set.samples if sample.path not in copies]
    if same := sum(_name(sample, class_names) in names for sample in others):
        warnings.append(
            f"{same} of {plural(len(paths), 'image')}: class and name are those of a training or validation image "
            "of this checkpoint; if it is the same photo in another form, such as not cropped, the accuracy is "
            "too high"
        )
    if has_changed(tree, metadata) and eval_set.fingerprint != metadata.fingerprints.get("test"):
        warnings += _unchecked(f"the training images of {tree.root} have changed since this training")
    return tuple(warnings)


def _name(sample: Sample, class_names: Sequence[str]) -> tuple[str, str]:
    """Return the class of an image, and its file's name without the ending, which cropping keeps."""
    return class_names[sample.class_index], sample.path.stem


def _of_bundle(path: Path) -> str:
    """Return the message that a bundle does not list its training images, with what its card says about them."""
    notes = [line.removeprefix("- ") for line in read_bundle(path).card.splitlines()]
    trained = next((note for note in notes if note.startswith("Trained on ")), "")
    said = f'; its card says "{trained}" If these are among them, the accuracy means nothing' if trained else ""
    return f"a bundle does not say which images it was trained on{said}"


def _unchecked(reason: str) -> tuple[str, ...]:
    return (f"whether training used any of these images could not be checked: {reason}",)
