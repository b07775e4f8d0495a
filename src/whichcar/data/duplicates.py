"""Which pictures of a set are copies of each other, byte for byte or near enough."""

from __future__ import annotations

import functools
import itertools
import os
from array import array
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whichcar.data.facts import Facts, FactStore
from whichcar.data.fingerprint import Detail, detail_of, detail_similarity, distance, layout_similarity
from whichcar.data.images import read_image
from whichcar.errors import ImageError
from whichcar.progress import track

Candidate = tuple[int, int, bool]  # two numbers, and whether the second is mirrored

SIMILAR = 0.7  # correlation of detail from which two pictures are copies
_LAYOUT = 0.7  # correlation of thumbnails from which detail is looked at
_BITS = 12  # hashes may differ in as many of their 64 bits
_PAIRS = 8  # candidates a picture at most; where all pictures look alike, fewer bits may differ
_READ = (128, 128)
_CHUNK = 64  # pictures compared with all others at a time
_COMPARABLE = 2  # in `Prints.kinds`; 1: broken or flat
_AT_ONCE = 256  # pairs looked at together


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures by number, the first the lower; `similarity` is that of their detail, 1 for the same bytes."""

    first: int
    second: int
    similarity: float
    mirrored: bool


@dataclass(frozen=True)
class Duplicates:
    """Copies among pictures, all by number.

    `exact` are groups of the same bytes, each ascending; `near` are pairs of the first ones of different content.
    """

    exact: list[list[int]]
    near: list[Pair]

    def groups(self) -> list[list[int]]:
        """Return all that belong together over a chain of copies, each group ascending, groups by their first."""
        parent: dict[int, int] = {}

        def root(one: int) -> int:
            while (above := parent.setdefault(one, one)) != one:
                parent[one] = one = parent[above]
            return one

        links = [(group[0], other) for group in self.exact for other in group[1:]]
        for first, second in [*links, *((pair.first, pair.second) for pair in self.near)]:
            low, high = sorted((root(first), root(second)))
            parent[high] = low
        found: dict[int, list[int]] = defaultdict(list)
        for one in sorted(parent):
            found[root(one)].append(one)
        return [found[one] for one in sorted(found)]


@dataclass
class Prints:
    """What is needed of each picture to find copies: 32 bytes, however large the picture."""

    checksums: bytearray = field(default_factory=bytearray)
    hashes: array[int] = field(default_factory=lambda: array("q"))
    mirrored: array[int] = field(default_factory=lambda: array("q"))
    kinds: bytearray = field(default_factory=bytearray)  # 0: not even its bytes are known

    def add(self, facts: Facts) -> None:
        """Take the next picture."""
        seen = facts.fingerprint
        self.checksums += facts.checksum or bytes(16)
        self.hashes.append(seen.hash if seen else 0)
        self.mirrored.append(seen.mirrored if seen else 0)
        self.kinds.append(0 if not facts.checksum else _COMPARABLE if seen and not seen.is_flat else 1)

    def checksum(self, number: int) -> bytes:
        """Return the checksum of one picture."""
        return bytes(self.checksums[16 * number : 16 * number + 16])


def find_duplicates(store: FactStore, prints: Prints, path_of: Callable[[int], Path]) -> Duplicates:
    """Find copies among pictures that `store.look` has told of.

    Copies by the byte have the same checksum. Others have hashes that differ in a few bits, as they are or mirrored;
    of these pairs, those alike in layout are read again and count when their detail fits (`detail_similarity`).
    Pictures that show nothing are left out. What was compared once is known to the store.

    Args:
        store: the facts.
        prints: of all pictures, by number.
        path_of: gives a picture's file by its number.
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
    firsts = np.sort(order[starts])
    candidates = _candidates(prints, firsts[kinds[firsts] == _COMPARABLE])
    return Duplicates(exact, _confirmed(store, prints, path_of, candidates))


