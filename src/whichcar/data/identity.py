"""Identify image sets by a digest that is the same for a copy elsewhere, and find images two sets have in common."""

from __future__ import annotations

import hashlib
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from os import stat_result
from pathlib import Path

from whichcar.files import checksum
from whichcar.records import Sample
from whichcar.text import nfc


def fingerprint(samples: Iterable[Sample]) -> str:
    """Return a digest of 32 hex digits that depends only on each file's class folder, name and size."""
    files = [(path, status.st_size) for path, status in _regular(sample.path for sample in samples)]
    lines = sorted(nfc(f"{path.parent.name}/{path.name}\t{size}") for path, size in files)
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def in_common(paths: Iterable[Path], others: Sequence[Path]) -> list[Path]:
    """Return the paths that are also in `others`: the same file, a link to it, or a copy with the same bytes.

    Only files of the same size are read. Files that are empty, missing or unreadable do not count as copies.
    """
    inodes = set()
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path, status in _regular(others):
        inodes.add((status.st_dev, status.st_ino))
        by_size[status.st_size].append(path)

    @cache
    def sums(size: int) -> frozenset[str]:
        return frozenset(filter(None, map(_checksum, by_size[size])))

    return [
        path
        for path, status in _regular(paths)
        if (status.st_dev, status.st_ino) in inodes
        or (status.st_size and status.st_size in by_size and _checksum(path) in sums(status.st_size))
    ]


def _regular(paths: Iterable[Path]) -> Iterator[tuple[Path, stat_result]]:
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield path, status


def _checksum(path: Path) -> str | None:
    try:
        return checksum(path)
    except OSError:
        return None
