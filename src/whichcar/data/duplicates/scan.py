"""The scan of each image file: header, fingerprint and measures, cached on disk so that no content is decoded twice.

A scan belongs to a content, identified by its checksum. The checksum of a file is stored with its device, inode, size,
modification time and change time (ctime). A file for which any of these differs is read again, but decoded only if its
content is new. A hard link, a copy or a rename therefore costs a read, and a file that was replaced without a change of
size and date, or that got another file's inode, is scanned correctly. The scans are in `scans.db` in the cache folder,
an SQLite file that survives a crash. If that file cannot be used, or can no longer be used, scans are kept in memory
and a warning is logged.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from whichcar.data.duplicates.fingerprint import Fingerprint, fingerprint
from whichcar.environment import cache_root
from whichcar.errors import DataError, ImageError, TruncatedImageError
from whichcar.files import checksum, is_disk_full
from whichcar.images.pixels import Pixels
from whichcar.images.problems import is_passing
from whichcar.images.read import decoded
from whichcar.parallel import Done, ordered_map
from whichcar.records import ImageHeader
from whichcar.text import one_line, shell_command

log = logging.getLogger(__name__)

FILE = "scans.db"
EDITION = 4  # increased whenever the same file results in another scan
_SIZE = (224, 224)  # an image is decoded at this size, or the next larger one its decoder offers
_RECENT = 50_000_000  # nanoseconds; file systems count time in ticks of up to 10 ms, and two changes may share a tick
_CREATE = """
create table if not exists files (
  device integer, inode integer, size integer, modified integer, changed integer, checksum blob,
  primary key (device, inode));
create table if not exists contents (
  checksum blob primary key, problem text, truncated integer,
  format text, mode text, width integer, height integer, orientation integer, animated integer,
  hash integer, mirrored integer, thumbnail blob, measures blob);
create table if not exists pairs (first blob, second blob, mirrored integer, similarity real,
  primary key (first, second, mirrored));
"""

_ELSEWHERE = "set WHICHCAR_CACHE to a folder that can be written"
_ROOM = "make room, or set WHICHCAR_CACHE to a folder on a larger disk"

_Key = tuple[int, ...]
Measure = Callable[[Pixels], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of scanning one image file.

    `problem` says why the file cannot be read; it is "" if it can, and `header` and `fingerprint` are then set.
    `checksum` is BLAKE2b-128 of its bytes, or b"" if even these cannot be read. `measures` are those that the caller
    of `ScanCache.scan` asked for.
    """

    checksum: bytes
    problem: str
    truncated: bool
    header: ImageHeader | None
    fingerprint: Fingerprint | None
    measures: tuple[float, ...]


class ScanCache:
    """All scans so far, stored in a file; a context manager.

    Args:
        path: the SQLite file (default: in the cache folder).
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_root() / FILE
        self._turn = threading.Lock()  # two threads must not use a connection's prepared statements at the same time

    def __enter__(self) -> Self:
        """Open the file, or create it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._base = _opened(self.path)
        except (OSError, sqlite3.Error) as error:
            self._base = _opened(":memory:")
            self._warn(error)
        self._left: sqlite3.Connection | None = None
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        for base in filter(None, (self._base, self._left)):
            base.close()

    def scan(self, paths: Iterable[Path], measure: Measure | None = None, workers: int | None = None) -> Iterator[Scan]:
        """Yield the scan of each file, in order; files that may have changed are read on all processors.

        Args:
            paths: image files; only a few are in progress at a time, however many there are.
            measure: computes further numbers from an image of about 224 x 224 pixels or more; cached scans without
                them are then redone.
            workers: threads (default: the processors this process may use).

        Raises:
            DataError: the cache file turns out to be damaged.
        """

        def scanned_now(file: tuple[Path, _Key | None]) -> tuple[_Key | None, Scan]:
            path, key = file
            return key, scan_file(path, measure, lambda content: self._known_content(content, measure is not None))

        def files() -> Iterator[tuple[Path, _Key | None] | Done[Scan]]:
            for path in paths:
                key = _key(path)
                known = self._known(key, measure is not None) if key else None
                yield Done(known) if known else (path, key)

        for scanned in ordered_map(scanned_now, files(), workers):
            yield scanned if isinstance(scanned, Scan) else self._kept(*scanned)

    def knows(self, path: Path) -> bool:
        """Return True if the scan of a file, with measures, is known, so that `scan` need not read the file."""
        key = _key(path)
        return key is not None and self._known(key, measured=True) is not None

    def take(self, path: Path, state: tuple[int, ...] | None, scan: Scan) -> None:
        """Store the scan of a file that another process made, possibly on another machine.

        Args:
            path: the file; if its state has changed since then, the scan is stored only for the content scanned.
            state: what `state_of` returned before the scan.
            scan: the result.
        """
        key = _key(path)
        self._kept(key if key and key[2:] == state else None, scan)

    def similarity(self, first: bytes, second: bytes, mirrored: bool) -> float | None:
        """Return the stored similarity of the contents with these checksums, or None if it is not known."""
        query = "select similarity from pairs where first=? and second=? and mirrored=?"
        found = self._one(query, (*sorted((first, second)), mirrored))
        return found[0] if found else None

    def keep_similarity(self, first: bytes, second: bytes, mirrored: bool, similarity: float) -> None:
        """Store the similarity of the contents with these checksums."""
        self._insert("pairs", (*sorted((first, second)), mirrored, similarity))

    def fingerprint(self, content: bytes) -> Fingerprint:
        """Return the fingerprint of the content with this checksum, which must have been scanned."""
        query = "select hash, mirrored, thumbnail from contents where checksum=?"
        return Fingerprint(*self._one(query, (content,)))

    def _known(self, key: _Key, measured: bool) -> Scan | None:
        """Return the scan of a file that has not changed since."""
        query = "select checksum from files where device=? and inode=? and size=? and modified=? and changed=?"
        row = self._one(query, key)
        return self._known_content(row[0], measured) if row else None

    def _known_content(self, content: bytes, measured: bool) -> Scan | None:
        row = self._one("select * from contents where checksum=?", (content,))
        scan = from_row(row) if row else None
        return None if scan and measured and not scan.problem and not scan.measures else scan

    def _kept(self, key: _Key | None, scan: Scan) -> Scan:
        """Store a scan and return it; the scan of a file that could not be read at all is not stored."""
        if scan.checksum:
            self._insert("contents", to_row(scan))
            if key:
                self._insert("files", (*key, scan.checksum))
        return scan

    def _one(self, query: str, values: Sequence[Any]) -> Any:  # noqa: ANN401  (a row of any columns, or None)
        try:
            with self._turn:
                return self._base.execute(query, values).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def _insert(self, table: str, row: tuple[Any, ...]) -> None:
        statement = f"insert or replace into {table} values ({','.join('?' * len(row))})"
        try:
            with self._turn:
                self._base.execute(statement, row)
        except sqlite3.DatabaseError as error:
            if self._left is not None:  # it is in memory already
                raise
            self._move_to_memory(error)
            self._base.execute(statement, row)

    def _move_to_memory(self, error: sqlite3.Error) -> None:
        """Continue in memory; the file stays open, since threads may be reading it."""
        memory = _opened(":memory:")
        try:
            self._base.backup(memory)
        except sqlite3.Error as damage:
            raise self._unusable(damage) from error
        self._base, self._left = memory, self._base
        self._warn(error)

    def _warn(self, error: OSError | sqlite3.Error) -> None:
        reason, advice = _reason_and_advice(self.path, error)
        log.warning(
            "%s: cannot be written (%s); continuing without it, so images are scanned again next time; %s",
            one_line(self.path),
            reason,
            advice,
        )

    def _unusable(self, error: sqlite3.Error) -> DataError:
        reason, advice = _reason_and_advice(self.path, error)
        return DataError(f"{self.path}: cannot be read ({reason}); {advice}")