def copies_among(paths: Sequence[Path], classes: Sequence[Hashable]) -> list[list[int]]:
    """Return groups of copies by number, each ascending; near copies count only within a class.

    Cars of different classes in the same studio can look nearly the same; of those only equal bytes are certain.

    Args:
        paths: the picture files.
        classes: the class of each.
    """
    prints = Prints()
    with FactStore() as store:
        for facts in track(store.look(paths), "looking for copies", len(paths)):
            prints.add(facts)
        found = find_duplicates(store, prints, paths.__getitem__)
    near = [pair for pair in found.near if classes[pair.first] == classes[pair.second]]
    return Duplicates(found.exact, near).groups()


def _candidates(prints: Prints, firsts: npt.NDArray[np.int64]) -> list[Candidate]:
    """Return pairs whose hashes differ in few bits, each with whether the second is mirrored."""
    hashes = np.frombuffer(prints.hashes, np.int64)[firsts]
    turned = np.frombuffer(prints.mirrored, np.int64)[firsts]
    most, bits = _PAIRS * len(firsts), _BITS
    chunks = [np.empty((0, 4), np.int64)]
    count = 0
    for start in range(0, len(firsts), _CHUNK):
        for mirrored, others in enumerate((hashes, turned)):
            apart = distance(hashes[start : start + _CHUNK, None], others[None, start:])
            rows, columns = np.nonzero(apart <= bits)
            later = columns > rows
            rows, columns = rows[later], columns[later]
            pairs = (rows + start, columns + start, np.full(len(rows), mirrored), apart[rows, columns])
            chunks.append(np.stack(pairs, axis=1).astype(np.int64))
            count += len(rows)
        if count > most:
            found = np.concatenate(chunks)
            while len(found) > most and bits:
                bits -= 1
                found = found[found[:, 3] <= bits]
            chunks, count = [found], len(found)
    return [(int(firsts[a]), int(firsts[b]), bool(mirrored)) for a, b, mirrored, _ in np.concatenate(chunks).tolist()]


def _confirmed(
    store: FactStore, prints: Prints, path_of: Callable[[int], Path], candidates: Sequence[Candidate]
) -> list[Pair]:
    """Return the candidates that are copies; of a pair alike both ways, the better way."""
    best: dict[tuple[int, int], Pair] = {}
    known = functools.lru_cache(4096)(store.fingerprint)
    detail = functools.lru_cache(64)(lambda number: _detail(path_of(number)))

    def compare(pair: Candidate) -> float:
        first, second, mirrored = pair
        one, other = detail(first), _detail(path_of(second), mirrored) if mirrored else detail(second)
        return detail_similarity(one, other) if one and other else 0.0

    def alike() -> Iterator[Candidate]:
        for first, second, mirrored in track(candidates, "comparing", unit="pairs"):
            one, other = known(prints.checksum(first)), known(prints.checksum(second))
            if layout_similarity(one, other, mirrored) >= _LAYOUT:
                yield first, second, mirrored

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for batch in _batches(alike(), _AT_ONCE):
            names = [(prints.checksum(first), prints.checksum(second), mirrored) for first, second, mirrored in batch]
            told = [store.similarity(*name) for name in names]
            new = iter(pool.map(compare, [pair for pair, value in zip(batch, told, strict=True) if value is None]))
            for (first, second, mirrored), name, value in zip(batch, names, told, strict=True):
                if value is None:
                    value = next(new)
                    store.keep_similarity(*name, value)
                before = best.get((first, second))
                if value >= SIMILAR and (before is None or before.similarity < value):
                    best[first, second] = Pair(first, second, value, mirrored)
    return [best[key] for key in sorted(best)]


def _detail(path: Path, mirrored: bool = False) -> Detail | None:
    try:
        image = read_image(path, at_least=_READ)
    except ImageError:  # gone since it was looked at
        return None
    return detail_of(np.ascontiguousarray(image[:, ::-1]) if mirrored else image)


def _batches(items: Iterable[Candidate], size: int) -> Iterator[list[Candidate]]:
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch
