"""Find the images in a set that are copies of each other, byte for byte or nearly so."""

from __future__ import annotations

import functools
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whichcar.data.duplicates.fingerprint import (
    Detail,
    Fingerprint,
    detail_of,
    detail_similarity,
    distance,
    layout_similarity,
)
from whichcar.data.duplicates.scan import Scan, ScanCache
from whichcar.errors import ImageError
from whichcar.images.read import read_image
from whichcar.parallel import ordered_map
from whichcar.progress import track

Candidate = tuple[int, int, bool]  # two numbers, and whether the second is mirrored

SIMILAR = 0.7  # minimum correlation of detail for two images to be copies
_LAYOUT = 0.7  # minimum correlation of thumbnails for detail to be compared
_BITS = 12  # hashes of copies may differ in up to this many of their 64 bits
# The limit is lower in larger sets, since the number of candidates grows with the square of the number of images.
_MANY, _BITS_OF_MANY = 200_000, 8
_READ = (128, 128)
_CHUNK = 64  # images compared with all others at a time
_COMPARABLE = 2  # in `Prints.kinds`; 1: broken or flat
_AT_ONCE = 256  # minimum number of pairs compared together


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images by number, the lower one first; `similarity` is that of their detail, 1 for the same bytes."""

    first: int
    second: int
    similarity: float
    mirrored: bool


@dataclass(frozen=True)
class Duplicates:
    """Copies among images, all by number.

    `exact` are groups of images with the same bytes, each ascending. `near` are pairs of images with different bytes,
    each the first of its group: enough to connect all images that a chain of copies connects.
    """

    exact: list[list[int]]
    near: list[Pair]

    def groups(self) -> list[list[int]]:
        """Return the groups of images connected by chains of copies, each ascending, sorted by their first image."""
        return joined([*self.exact, *([pair.first, pair.second] for pair in self.near)])


def joined(links: Iterable[Sequence[int]]) -> list[list[int]]:
    """Return the groups of numbers connected by chains of links, each ascending, sorted by their first number."""
    parent: dict[int, int] = {}

    def root(one: int) -> int:
        while (above := parent.setdefault(one, one)) != one:
            parent[one] = one = parent[above]
        return one

    for link in links:
        for one in link:
            low, high = sorted((root(link[0]), root(one)))
            parent[high] = low
    found: dict[int, list[int]] = defaultdict(list)
    for one in sorted(parent):
        found[root(one)].append(one)
    return list(found.values())


@dataclass
class Prints:
    """The data about each image that is needed to find copies: 33 bytes, however large the image."""

    checksums: bytearray = field(default_factory=bytearray)
    hashes: array[int] = field(default_factory=lambda: array("q"))
    mirrored: array[int] = field(default_factory=lambda: array("q"))
    kinds: bytearray = field(default_factory=bytearray)  # 0: not even the bytes could be read

    def add(self, scan: Scan) -> None:
        """Add the next image."""
        seen = scan.fingerprint
        self.checksums += scan.checksum or bytes(16)
        self.hashes.append(seen.hash if seen else 0)
        self.mirrored.append(seen.mirrored if seen else 0)
        self.kinds.append(0 if not scan.checksum else _COMPARABLE if seen and not seen.is_flat else 1)

    def checksum(self, number: int) -> bytes:
        """Return the checksum of one image."""
        return bytes(self.checksums[16 * number : 16 * number + 16])


def find_duplicates(cache: ScanCache, prints: Prints, path_of: Callable[[int], Path]) -> Duplicates:
    """Find copies among images that have been scanned.

    Exact copies have the same checksum. Other copies have hashes that differ in a few bits, one of them possibly
    mirrored; those pairs that also have a similar layout are read again and are copies if their detail matches
    (`detail_similarity`). Whether two images are copies depends on their content and, above 200,000 images, on the
    size of the set, but not on names, order or classes, so `split` keeps together what `check` finds. Images that show
    nothing are left out. The cache stores the results of comparisons.

    Args:
        cache: contains the scans of all images.
        prints: the prints of all images, by number.
        path_of: returns an image's file by its number.
    """
    kinds = np.frombuffer(prints.kinds, np.uint8)
    contents = np.frombuffer(prints.checksums, np.uint64).reshape(-1, 2)
    known = np.flatnonzero(kinds)
    order = known[np.lexsort((contents[known, 1], contents[known, 0]))]  # stable: equal contents stay ordered by number
    new = np.ones(len(order), bool)
    new[1:] = np.any(contents[order[1:]] != contents[order[:-1]], axis=1)
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(order)))
    exact = sorted(order[start : start + size].tolist() for start, size in zip(starts, sizes, strict=True) if size > 1)
    firsts = order[starts]
    return Duplicates(exact, _near(cache, prints, path_of, firsts[kinds[firsts] == _COMPARABLE]))


def copies_among(paths: Sequence[Path]) -> list[list[int]]:
    """Return the groups of copies among image files, by number, each ascending; a group may span classes."""
    return copies_and_unreadable(paths)[0]


def copies_and_unreadable(paths: Sequence[Path]) -> tuple[list[list[int]], dict[int, str]]:
    """Return the groups of copies as `copies_among` does, and the reason for each unreadable image, by number."""
    prints = Prints()
    unreadable: dict[int, str] = {}
    with ScanCache() as cache:
        for number, scan in enumerate(track(cache.scan(paths), "looking for copies", len(paths))):
            prints.add(scan)
            if scan.problem:
                unreadable[number] = scan.problem
        return find_duplicates(cache, prints, paths.__getitem__).groups(), unreadable


def _near(
    cache: ScanCache, prints: Prints, path_of: Callable[[int], Path], numbers: npt.NDArray[np.int64]
) -> list[Pair]:
    """Return the pairs that connect near copies; images that are already connected are not compared again.

    `numbers` are in the order of their checksums, so that of two contents the same one always comes first.
    """
    hashes, mirror_hashes = (np.frombuffer(kept, np.int64)[numbers] for kept in (prints.hashes, prints.mirrored))
    bits = _BITS if len(numbers) <= _MANY else _BITS_OF_MANY
    group = np.arange(len(numbers))
    found: list[Pair] = []
    waiting: list[Candidate] = []
    comparison = Comparison(cache, prints, path_of, numbers)

    def settle() -> None:
        rated = zip(comparison.of(waiting), waiting, strict=True)
        for similarity, (first, second, mirrored) in sorted(rated, key=lambda one: (-one[0], one[1])):
            if similarity >= SIMILAR and group[first] != group[second]:
                group[group == group[second]] = group[first]
                low, high = sorted((int(numbers[first]), int(numbers[second])))
                found.append(Pair(low, high, similarity, mirrored))
        waiting.clear()

    for row in track(range(len(numbers)), "comparing"):
        if row % _CHUNK == 0:
            chunk = slice(row, row + _CHUNK)
            plain = distance(hashes[chunk, None], hashes[None])
            # One image's hash against the other's mirrored hash, both ways round: their medians differ a little.
            mirrored = np.minimum(
                distance(hashes[chunk, None], mirror_hashes[None]), distance(mirror_hashes[chunk, None], hashes[None])
            )
            close = (plain <= bits, mirrored <= bits)
        for is_mirrored, matrix in zip((False, True), close, strict=True):
            later = row + 1 + np.flatnonzero(matrix[row % _CHUNK, row + 1 :] & (group[row + 1 :] != group[row]))
            waiting += [(row, second, is_mirrored) for second in later.tolist()]
        if len(waiting) >= _AT_ONCE:
            settle()
    settle()
    return sorted(found, key=lambda pair: (pair.first, pair.second))


class Comparison:
    """Computes how similar images are, or takes it from the cache."""

    def __init__(
        self, cache: ScanCache, prints: Prints, path_of: Callable[[int], Path], numbers: npt.NDArray[np.int64]
    ) -> None:
        self._cache, self._path_of, self._numbers = cache, path_of, numbers
        self._prints = prints
        self._print = functools.lru_cache(4096)(self._print_of)
        self._whole = functools.lru_cache(64)(self._detail_of)

    def of(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the similarity of each pair of indices; 0 if even their layouts differ."""
        alike = [pair for pair in candidates if self._alike(pair)]
        names = [(self._checksum(first), self._checksum(second), mirrored) for first, second, mirrored in alike]
        known = [self._cache.similarity(*name) for name in names]
        new = ordered_map(self._compare, [pair for pair, value in zip(alike, known, strict=True) if value is None])
        similarities: dict[Candidate, float] = {}
        for pair, name, value in zip(alike, names, known, strict=True):
            if value is None:
                value = next(new)
                self._cache.keep_similarity(*name, value)
            similarities[pair] = value
        return [similarities.get(pair, 0.0) for pair in candidates]

    def _alike(self, pair: Candidate) -> bool:
        first, second, mirrored = pair
        return layout_similarity(self._print(first), self._print(second), mirrored) >= _LAYOUT

    def _compare(self, pair: Candidate) -> float:
        first, second, mirrored = pair
        one, other = self._whole(first), self._detail_of(second, mirrored=True) if mirrored else self._whole(second)
        return detail_similarity(one, other) if one and other else 0.0

    def _checksum(self, place: int) -> bytes:
        return self._prints.checksum(int(self._numbers[place]))

    def _print_of(self, place: int) -> Fingerprint:
        return self._cache.fingerprint(self._checksum(place))

    def _detail_of(self, place: int, mirrored: bool = False) -> Detail | None:
        return _detail(self._path_of(int(self._numbers[place])), mirrored)


def _detail(path: Path, mirrored: bool = False) -> Detail | None:
    try:
        image = read_image(path, at_least=_READ)
    except ImageError:  # gone since the scan
        return None
    return detail_of(np.ascontiguousarray(image[:, ::-1]) if mirrored else image)
