"""The one path from images to probabilities: threads decode images while the network runs on the previous batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from whichcar.errors import ConfigError, ImageError
from whichcar.images.inputs import Given
from whichcar.images.pixels import Pixels
from whichcar.inference.input_crop import CropChoice
from whichcar.inference.runtimes import Probabilities, Runtime, filled
from whichcar.parallel import Done, ordered_map, usable_cores
from whichcar.records import Box, Crop, NoVehicle, Skipped
from whichcar.text import as_text

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Scored:
    """One image and the probability of every class, (classes,) float32, in the order of the class names.

    `crop` is what the image was cropped to; None if it was not to be cropped.
    """

    path: Path | str
    probabilities: Probabilities
    crop: Crop | None = None


class Opened(NamedTuple):
    """An image or a vehicle in it, at the network's size; `crop` is its crop, if any, and `box` adds the margin."""

    image: Pixels
    crop: Crop | None
    box: Box | None


Row = tuple[Path | str, Opened | Skipped]


def stream(
    runtime: Runtime,
    images: Iterable[Given | Skipped],
    size: tuple[int, int],
    batch_size: int | None = None,
    crop: CropChoice | None = None,
) -> Iterator[Scored | Skipped]:
    """Yield each image's probabilities, in order.

    Images are resized to `size` (height, width), after `crop` if that returns a function, and never cropped otherwise,
    since their edges matter. If it returns several crops of an image, each is a row, and batches are of crops.

    If the runtime accepts calls from several threads, each thread decodes its images and runs the network on them. If
    not, the next batches are decoded while the network runs on one, and a shorter last batch is padded to `batch_size`,
    which avoids a second compilation. At most four batches, or eight per thread, are in memory, for any number of
    images.

    Raises:
        ConfigError: `batch_size` is below 1.
    """
    if batch_size is None:
        batch_size = runtime.batch_size
    if batch_size < 1:
        raise ConfigError(f"batch size: must be at least 1; got {batch_size}")
    if not runtime.callers:
        yield from _one_caller(runtime, images, size, batch_size, crop)
        return

    def answers(batch: Sequence[Given | Skipped]) -> list[Scored | Skipped]:
        rows = (row for item in batch for row in opened(item, size, crop))
        return [row for group in groups(rows, batch_size) for row in answered(runtime, group)]

    # One thread more than cores, since one may be waiting for a disk or a server.
    for rows in ordered_map(answers, groups(images, batch_size), runtime.callers + 1, eager=True):
        yield from rows


def groups(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    """Yield lists of `count` items; the last one may be shorter."""
    rest = iter(items)
    while group := list(islice(rest, count)):
        yield group


def _one_caller(
    runtime: Runtime,
    images: Iterable[Given | Skipped],
    size: tuple[int, int],
    batch_size: int,
    crop: CropChoice | None,
) -> Iterator[Scored | Skipped]:
    room = 0
    batch: list[Row] = []
    for item in decoded(images, size, 2 * batch_size, crop):
        batch.append(item)
        if len(batch) == batch_size:
            room = batch_size
            yield from answered(runtime, batch, room)
            batch = []
    if batch:
        yield from answered(runtime, batch, room)


def answered(runtime: Runtime, batch: Sequence[Row], room: int = 0) -> list[Scored | Skipped]:
    """Return the rows with the probabilities of each image, from one call padded to `room` images."""
    images = [item.image for _, item in batch if not isinstance(item, Skipped)]
    rows = iter(runtime(filled(np.stack(images), room)) if images else ())
    return [item if isinstance(item, Skipped) else Scored(path, next(rows), item.crop) for path, item in batch]


def decoded(
    images: Iterable[Given | Skipped], size: tuple[int, int], ahead: int, crop: CropChoice | None = None
) -> Iterator[Row]:
    """Yield every image at `size`, or its crops if requested, in order; threads prepare up to `ahead` images."""

    def prepared(image: Given) -> list[Row]:
        return opened(image, size, crop)

    given = (Done(opened(image, size, crop)) if isinstance(image, Skipped) else image for image in images)
    for rows in ordered_map(prepared, given, usable_cores() + 1, ahead):
        yield from rows


def opened(given: Given | Skipped, size: tuple[int, int], choice: CropChoice | None) -> list[Row]:
    """Return the rows of an image: at `size`, or its crops, or why it is unreadable."""
    if isinstance(given, Skipped):
        return [(given.path, given)]
    crop = choice(given.path) if choice else None
    try:
        # A crop must be sharp too, so the image is then not decoded at reduced size.
        with given.open(size if crop is None else None) as image:
            crops = crop(as_text(given.path), image) if crop else [(None, None)]
            return [
                (given.path, Opened(image.resized(size, box), record, box))
                if record is None or record.kind != "skipped"
                else (given.path, NoVehicle(given.path, record.outcome.removeprefix("skipped: ")))
                for box, record in crops
            ]
    except ImageError as error:
        return [(given.path, Skipped(given.path, error.reason))]