def scan_file(path: Path, measure: Measure | None, known: Callable[[bytes], Scan | None] = lambda _: None) -> Scan:
    """Read a file now and return its scan.

    Args:
        path: an image file.
        measure: as for `ScanCache.scan`.
        known: returns the scan of a content by its checksum, if there is one; the content is then not decoded.
    """
    content = b""
    try:
        if path.is_file():
            content = bytes.fromhex(checksum(path))
            if scan := known(content):
                return scan
        with decoded(path, at_least=_SIZE) as found:
            image, _ = found.reduced(_SIZE)
            header = found.header
    except OSError as error:
        return Scan(content, f"cannot be read ({error.strerror}); change its permissions", False, None, None, ())
    except ImageError as error:
        content = b"" if is_passing(error) else content
        return Scan(content, error.reason, isinstance(error, TruncatedImageError), None, None, ())
    return Scan(content, "", False, header, fingerprint(image), measure(image) if measure else ())


def state_of(path: Path) -> tuple[int, ...] | None:
    """Return the state of a file as all machines see it: size in bytes, modification and change time (ctime) in ns.

    The result is None if the file is missing, or changed so recently that another change might not show.
    """
    key = _key(path)
    return key and key[2:]


def _opened(path: str | Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)  # threads read, one writes
    try:
        edition = base.execute("pragma user_version").fetchone()[0]
        if edition != EDITION:
            tables = ("files", "contents", "pairs")
            base.executescript("".join(f"drop table if exists {name};" for name in tables))
        base.executescript(
            f"pragma journal_mode=wal; pragma synchronous=normal; pragma user_version={EDITION}; {_CREATE}"
        )
    except sqlite3.Error:
        base.close()
        raise
    return base


def _reason_and_advice(path: Path, error: OSError | sqlite3.Error) -> tuple[str, str]:
    """Return what is wrong with the file, and what to do."""
    if isinstance(error, OSError):
        full = is_disk_full(error)
        return error.strerror or str(error), _ROOM if full else _ELSEWHERE
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is detail
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return "it is damaged", f"delete it: {shell_command(['rm', path])}"
    return str(error), _ROOM if code == sqlite3.SQLITE_FULL else _ELSEWHERE


def _key(path: Path) -> _Key | None:
    """Return what identifies a file and its current state; None if another change might not show in it."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if time.time_ns() - status.st_ctime_ns < _RECENT:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def to_row(scan: Scan) -> tuple[Any, ...]:
    """Return a scan as values for a table."""
    header, print_ = scan.header, scan.fingerprint
    start = (scan.checksum, scan.problem, scan.truncated)
    if header is None or print_ is None:
        return (*start, *[None] * 10)
    fields = (header.format, header.mode, header.width, header.height, header.orientation, header.animated)
    measures = np.array(scan.measures, np.float64).tobytes()
    return (*start, *fields, print_.hash, print_.mirrored, print_.thumbnail, measures)


def from_row(row: tuple[Any, ...]) -> Scan:
    """Return the scan from which `to_row` made these values."""
    content, problem, truncated, *values, hashed, mirrored, thumbnail, measures = row
    if problem:
        return Scan(content, problem, bool(truncated), None, None, ())
    form, mode, width, height, orientation, animated = values
    header = ImageHeader(form, mode, width, height, orientation, bool(animated))
    numbers = tuple(np.frombuffer(measures, np.float64).tolist())
    return Scan(content, "", False, header, Fingerprint(hashed, mirrored, thumbnail), numbers)
