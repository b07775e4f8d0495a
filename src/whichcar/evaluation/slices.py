"""Where a network is weak: accuracy by body type, crop, size, aspect, box, brightness and sharpness of the images."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from whichcar.data.boxes import FILE, read_boxes, table_of
from whichcar.detection.detection import with_margin
from whichcar.errors import DataError, ImageError
from whichcar.evaluation.predictions import EvaluatedImage
from whichcar.evaluation.result import Slice
from whichcar.files import CROP_RECORD, read_json
from whichcar.images.pixels import Pixels
from whichcar.images.read import decoded, enough_for, read_size
from whichcar.metrics import Proportion
from whichcar.parallel import ordered_map
from whichcar.progress import track
from whichcar.records import Crop
from whichcar.taxonomy import taxonomy_of

FEWEST = 10  # minimum images in a slice; dividing by a measure needs four times as many
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_DIGITS = {"width / height": ".2f", "box / image": ".0%"}
_MEASURES = ("shorter side", "width / height", "box / image", "brightness", "sharpness")


class _Property(NamedTuple):
    """A property, its kinds, and the index of each image's kind, -1 if it has none."""

    name: str
    kinds: Sequence[str]
    numbers: npt.NDArray[np.integer]


class _Vehicle(NamedTuple):
    """The crop of an image by the crop stage or `--crop`, and the file it was cropped from, if known."""

    crop: Crop
    source: Path | None


def slices_of(
    images: Sequence[EvaluatedImage],
    root: Path,
    class_names: Sequence[str],
    size: tuple[int, int],
    margin: float = 0.0,
) -> tuple[Slice, ...]:
    """Return the accuracy on the images of each kind; kinds with fewer than `FEWEST` images are left out.

    Brightness is the mean luma, 0 to 255; sharpness is the variance of its Laplacian, so low values mean blur
    (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000); both are at the network's size. The
    shorter side, in pixels, is that of the classified image or crop. `box / image` is the share of the image that is
    covered by its vehicle's box. Each such measure divides the images into four parts of equal number.

    Args:
        images: the evaluated images.
        root: the folder that contains them; if `whichcar crop` wrote it, its boxes.csv says which are cropped.
        class_names: class names of the network.
        size: (height, width) of its input.
        margin: of the crops that were classified, around their boxes, as a share of the box's sides.
    """
    if len(images) < FEWEST:
        return ()
    correct = np.array([image.rank == 1 for image in images])
    vehicles = _vehicles(images, root)
    quarters = _quarters(images, vehicles, size, margin)
    groups = [
        (found.name, kind, correct[found.numbers == number])
        for found in (*_body_types(images, class_names), *_outcomes(vehicles), *quarters)
        for number, kind in enumerate(found.kinds)
    ]
    groups = [group for group in groups if FEWEST <= len(group[2]) < len(images)]
    slices = []
    for name, kind, inside in groups:
        accuracy = Proportion(int(inside.sum()), len(inside))
        slices.append(Slice(name, kind, accuracy, min(1.0, len(groups) * _tail(accuracy, correct))))
    return tuple(slices)


def _body_types(images: Sequence[EvaluatedImage], class_names: Sequence[str]) -> Iterator[_Property]:
    for facet in taxonomy_of(class_names).facets:
        if facet.name == "body type":
            labels = np.array([image.sample.class_index for image in images])
            yield _Property(facet.name, facet.groups, facet.index[labels])


def _vehicles(images: Sequence[EvaluatedImage], root: Path) -> list[_Vehicle | None]:
    """Return what is known about the vehicle in each image."""
    found = [None if image.crop is None else _Vehicle(image.crop, image.sample.path) for image in images]
    if (folder := next((above for above in (root, *root.parents) if table_of(above)), None)) is None:
        return found
    source = None
    with contextlib.suppress(DataError):  # damaged record
        source = Path(read_json(folder / CROP_RECORD, {"source": str})["source"])
    rows = {folder / row.path: _Vehicle(row, source and source / row.path) for row in read_boxes(folder / FILE)}
    return [known or rows.get(image.sample.path) for known, image in zip(found, images, strict=True)]


def _outcomes(vehicles: Sequence[_Vehicle | None]) -> Iterator[_Property]:
    """Yield which images are cropped and which are whole, if there are both."""
    kinds = ("cropped", "whole")
    found = [vehicle and vehicle.crop.kind for vehicle in vehicles]  # may be `skipped`, by the crop stage
    numbers = np.array([kinds.index(kind) if kind in kinds else -1 for kind in found])
    if len(set(numbers)) > 1:
        yield _Property("vehicle", kinds, numbers)


def _quarters(
    images: Sequence[EvaluatedImage], vehicles: Sequence[_Vehicle | None], size: tuple[int, int], margin: float
) -> Iterator[_Property]:
    """Yield each measure, divided into quartiles."""
    if len(images) < 4 * FEWEST:
        return
    measured = ordered_map(lambda pair: _measures(*pair, size, margin), list(zip(images, vehicles, strict=True)))
    table = np.array(list(track(measured, "describing", len(images)))).T
    for name, values in zip(_MEASURES, table, strict=True):
        known = values[~np.isnan(values)]
        if not len(known):
            continue
        edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75], method="higher"))
        texts = [format(edge, _DIGITS.get(name, ".0f")) for edge in edges]
        middle = (f"{low} to {high}" for low, high in itertools.pairwise(texts))
        kinds = [f"below {texts[0]}", *middle, f"{texts[-1]} or more"]
        yield _Property(name, kinds, np.where(np.isnan(values), -1, np.searchsorted(edges, values, "right")))


def _measures(
    image: EvaluatedImage, vehicle: _Vehicle | None, size: tuple[int, int], margin: float
) -> tuple[float, ...]:
    """Return `_MEASURES` of an image; NaN if it can no longer be read, or has no box for `box / image`."""
    box = None if image.crop is None else image.crop.box
    try:
        with decoded(image.sample.path, enough_for(size) if box is None else None) as found:
            box = box and with_margin(box, margin, found.size)
            pixels = found.resized(size, box)
            width, height = (found.header.width, found.header.height) if box is None else (box.width, box.height)
    except ImageError:
        return (np.nan,) * len(_MEASURES)
    return min(width, height), width / height, _share(vehicle), *_brightness_and_sharpness(pixels)


def _share(vehicle: _Vehicle | None) -> float:
    """Return the area of a vehicle's box as a share of its image; NaN if it is unknown."""
    if vehicle is not None and vehicle.source and vehicle.crop.kind == "cropped" and (box := vehicle.crop.box):
        with contextlib.suppress(ImageError):
            return box.area / math.prod(read_size(vehicle.source))
    return math.nan


def _brightness_and_sharpness(pixels: Pixels) -> tuple[float, float]:
    luma = pixels @ _LUMA
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(luma.mean()), float(laplacian.var()) if laplacian.size else 0.0


def _tail(inside: Proportion, correct: npt.NDArray[np.bool_]) -> float:
    """Return the probability that, by chance, this many or fewer of the images of a slice are correct."""
    total, right = len(correct), int(correct.sum())
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])  # log factorials

    def choices(of: int, count: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.asarray(logs[of] - logs[count] - logs[of - count])

    count = np.arange(max(0, inside.total - (total - right)), inside.correct + 1)
    whole = choices(total, np.array([inside.total]))
    return float(np.exp(choices(right, count) + choices(total - right, inside.total - count) - whole).sum())
