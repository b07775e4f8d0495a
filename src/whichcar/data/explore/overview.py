"""Statistics of a folder of images: classes, sizes, brightness, formats, copies, and files that cannot be read."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from whichcar.data.dataset import Collection
from whichcar.data.duplicates.find import Duplicates, Prints, find_duplicates
from whichcar.data.duplicates.fingerprint import Fingerprint
from whichcar.data.duplicates.scan import Scan, ScanCache
from whichcar.data.split.match import nothing_usable
from whichcar.errors import DataError
from whichcar.progress import track
from whichcar.taxonomy import VehicleName, parse_name

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's grey


@dataclass
class Overview:
    """The statistics of a collection; images are identified by their index in its `entries`.

    `classes` maps each class, sorted by name, to its number of images per split. `width`, `height` (upright, in
    pixels), `size` (of the file, in bytes) and `brightness` (mean luma, 0 … 1) have one value per image. If an image
    cannot be read, its width and height are 0, its brightness is NaN, and `unreadable` says why.
    """

    collection: Collection
    classes: dict[str, Counter[str]]
    width: array[int] = field(default_factory=lambda: array("I"))
    height: array[int] = field(default_factory=lambda: array("I"))
    size: array[int] = field(default_factory=lambda: array("Q"))
    brightness: array[float] = field(default_factory=lambda: array("f"))
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    orientations: Counter[int] = field(default_factory=Counter)
    unreadable: dict[int, str] = field(default_factory=dict)
    duplicates: Duplicates = field(default_factory=lambda: Duplicates([], []))

    @property
    def readable(self) -> npt.NDArray[np.int64]:
        """The numbers of the images that can be read, ascending."""
        return np.flatnonzero(np.frombuffer(self.width, np.uint32)).astype(np.int64)

    @property
    def sizes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Width and height of the images that can be read, in the order of `readable`."""
        width, height = (np.frombuffer(side, np.uint32).astype(np.int64) for side in (self.width, self.height))
        return width[self.readable], height[self.readable]

    @property
    def splits(self) -> Counter[str]:
        """The number of images in each split; "" stands for no split."""
        return Counter(entry.split for entry in self.collection.entries)

    @property
    def names(self) -> dict[str, VehicleName]:
        """The make, model and year of every class."""
        return {name: parse_name(name) for name in self.classes}

    def sample(self, count: int, seed: int = 0) -> list[int]:
        """Return a random sample of the readable images, or all if there are fewer; the seed determines which."""
        there = self.readable.tolist()
        return Random(f"{seed}/sample").sample(there, min(count, len(there)))

    def add(self, scan: Scan, size: int) -> None:
        """Add the next image; `size` is the size of its file in bytes."""
        header, print_ = scan.header, scan.fingerprint
        self.size.append(size)
        self.width.append(header.width if header else 0)
        self.height.append(header.height if header else 0)
        self.brightness.append(_brightness(print_) if print_ else float("nan"))
        if header is None:
            self.unreadable[len(self.width) - 1] = scan.problem
            return
        self.formats[header.format] += 1
        self.modes[header.mode] += 1
        self.orientations[header.orientation] += 1


def overview_of(collection: Collection, cache: ScanCache | None = None) -> Overview:
    """Scan every image of a collection and compute the statistics.

    Args:
        collection: from `collect`.
        cache: an open cache of scans (default: the one in the cache folder).

    Raises:
        DataError: the collection has no image, or the cache cannot be used.
    """
    if not collection.entries:
        raise DataError(nothing_usable(collection.root, collection.problems))
    if cache is None:
        with ScanCache() as opened:
            return overview_of(collection, opened)
    counts: dict[str, Counter[str]] = {}
    for entry in collection.entries:
        if entry.class_name:
            counts.setdefault(entry.class_name, Counter())[entry.split] += 1
    found, prints = Overview(collection, dict(sorted(counts.items()))), Prints()
    numbers = range(len(collection.entries))
    scans = track(cache.scan(map(collection.path_of, numbers)), "scanning", len(numbers))
    for number, scan in zip(numbers, scans, strict=True):
        found.add(scan, _file_size(collection.path_of(number)))
        prints.add(scan)
    found.duplicates = find_duplicates(cache, prints, collection.path_of)
    return found


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # missing or inaccessible: it is among the unreadable
        return 0


def _brightness(seen: Fingerprint) -> float:
    return float((seen.pixels @ _LUMA).mean()) / 255
