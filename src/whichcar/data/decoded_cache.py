"""The decoded cache: images decoded once, resized to one size, as rows of a file shared by epochs and trials.

The file is an ordinary `.npy` of uint8 (images, height, width, 3). Batches are read with `pread` instead of being
memory-mapped: mapped pages count towards the process's memory, which then grows with the number of images. Both ways
use the operating system's page cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from whichcar.environment import cache_root
from whichcar.errors import DataError, ImageError
from whichcar.files import checksum, is_disk_full, read_json, write_json
from whichcar.images.problems import is_passing
from whichcar.images.read import read_resized
from whichcar.parallel import ordered_map
from whichcar.progress import track
from whichcar.records import Skipped
from whichcar.text import plural, reason_of

FORMAT = 5
IMAGES = "images.npy"
INDEX = "index.json"
_UNREADABLE = "unreadable: "  # prefix of what replaces the checksum
_FILES = 16  # number of files a thread computes checksums for at a time
_KEY = re.compile(r"[0-9a-f]{20}")
_ABANDONED = 600.0  # seconds without a write
_UNFINISHED = re.compile(rf"\.{_KEY.pattern}-[0-9a-f]{{8}}")


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """One cache on disk. `bytes` is its size; `created` is in seconds since 1970."""

    key: str
    path: Path
    images: int
    size: tuple[int, int]
    bytes: int
    created: float


class StoredRows:
    """Rows of an `.npy` file by number, read on demand; safe to read from several threads."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            npy.read_magic(file)
            self.shape, _, self._dtype = npy.read_array_header_1_0(file)
            self._offset = file.tell()
        self._file = os.open(path, os.O_RDONLY)
        self._row = int(np.prod(self.shape[1:])) * self._dtype.itemsize

    def __len__(self) -> int:
        return int(self.shape[0])

    def take(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the given rows as an array of shape (len(rows), ...) and the file's dtype."""
        out = np.empty((len(rows), *self.shape[1:]), self._dtype)
        for place, row in zip(out, rows, strict=True):
            if os.preadv(self._file, [place.data], self._offset + int(row) * self._row) != self._row:
                raise DataError(f"the decoded cache ends before row {row}; remove it with: whichcar cache clear")
        return out

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # it could not be opened
            os.close(self._file)


class DecodedCache(StoredRows):
    """The images of one cache by row number, (height, width, 3) uint8 each.

    Args:
        folder: the cache's folder.
        paths: the current paths of the images; the cache may have been built from copies elsewhere.
    """

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        index = read_json(folder / INDEX, {"skipped": list}, _clear(folder))
        self.key = folder.name
        self.skipped = [Skipped(paths[row], f"{paths[row]}: {reason}") for row, reason in index["skipped"]]
        super().__init__(folder / IMAGES)


def decode_all(
    paths: Sequence[Path], size: tuple[int, int], root: Path | None = None, workers: int | None = None
) -> DecodedCache:
    """Return the decoded images, building the cache unless one with the same contents and size exists.

    Row i holds `paths[i]`. An image that cannot be read is a black row and is listed in `.skipped` with the reason.

    Args:
        paths: images; their names and contents and `size` form the cache's key, so any change creates a new cache.
        size: (height, width); images are resized to it, bilinear with anti-aliasing.
        root: folder of the caches (default: `cache_root()`).
        workers: decoding threads (default: the processors this process may use).

    Raises:
        DataError: there are no images, none of them can be read, the cache cannot be written (such as on a full disk),
            or the system has too little memory or too few file handles for an image.
    """
    if not paths:
        raise DataError("there is no image to decode; give a folder with images")
    root = root or cache_root()
    groups = [paths[start : start + _FILES] for start in range(0, len(paths), _FILES)]
    sums = itertools.chain.from_iterable(ordered_map(_checksums, groups, workers))
    known = list(track(sums, "checking for decoded images at {}x{}".format(*size), len(paths)))
    folder = root / _key(paths, known, size)
    if not _is_whole(folder):
        _build(folder, paths, size, _decoded(paths, known, size, workers))
    return DecodedCache(folder, paths)


def list_caches(root: Path | None = None) -> list[CacheInfo]:
    """Return the caches, oldest first."""
    caches = []
    for index in (root or cache_root()).glob(f"*/{INDEX}"):
        if not _KEY.fullmatch(index.parent.name):
            continue
        folder = index.parent
        content = read_json(index, {"size": list, "images": int, "created": float}, _clear(folder))
        size = sum(file.stat().st_size for file in folder.iterdir())
        height, width = content["size"]
        caches.append(CacheInfo(folder.name, folder, content["images"], (height, width), size, content["created"]))
    return sorted(caches, key=lambda info: info.created)


def _clear(folder: Path) -> str:
    return f"remove it with: whichcar cache clear {folder.name}"


def clear_caches(key: str | None = None, root: Path | None = None) -> int:
    """Delete the cache `key`, or all caches and the remains of unfinished builds, and return how many.

    Other files, and caches that another process is building, are kept.

    Raises:
        DataError: there is no cache `key`.
    """
    root = root or cache_root()
    names = [folder.name for folder in root.iterdir()] if root.is_dir() else []
    caches = [name for name in names if _KEY.fullmatch(name) or (_UNFINISHED.fullmatch(name) and key is None)]
    chosen = [name for name in caches if key in (None, name)]
    if key is not None and not chosen:
        raise DataError(f"{root}: no cache {key}; `whichcar cache` lists them")
    folders = [root / name for name in chosen if not _is_being_built(root / name)]
    for folder in folders:
        _remove(folder)
    return len(folders)


def _is_whole(folder: Path) -> bool:
    return (folder / INDEX).exists() and (folder / IMAGES).exists()


def _is_being_built(folder: Path) -> bool:
    """Return True while a process writes the images, which it keeps locked."""
    try:
        with (folder / IMAGES).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


def _remove(folder: Path) -> None:
    """Delete a cache; if interrupted, leave a folder that counts as unfinished, not half a cache."""
    if _KEY.fullmatch(folder.name):
        folder = folder.rename(_unfinished(folder))
    shutil.rmtree(folder)


def _remove_abandoned(root: Path) -> None:
    """Delete what killed builds left. The age is for file systems without locks, and for a build about to lock."""
    for images in root.glob(f".*/{IMAGES}"):
        with contextlib.suppress(OSError):  # removed meanwhile
            age = time.time() - images.stat().st_mtime
            if age > _ABANDONED and _UNFINISHED.fullmatch(images.parent.name) and not _is_being_built(images.parent):
                shutil.rmtree(images.parent)


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")


def _checksums(paths: Sequence[Path]) -> list[str]:
    return [_checksum(path) for path in paths]


def _checksum(path: Path) -> str:
    try:
        return checksum(path)
    except OSError as error:
        return f"{_UNREADABLE}{error.strerror}"


def _key(paths: Sequence[Path], sums: Sequence[str], size: tuple[int, int]) -> str:
    digest = hashlib.blake2b(json.dumps([FORMAT, size]).encode(), digest_size=10)
    for path, content in zip(paths, sums, strict=True):
        digest.update(f"{path.parent.name}/{path.name}\0{content}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _build(folder: Path, paths: Sequence[Path], size: tuple[int, int], images: Iterator[np.ndarray | str]) -> None:
    unfinished = _unfinished(folder)
    try:
        _remove_abandoned(folder.parent)
        unfinished.mkdir(parents=True)
        skipped = _write_images(unfinished / IMAGES, images, (len(paths), *size, 3))
        if len(skipped) == len(paths):
            raise DataError(
                f"none of {plural(len(paths), 'image')} can be read; the first: {paths[0]}: {skipped[0][1]}"
            )
        if not (unfinished / IMAGES).exists():
            raise DataError(f"{unfinished}: was removed while it was written; run the same command again")
        index = {"images": len(paths), "size": size, "created": time.time(), "skipped": skipped}
        write_json(unfinished / INDEX, index)
        if folder.exists() and not _is_whole(folder):
            _remove(folder)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process may have built the same cache meanwhile; its copy is just as good.
            if not _is_whole(folder):
                raise
    except OSError as error:
        raise DataError(_not_built(folder.parent, error, len(paths) * size[0] * size[1] * 3)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _not_built(root: Path, error: OSError, needed: int) -> str:
    """Return why a cache of `needed` bytes cannot be written, and what to do."""
    reason = error.strerror or str(error)
    if not is_disk_full(error):
        return (
            f"{root}: the decoded cache cannot be written there ({reason}); set WHICHCAR_CACHE to a folder that can be "
            "written"
        )
    amount = f"{needed / 1e9:.1f} GB" if needed >= 1e9 else f"{max(1, round(needed / 1e6))} MB"
    return (
        f"{root}: {reason}; the decoded cache needs {amount}: make room (whichcar cache), or set WHICHCAR_CACHE to a "
        "folder on a larger disk"
    )


def _write_images(
    target: Path, images: Iterator[np.ndarray | str], shape: tuple[int, int, int, int]
) -> list[tuple[int, str]]:
    """Write all rows; return the numbers of the images that cannot be read, each with the reason."""
    skipped = []
    with target.open("wb") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for row, decoded in enumerate(images):
            if isinstance(decoded, str):
                skipped.append((row, decoded))
                decoded = np.zeros(shape[1:], np.uint8)
            file.write(decoded.data)
        file.flush()
        os.fsync(file.fileno())
    return skipped


def _decoded(
    paths: Sequence[Path], sums: Sequence[str], size: tuple[int, int], workers: int | None
) -> Iterator[np.ndarray | str]:
    """Yield each image decoded, or the reason why it cannot be read, in order, with only a few per thread in memory.

    Raises:
        DataError: the system temporarily cannot read an image; the cache would otherwise record it as damaged.
    """

    def decode(item: tuple[Path, str]) -> np.ndarray | str:
        path, content = item
        try:
            return read_resized(path, size)
        except ImageError as error:
            if is_passing(error) and not content.startswith(_UNREADABLE):
                reason = f"cannot be read at the moment ({reason_of(error.__cause__ or error)})"
                raise DataError(f"{path}: {reason}; run the same command again") from error
            return error.reason

    images = ordered_map(decode, zip(paths, sums, strict=True), workers)
    return track(images, "decoding images at {}x{}".format(*size), len(paths))
