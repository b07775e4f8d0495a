"""The images that an export needs: to verify the network, and to calibrate int8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whichcar.data.split_names import TRAIN, VALIDATION
from whichcar.errors import DataError
from whichcar.evaluation.eval_set import named_tree, tree_of
from whichcar.images.inputs import each
from whichcar.images.pixels import Pixels
from whichcar.inference.stream import decoded
from whichcar.records import Metadata, Sample, Skipped

BATCH = 16  # images per batch
CALIBRATING = 200  # training images for int8
VERIFYING = 512  # verification images, if the network was trained on all of them
NOISE = "noise"


@dataclass(frozen=True, slots=True)
class ExportImages:
    """The images that verify an export, and training images for its calibration.

    `split` is `validation`, `train` if the experiment has no validation images, or `noise` if its dataset is missing;
    both lists are then empty. `trained_on`: the network was trained on the verifying images, so its accuracy on them
    says nothing about other images.
    """

    split: str
    verifying: tuple[Sample, ...] = ()
    train: tuple[Sample, ...] = ()
    trained_on: bool = False


def export_images(data: Path | None, metadata: Metadata) -> ExportImages:
    """Return the images of the dataset that a network was trained on.

    Args:
        data: the dataset's location, if it was moved.
        metadata: the checkpoint's metadata.

    Raises:
        DataError: `data` is not the dataset the network was trained on, or that dataset cannot be read.
    """
    root = named_tree(data, metadata)
    if root is None and data is not None:
        raise DataError(f"{data}: is not the dataset that this network was trained on; give that, or leave out --data")
    if root is None:
        return ExportImages(NOISE)
    tree = tree_of(root, metadata, join=False)
    train = tuple(tree.train)
    if tree.validation:
        joined = bool(metadata.settings["data"].get("train_on_validation"))
        verifying = spread(tree.validation, VERIFYING) if joined else tuple(tree.validation)
        return ExportImages(VALIDATION, verifying, train, joined)
    return ExportImages(TRAIN, spread(train, VERIFYING), train, trained_on=True)


def spread(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """Return at most `count` of the samples, evenly spaced, so that all classes are represented."""
    if not samples:
        return ()
    places = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int))
    return tuple(samples[place] for place in places)


def batches(samples: Sequence[Sample], size: tuple[int, int]) -> Iterator[tuple[Pixels, npt.NDArray[np.int64]]]:
    """Yield (images, labels): (n, height, width, 3) uint8 and (n,), n at most `BATCH`; skip unreadable images."""
    images, labels = [], []
    for sample, (_, item) in zip(samples, decoded(each(s.path for s in samples), size, 2 * BATCH), strict=True):
        if not isinstance(item, Skipped):
            images.append(item.image)
            labels.append(sample.class_index)
        if len(images) == BATCH:
            yield np.stack(images), np.array(labels)
            images, labels = [], []
    if images:
        yield np.stack(images), np.array(labels)


def calibration_images(images: ExportImages, size: tuple[int, int]) -> Pixels:
    """Return training images, none from validation: (n, height, width, 3) uint8, n at most `CALIBRATING`.

    Raises:
        DataError: none of them can be read.
    """
    read = [pixels for pixels, _ in batches(spread(images.train, CALIBRATING), size)]
    if not read:
        raise DataError("none of the training images can be read; int8 is calibrated on them; export float32")
    return np.concatenate(read)


def noise(size: tuple[int, int]) -> Iterator[tuple[Pixels, npt.NDArray[np.int64]]]:
    """Yield one batch of `BATCH` images of coarse coloured noise, without labels."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (BATCH, -(-size[0] // 8), -(-size[1] // 8), 3), np.uint8)
    yield coarse.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]], np.empty(0, np.int64)
