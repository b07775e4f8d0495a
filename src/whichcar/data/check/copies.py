"""Findings about images that belong on one side of a split: copies of each other, and likely groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from whichcar.data.check.issues import finding
from whichcar.data.dataset import Collection
from whichcar.data.duplicates.find import Duplicates, Pair
from whichcar.data.split.groups import likely_groups
from whichcar.data.split_names import TEST, TRAIN, VALIDATION
from whichcar.records import Finding
from whichcar.text import plural

_SPLITS = {TEST: 0, VALIDATION: 1, TRAIN: 2, "": 3}  # of several copies, the one in the first of these splits is kept

Rank = Callable[[int], tuple[int, int]]


def of_copies(collection: Collection, copies: Duplicates) -> Iterator[Finding]:
    """Yield findings for each copy except the one that is kept of its group, and for copies that are leaks."""

    def rank(number: int) -> tuple[int, int]:
        return _SPLITS[collection.entries[number].split], number

    contents = {group[0]: sorted(group, key=rank) for group in copies.exact}
    for kept, *others in contents.values():
        for other in others:
            yield from _of_pair(collection, kept, other, "exact_duplicate", "the same bytes as")
    best = {first: group[0] for first, group in contents.items()}
    for pair in _outwards(copies.near, lambda first: rank(best.get(first, first))):
        detail = f"{pair.similarity:.2f} alike{', mirrored' if pair.mirrored else ''}:"
        for other in contents.get(pair.second, [pair.second]):
            yield from _of_pair(collection, best.get(pair.first, pair.first), other, "near_duplicate", detail)
    same = {number: group for group in contents.values() for number in group}
    for group in copies.groups():
        kept, *others = sorted(group, key=rank)
        for other in others:
            yield from _of_leak(collection, kept, other, certain=other in same.get(kept, ()))


def of_groups(collection: Collection) -> Iterator[Finding]:
    """Yield one finding for each likely group of images that lies in several splits."""
    split_of = {entry.path: entry.split for entry in collection.entries if entry.class_name and entry.split}
    classes: dict[str, list[str]] = defaultdict(list)
    for entry in collection.entries:
        if entry.path in split_of:
            classes[entry.class_name].append(entry.path)
    for group in likely_groups(classes):
        held, *others = sorted(group, key=lambda path: (_SPLITS[split_of[path]], path))
        if apart := [path for path in others if split_of[path] != split_of[held]]:
            detail = f"its name begins like that of {plural(len(apart), 'image')} in another split, such as {apart[-1]}"
            yield finding(held, "likely_group", detail, apart[-1])


def _outwards(pairs: Sequence[Pair], rank: Rank) -> Iterator[Pair]:
    """Yield the pairs so that `second` is always new, and `first` is the best of its group or an earlier `second`."""
    links: dict[int, list[tuple[int, Pair]]] = defaultdict(list)
    for pair in pairs:
        links[pair.first].append((pair.second, pair))
        links[pair.second].append((pair.first, pair))
    seen: set[int] = set()
    for start in sorted(links, key=rank):
        reached = [] if start in seen else [start]
        seen.add(start)
        for one in reached:
            for other, pair in links[one]:
                if other not in seen:
                    seen.add(other)
                    reached.append(other)
                    yield replace(pair, first=one, second=other)


def _of_pair(collection: Collection, kept: int, other: int, issue: str, relation: str) -> Iterator[Finding]:
    one, copy = collection.entries[kept], collection.entries[other]
    yield finding(copy.path, issue, f"{relation} {one.path}", one.path)
    if one.class_name and copy.class_name and one.class_name != copy.class_name:
        for this, that in ((copy, one), (one, copy)):
            detail = f"is {this.class_name!r}, but {that.path} is {that.class_name!r}"
            yield finding(this.path, "label_conflict", detail, that.path, _severity(issue == "exact_duplicate"))


def _of_leak(collection: Collection, kept: int, other: int, certain: bool) -> Iterator[Finding]:
    one, copy = collection.entries[kept], collection.entries[other]
    if one.split and copy.split and one.split != copy.split:
        detail = f"in {copy.split}, and in {one.split} as {one.path}"
        certain = certain or one.class_name == copy.class_name
        yield finding(copy.path, "leak", detail, one.path, _severity(certain))


def _severity(certain: bool) -> str:
    """Return the severity. Different cars in one studio can look nearly the same; then only equal bytes are certain."""
    return "error" if certain else "warning"
