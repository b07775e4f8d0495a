"""The scan of each image file: header, fingerprint and measures, kept on disk so that no content is decoded twice.

A scan belongs to a content, identified by its checksum. Which content a file has is kept with its device, inode, size,
modification time and time of change (ctime). A file of which any of these differs is read again, but decoded only
where its content is new: a hard link, a copy or a rename costs a read, and a file that was replaced under the old size
and date, or another one that got its inode, is scanned as what it is. The scans are in `scans.db` in the cache folder,
an SQLite file that survives a crash. Where that file cannot be used, or not any more, scans are kept in memory, and a
warning says so.
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
EDITION = 4  # changes whenever the same file gives another scan
_SIZE = (224, 224)  # an image is decoded at this size, or the next larger one its decoder offers
_RECENT = 50_000_000  # nanoseconds; file systems count time in ticks of up to 10 ms, and two changes may share one
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
    """What one image file holds.

    `problem` says why it cannot be read ("" where it can; then it has a `header` and a `fingerprint`); `checksum` is
    BLAKE2b-128 of its bytes, b"" where even these cannot be read. `measures` are those that the caller of
    `ScanCache.scan` asked for.
    """

    checksum: bytes
    problem: str
    truncated: bool
    header: ImageHeader | None
    fingerprint: Fingerprint | None
    measures: tuple[float, ...]


class ScanCache:
    """All scans so far, in a file; a context manager.

    Args:
        path: the SQLite file (default: in the cache folder).
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_root() / FILE
        self._turn = threading.Lock()  # a connection's prepared statements are not for two threads at once

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
        """Yield the scan of each file, in order; files that may be new are read on all processors.

        Args:
            paths: image files; only a few are under way at once, however many there are.
            measure: computes further numbers from an image of about 224 x 224 pixels or more; scans without them are
                then made again.
            workers: threads (default: the processors this process may use).

        Raises:
            DataError: the file turns out to be damaged.
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
        """True where the scan of a file is known, with measures, so that `scan` need not read it."""
        key = _key(path)
        return key is not None and self._known(key, measured=True) is not None

    def take(self, path: Path, state: tuple[int, ...] | None, scan: Scan) -> None:
        """Write down the scan that another process made of a file, maybe on another machine.

        Args:
            path: the file; where its state differs by now, the scan is kept for the content that it was made of only.
            state: what `state_of` returned before the scan.
            scan: what it found.
        """
        key = _key(path)
        self._kept(key if key and key[2:] == state else None, scan)

    def similarity(self, first: bytes, second: bytes, mirrored: bool) -> float | None:
        """Return how alike the contents of two checksums were found to be, None where that is not known."""
        query = "select similarity from pairs where first=? and second=? and mirrored=?"
        found = self._one(query, (*sorted((first, second)), mirrored))
        return found[0] if found else None

    def keep_similarity(self, first: bytes, second: bytes, mirrored: bool, similarity: float) -> None:
        """Write down how alike the contents of two checksums are."""
        self._insert("pairs", (*sorted((first, second)), mirrored, similarity))

    def fingerprint(self, content: bytes) -> Fingerprint:
        """Return the fingerprint of the content of a checksum that has been scanned."""
        query = "select hash, mirrored, thumbnail from contents where checksum=?"
        return Fingerprint(*self._one(query, (content,)))

    def _known(self, key: _Key, measured: bool) -> Scan | None:
        """Return the scan of a file that is as it was."""
        query = "select checksum from files where device=? and inode=? and size=? and modified=? and changed=?"
        row = self._one(query, key)
        return self._known_content(row[0], measured) if row else None

    def _known_content(self, content: bytes, measured: bool) -> Scan | None:
        row = self._one("select * from contents where checksum=?", (content,))
        scan = from_row(row) if row else None
        return None if scan and measured and not scan.problem and not scan.measures else scan

    def _kept(self, key: _Key | None, scan: Scan) -> Scan:
        """Write down what a scan found; not of a file that could not be read at all."""
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
        """Continue without the file; it stays open, since threads may be reading it."""
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
    """Return the scan of a file that is read now.

    Args:
        path: an image file.
        measure: as for `ScanCache.scan`.
        known: gives the scan of a content by its checksum, which is then not decoded.
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
    """Return what all machines see of a file: size in bytes, modification time and time of change (ctime) in ns.

    None where a change would not show in it.
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
    """Return what is wrong with the file, and what would do."""
    if isinstance(error, OSError):
        full = is_disk_full(error)
        return error.strerror or str(error), _ROOM if full else _ELSEWHERE
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is detail
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return "it is damaged", f"delete it: {shell_command(['rm', path])}"
    return str(error), _ROOM if code == sqlite3.SQLITE_FULL else _ELSEWHERE


def _key(path: Path) -> _Key | None:
    """Return what tells a file from others and from its earlier self; None where a change would not show in it."""
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
    """Return the scan of which `to_row` made these values."""
    content, problem, truncated, *values, hashed, mirrored, thumbnail, measures = row
    if problem:
        return Scan(content, problem, bool(truncated), None, None, ())
    form, mode, width, height, orientation, animated = values
    header = ImageHeader(form, mode, width, height, orientation, bool(animated))
    numbers = tuple(np.frombuffer(measures, np.float64).tolist())
    return Scan(content, "", False, header, Fingerprint(hashed, mirrored, thumbnail), numbers)
