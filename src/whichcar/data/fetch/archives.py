"""Unpack archives from untrusted sources: nothing may be written outside the target, and nothing may fill the disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from whichcar import files
from whichcar.errors import DataError
from whichcar.progress import Bar
from whichcar.text import reason_of

KINDS = ".tar, .tar.gz, .tgz, .tar.bz2, .tar.xz and .zip"
TABLES = (".csv", ".mat", ".parquet")  # files that a set of images may contain besides images
MOST_BYTES = 200_000_000_000
MOST_FILES = 5_000_000
MOST_RATIO = 200  # of unpacked to packed bytes, above a hundred megabytes
MOST_FOLDERS = 100
_SMALL = 100_000_000
_MOST_HEADER = 1_000_000  # bytes of a tar header, such as a long name, which is read into memory at once
_CHUNK = 1 << 20
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_END_OF_TAR = 1024  # zero bytes
BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error),
    *(EOFError, NotImplementedError, UnicodeDecodeError),
)


class _Header(tarfile.TarInfo):
    # Python's own entry point for subclasses. Newer versions do not call `frombuf` for every header.
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        about = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
        if self.type in (*about, tarfile.SOLARIS_XHDTYPE) and self.size > _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size // 1_000_000} MB")
        return cast("tarfile.TarInfo", super()._proc_member(archive))  # type: ignore[misc]


class Member(NamedTuple):
    """One file in an archive; `problem` says why it is refused, or is empty."""

    name: str
    problem: str
    content: IO[bytes] | None


def is_archive(path: Path) -> bool:
    """Return True for a zip or tar, compressed or not, judging by the first bytes."""
    start = _beginning(path)
    return start.startswith((*_ZIP, *_PACKED)) or start[257:262] == b"ustar"


def unpack(archive: Path, target: Path) -> int:
    """Unpack a tar (also gz, bz2, xz) or zip into `target` and return the number of files.

    Hidden files and `__MACOSX` are skipped, and so is a file that exists already, unless it is an image or a table.
    If unpacking fails, the files written so far are left, so pass a folder that can be deleted.

    Raises:
        DataError: the archive cannot be read to its end; contains absolute paths, paths outside the target, links,
            devices, duplicate names, encrypted files, or images or tables that exist already; or exceeds the limits of
            this module.
    """
    packed = archive.stat().st_size
    seen: set[str] = set()
    written = 0
    try:
        members = _zip(archive) if _beginning(archive).startswith(_ZIP) else _tar(archive)
        with Bar(f"unpacking {archive.name}", None, "files") as bar:
            for member in members:
                place = _place(archive, member)
                if place is None:
                    continue
                if place in seen:
                    raise _hostile(archive, member.name, "is in it twice")
                if len(seen) >= MOST_FILES:
                    raise _hostile(archive, member.name, f"is one of more than {MOST_FILES} files")
                seen.add(place)
                try:
                    written = _write(archive, member, target / place, written, packed)
                except (FileExistsError, NotADirectoryError) as error:
                    if files.is_image(place) or place.lower().endswith(TABLES):
                        what = "is in another source too" if (target / place).exists() else "lies in what is a file too"
                        raise DataError(f"{archive}: {_short(member.name)} {what}; keep one") from error
                bar.update()
    except BROKEN as error:
        raise DataError(f"{archive}: cannot be unpacked ({reason_of(error)}); fetch it again") from error
    return len(seen)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _tar(archive: Path) -> Iterator[Member]:
    """Yield the files of a tar, compressed or not, then read it to its end, since checksums are verified only there."""
    start = _beginning(archive)
    opened: Any = next((way for magic, way in _PACKED.items() if start.startswith(magic)), open)
    with opened(archive, "rb") as plain:
        yield from tar_members(plain)


def tar_members(plain: IO[bytes]) -> Iterator[Member]:
    """Yield the files of an uncompressed tar, reading it once from its beginning, and check that it is complete.

    Raises:
        tarfile.TarError: the tar is damaged, or its end is missing; other errors of `BROKEN` are possible too.
    """
    whole = _Tail(plain)
    with tarfile.open(fileobj=cast("IO[bytes]", whole), mode="r|", tarinfo=_Header) as tar:  # it only reads
        for entry in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
            if entry.isdir():
                continue
            kind = "is a link" if entry.islnk() or entry.issym() else "is not a regular file"
            problem = "" if entry.isreg() else kind
            yield Member(entry.name, problem, tar.extractfile(entry) if not problem else None)
    while whole.read(_CHUNK):
        pass
    if whole.last.strip(b"\0") or len(whole.last) < _END_OF_TAR:
        raise tarfile.ReadError("it ends too early")


class _Tail:
    """A file that is read once and remembers its last bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.last = file, b""

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        self.last = (self.last + block)[-_END_OF_TAR:]
        return block


def _zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as found:
        for entry in found.infolist():
            if entry.filename.endswith(("/", "\\")):  # some Windows tools write backslashes
                continue
            kind = stat.S_IFMT(entry.external_attr >> 16)
            problem = "is a link" if kind == stat.S_IFLNK else "is encrypted" if entry.flag_bits & 1 else ""
            if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
                problem = "is not a regular file"
            name = _zip_name(entry)
            if problem:
                yield Member(name, problem, None)
                continue
            with found.open(entry) as content:
                yield Member(name, "", content)


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """Return the name of an entry, even if it is UTF-8 and not marked as such."""
    try:
        return entry.filename if entry.flag_bits & 0x800 else entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


def _place(archive: Path, member: Member) -> str | None:
    """Return a member's path relative to the target, or None if it is to be skipped."""
    name = member.name.replace("\\", "/")
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    if name.startswith("/") or (parts and re.fullmatch("[A-Za-z]:", parts[0])):
        raise _hostile(archive, member.name, "has an absolute path")
    if ".." in parts or "\0" in name:
        raise _hostile(archive, member.name, "points outside the folder")
    if len(parts) > MOST_FOLDERS:
        raise _hostile(archive, member.name, f"lies more than {MOST_FOLDERS} folders deep")
    if member.problem:
        raise _hostile(archive, member.name, member.problem)
    if not parts or any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return None
    return "/".join(parts)


def _write(archive: Path, member: Member, target: Path, written: int, packed: int) -> int:
    """Write one file and return the bytes written so far in total, counting actual bytes, not the declared size."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        while member.content is not None and (block := member.content.read(_CHUNK)):
            written += len(block)
            if written > MOST_BYTES or (written > _SMALL and written > MOST_RATIO * packed):
                raise _hostile(archive, member.name, f"makes it unpack to more than {written // 1_000_000} MB")
            file.write(block)
    return written


def _hostile(archive: Path, name: str, why: str) -> DataError:
    return DataError(f"{archive}: {_short(name)} {why}; it is not unpacked: get the archive from a source you trust")


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:77]}...")
