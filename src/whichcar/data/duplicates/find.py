"""Which images of a set are copies of each other, byte for byte or near enough."""

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

SIMILAR = 0.7  # correlation of detail from which two images are copies
_LAYOUT = 0.7  # correlation of thumbnails from which detail is compared
_BITS = 12  # hashes may differ in as many of their 64 bits
# In larger sets in fewer bits: the number of candidates grows with the square of that of images.
_MANY, _BITS_OF_MANY = 200_000, 8
_READ = (128, 128)
_CHUNK = 64  # images compared with all others at a time
_COMPARABLE = 2  # in `Prints.kinds`; 1: broken or flat
_AT_ONCE = 256  # pairs compared together, or more


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images by number, the first the lower; `similarity` is that of their detail, 1 for the same bytes."""

    first: int
    second: int
    similarity: float
    mirrored: bool


@dataclass(frozen=True)
class Duplicates:
    """Copies among images, all by number.

    `exact` are groups of the same bytes, each ascending; `near` are pairs of first ones of different content: those
    that join all that belong together over a chain of copies, and no more.
    """

    exact: list[list[int]]
    near: list[Pair]

    def groups(self) -> list[list[int]]:
        """Return all that belong together over a chain of copies, each group ascending, groups by their first."""
        return joined([*self.exact, *([pair.first, pair.second] for pair in self.near)])


def joined(links: Iterable[Sequence[int]]) -> list[list[int]]:
    """Return the numbers that belong together over a chain of links, each group ascending, groups by their first."""
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
    """What is needed of each image to find copies: 32 bytes, however large the image."""

    checksums: bytearray = field(default_factory=bytearray)
    hashes: array[int] = field(default_factory=lambda: array("q"))
    mirrored: array[int] = field(default_factory=lambda: array("q"))
    kinds: bytearray = field(default_factory=bytearray)  # 0: not even its bytes are known

    def add(self, scan: Scan) -> None:
        """Take the next image."""
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

    Copies by the byte have the same checksum. Others have hashes that differ in a few bits, as they are or mirrored;
    of these pairs, those alike in layout are read again and count when their detail fits (`detail_similarity`).
    Whether two are copies depends on their content alone, not on their names, order, classes or the others: what
    `split` keeps on one side is what `check` finds. Images that show nothing are left out. The cache
    knows what was compared before.

    Args:
        cache: has the scans of all images.
        prints: of all images, by number.
        path_of: gives an image's file by its number.
    """
    kinds = np.frombuffer(prints.kinds, np.uint8)
    contents = np.frombuffer(prints.checksums, np.uint64).reshape(-1, 2)
    known = np.flatnonzero(kinds)
    order = known[np.lexsort((contents[known, 1], contents[known, 0]))]  # stable: of the same content by number
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
    """Return the groups of copies as `copies_among` does, and why images cannot be read, by number."""
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
    """Return the pairs that join near copies; what belongs together already is not compared any more.

    `numbers` are in the order of their checksums, so that of two contents the same one is always the first.
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
            # A hash of one and a mirrored hash of the other, either way: their medians differ a little.
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
    """Computes how alike images are, or takes it from the cache."""

    def __init__(
        self, cache: ScanCache, prints: Prints, path_of: Callable[[int], Path], numbers: npt.NDArray[np.int64]
    ) -> None:
        self._cache, self._path_of, self._numbers = cache, path_of, numbers
        self._prints = prints
        self._print = functools.lru_cache(4096)(self._print_of)
        self._whole = functools.lru_cache(64)(self._detail_of)

    def of(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the similarity of each pair of places; 0 where they are not even laid out alike."""
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
