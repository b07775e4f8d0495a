"""Checks that the readable images of a data folder suffice for training and validation."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from whichcar.data.split.tree import Tree
from whichcar.errors import DataError
from whichcar.records import Sample, Skipped
from whichcar.text import listed, one_line, plural, shell_command

log = logging.getLogger(__name__)


def check_usable(tree: Tree, skipped: Sequence[Skipped], validation_split: float) -> None:
    """Log unreadable images, and check that each class can be trained on and that validation is possible.

    Args:
        skipped: the images of train and validation that cannot be read.
        validation_split: share of train set aside for validation; if 0, no validation image is required.

    Raises:
        DataError: a class is without a readable training image, or there is no readable validation image.
    """
    reasons = {Path(image.path): image.reason for image in skipped}
    train, validation = (_by_class(tree, samples, reasons) for samples in (tree.train, tree.validation))
    empty = [number for number, count in enumerate(train) if not count]
    if empty:
        raise DataError(_no_training_image(tree, empty, reasons))
    if validation_split and not sum(validation):
        raise DataError(_no_validation_image(tree, reasons))
    if skipped:
        lost = Counter(tree.class_names[s.class_index] for s in (*tree.train, *tree.validation) if s.path in reasons)
        log.warning(
            "%d of %s cannot be read and are left out: %s; for example %s",
            len(skipped),
            plural(len(tree.train) + len(tree.validation), "image"),
            listed([f"{count} of {name}" for name, count in lost.most_common()]),
            one_line(skipped[0].reason),
        )
    without = [tree.class_names[number] for number, count in enumerate(validation) if not count]
    if without and sum(validation):
        log.warning(
            "%d of %s have no validation image: %s", len(without), plural(len(validation), "class"), listed(without)
        )


def _by_class(tree: Tree, samples: Sequence[Sample], unreadable: dict[Path, str]) -> list[int]:
    """Count the readable images of each class."""
    counts = Counter(sample.class_index for sample in samples if sample.path not in unreadable)
    return [counts[number] for number in range(len(tree.class_folders))]


def _no_training_image(tree: Tree, empty: Sequence[int], reasons: dict[Path, str]) -> str:
    totals = Counter(sample.class_index for sample in tree.train)
    classes = [f"{tree.class_names[number]} (0 of {totals[number]})" for number in empty]
    first = next(reasons[s.path] for s in tree.train if s.class_index == empty[0] and s.path in reasons)
    return (
        f"{tree.root}: {plural(len(empty), 'class')} without a readable training image: {listed(classes)}; "
        f"for example {one_line(first)}; replace the files or remove the class; "
        f"all of them: {shell_command(['whichcar', 'check', tree.root])}"
    )


def _no_validation_image(tree: Tree, reasons: dict[Path, str]) -> str:
    lost = [reasons[sample.path] for sample in tree.validation if sample.path in reasons]
    why = f"none of {len(lost)} can be read, for example {one_line(lost[0])}" if lost else "each class has too few"
    return (
        f"{tree.root}: no validation image: {why}; add images, or write data.validation_split: 0 to train on all of "
        "them and choose by the training loss"
    )
