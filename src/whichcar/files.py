"""Atomic writes, links, checksums, locks, and walks over images in a fixed order."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from whichcar.errors import DataError
from whichcar.text import as_text, plural, reason_of

# Image formats by Pillow's names, with their file suffixes. No other format is ever opened: Pillow knows some that
# start another program (EPS), and others that have not been tested here.
IMAGE_FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
}
_RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw")  # of cameras
UNOPENED_SUFFIXES = frozenset((".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".psd", *_RAW_SUFFIXES))
IMAGE_SUFFIXES = frozenset(suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes)
NO_IMAGES = f"no images in it; the name of an image ends in {', '.join(sorted(IMAGE_SUFFIXES))}"

# Files of an experiment's folder: written by training,
CONFIG, RESOLVED, ENVIRONMENT, TRACKING = "config.yml", "resolved.json", "environment.json", "tracking.json"
HISTORY, CURVES, BEST = "history.csv", "curves.png", "best.json"
STATE, LOCK = "state/state.npz", "state/lock"
# and by evaluation.
RESULT, PREDICTIONS, REPORT, PLOTS = "result.json", "predictions.csv", "report.html", "plots"
EVALUATIONS, TEST_USES, CALIBRATION = "evaluations", "test_uses.json", "calibration.json"
# The networks that `whichcar check --folds` trains, in the experiment's folder.
LABEL_FOLDS = "label_folds"
# Files of a search's folder that other modules read.
TRIALS, SWEEP = "trials.csv", "sweep.json"
# The record that `whichcar crop` writes to its output folder.
CROP_RECORD = "crop.json"
# The subfolder of an experiment that holds its refit.
REFIT = "refit"

DISK_FULL = "the disk is full"  # in the error of a training; a search stops there
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path next to `path` to write to; it replaces `path` after the block, or is deleted if the block raises.

    The yielded name keeps the suffix of `path`, because writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{os.urandom(16).hex()}{path.suffix}")
    try:
        yield tmp
        with tmp.open("rb") as file:
            os.fsync(file.fileno())
        tmp.replace(path)
    except OSError as error:
        # The error names the temporary file, which means nothing to the user, or no file, as write errors do.
        if str(error.filename) == str(tmp) or (error.filename is None and error.errno in _FULL):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        tmp.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Check, before long work, that a file can be written to `path`; nothing is created.

    Raises:
        OSError: `path` is a folder, or no file can be created in its folder (or the nearest existing one above).
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    folder = next(above for above in path.absolute().parents if above.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        error.filename = str(path)
        raise


@contextlib.contextmanager
def temporary_folder(room: int) -> Iterator[Path]:
    """Yield a temporary folder with `room` bytes free, for libraries whose errors do not say that a disk is full.

    Raises:
        OSError: less space is free.
    """
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tempfile.gettempdir())
        yield Path(folder)


@contextlib.contextmanager
def system_errors(path: Path, what: str, advice: str) -> Iterator[None]:
    """Convert an OSError raised in the block to a DataError: `PATH: WHAT (reason); ADVICE`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: {what} ({error.strerror}); {advice}") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically as UTF-8; bytes in it that are not UTF-8 become escapes, as for `as_text`."""
    with atomic_write(path) as tmp:
        tmp.write_text(as_text(text), encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with a header row atomically as CSV; bytes that are not UTF-8 become escapes."""
    with atomic_write(path) as tmp, tmp.open("w", encoding="utf-8", newline="") as file:
        file.writelines(as_text(f"{csv_line(row)}\n") for row in itertools.chain([columns], rows))


def csv_line(cells: Iterable[object]) -> str:
    """Return a CSV row without its line ending; a cell with a carriage return is quoted, like one with a line feed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # before Python 3.13 only its characters trigger quoting
    return text.getvalue().removesuffix("\r\n")


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401  (whatever JSON can hold)
    """Write `content` atomically as indented JSON; `read_json` restores even paths that are not valid UTF-8.

    Raises:
        ValueError: a number in it is NaN or infinite, which JSON cannot represent; unknown values must be None.
    """
    # `write_text` escapes a byte that is not UTF-8, as \udcff for example, which JSON reads back as that surrogate.
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(
    path: Path,
    keys: Mapping[str, type] | None = None,
    fix: str = "delete it and make it again",
) -> dict[str, Any]:
    """Read a JSON object that the program wrote.

    Args:
        path: the file.
        keys, fix: as for `parse_json`.

    Raises:
        DataError: there is no such file, or as for `parse_json`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; {fix}") from error
    except OSError as error:
        raise DataError(f"{path}: damaged, not readable as JSON ({reason_of(error)}); {fix}") from error
    return parse_json(content, path, keys, fix)


def parse_json(
    text: bytes,
    path: str | Path,
    keys: Mapping[str, type] | None = None,
    fix: str = "delete it and make it again",
) -> dict[str, Any]:
    """Parse the content of a file as a JSON object.

    Args:
        text: the content.
        path: the name of the file in messages.
        keys: the required keys and their types; `a.b` is `b` in `a`, and `a?` may be missing. An integer counts as a
            float.
        fix: what the user can do if the file is damaged; it ends the message.

    Raises:
        DataError: the content is not a JSON object, or one of `keys` is missing or has another type.
    """
    try:
        content = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged, not readable as JSON ({reason_of(error)}); {fix}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: damaged, holds {_kind(type(content))} instead of an object; {fix}")
    for key, kind in (keys or {}).items():
        value = _inner(content, key.rstrip("?"))
        if value is None and key.endswith("?"):
            continue
        if not isinstance(value, (int, float) if kind is float else kind) or (
            isinstance(value, bool) and kind is not bool
        ):
            found = "is missing" if value is None else f"is {_kind(type(value))} instead of {_kind(kind)}"
            raise DataError(f"{path}: damaged, `{key.rstrip('?')}` {found}; {fix}")
    return content


def _inner(content: Any, key: str) -> Any:  # noqa: ANN401  (whatever JSON can hold)
    for name in key.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _kind(kind: type) -> str:
    """Return what JSON calls values of this type."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(kind, "a number")


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` as `target`, or copy it if it cannot be linked, such as to another file system."""
    try:
        os.link(source.resolve(), target)  # an image may itself be a symbolic link
    except OSError as error:
        if not is_other_disk(error) and error.errno not in (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        with atomic_write(target) as tmp:
            shutil.copyfile(source, tmp)


def remove_empty(folder: Path) -> None:
    """Remove a folder if it is empty, then each one above it that is empty then.

    A class folder without an image could not be trained on.
    """
    with contextlib.suppress(OSError):  # not empty, or not there
        os.removedirs(folder)


def checksum(path: Path) -> str:
    """Return the BLAKE2b-128 of a file's bytes as 32 hexadecimal digits."""
    with _opened(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal, as published with downloads."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(path: Path) -> BufferedReader:
    """Open a regular file for reading; a named pipe would block for ever.

    Raises:
        OSError: it is missing, unreadable, or not a regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.open("rb")


@contextlib.contextmanager
def locked(path: Path, wait: bool = False, remove: bool = False) -> Iterator[None]:
    """Hold a lock on `path` while the block runs; the operating system releases it if the process ends.

    Args:
        path: a file for this lock alone; it is kept, unless `remove`.
        wait: wait until another process, or another thread of this one, releases the lock.
        remove: delete the file at the end, and the folders created for it that are then empty; not with `wait`.

    Raises:
        BlockingIOError: another process or thread holds the lock, and `wait` is false; or it has just deleted the file.
    """
    new = list(itertools.takewhile(lambda parent: not parent.exists(), path.parents))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if remove and not (path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())):
            raise BlockingIOError(errno.EAGAIN, "its last holder has just removed it", str(path))
        try:
            yield
        finally:
            if remove:
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty
                    for folder in new:
                        folder.rmdir()


def is_other_disk(error: OSError) -> bool:
    """Return whether a file could not be linked or renamed because the target is on another file system."""
    return error.errno == errno.EXDEV


def is_disk_full(error: OSError) -> bool:
    """Return whether the system refused to write because the disk, a quota or a size limit is used up."""
    # HDF5 reports the error number only in its message.
    return error.errno in _FULL or any(f"errno = {number}," in str(error) for number in _FULL)


def folders(root: Path) -> list[Path]:
    """Return the visible folders in `root`, sorted by name, and links to folders, except to `root` or one above it."""
    here = (root.resolve(),)
    with os.scandir(root) as found:
        entries = [Path(entry.path) for entry in found if is_visible(entry.name) and _is_folder(entry)]
    return sorted(entry for entry in entries if not _leads_up(entry, here))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one, without a system call if the listing says so."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def is_visible(name: str) -> bool:
    """Return whether a file or folder is neither hidden nor the metadata folder in archives from a Mac."""
    return not name.startswith(".") and name != "__MACOSX"


def is_image(path: str | Path) -> bool:
    """Return whether a name has an image suffix."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_unopened(path: str | Path) -> bool:
    """Return whether a name has the suffix of an unsupported image format, such as HEIC."""
    return Path(path).suffix.lower() in UNOPENED_SUFFIXES


def not_opened(folder: Path | str, count: int) -> str:
    """Return the message about the files of `UNOPENED_SUFFIXES` among the images of a folder."""
    files = plural(count, "file")
    return f"{folder}: {files} of a format that is not opened, such as HEIC, not used; convert to JPEG or PNG"


def is_broken_link(path: Path) -> bool:
    """Return whether a path is a symbolic link to a missing target."""
    return path.is_symlink() and not path.exists()


def images(root: Path) -> list[Path]:
    """Return what `walk_images` yields, as paths."""
    return [root / inside for inside in walk_images(root)]


def walk_images(root: Path) -> Iterator[str]:
    """Yield the images (by suffix) that `walk` finds, without holding all of them in memory.

    A broken link is yielded whatever its name, so that reading it reports what is wrong.
    """
    return (inside for inside in walk(root) if is_image(inside) or is_broken_link(root / inside))


def walk(root: Path, entered: tuple[Path, ...] = ()) -> Iterator[str]:
    """Yield every file at any depth under `root`, as a path relative to it with `/`, sorted within each folder.

    Links are followed, except to a folder that contains the link itself, which would never end. Hidden files and
    folders are skipped.

    Args:
        root: a folder; nothing is yielded if it does not exist.
        entered: the resolved folders that contain the links followed so far.

    Raises:
        PermissionError: a folder cannot be listed; its files would be left out silently.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(root) as found:
        for entry in sorted(found, key=lambda one: one.name):
            path, passed = Path(entry.path), entered
            if not is_visible(entry.name):
                continue
            if not _is_folder(entry):
                yield entry.name
                continue
            if entry.is_symlink():
                passed = (*entered, root.resolve())
                if _leads_up(path, passed):
                    continue
            yield from (f"{entry.name}/{inside}" for inside in walk(path, passed))


def _leads_up(path: Path, places: Iterable[Path]) -> bool:
    """Return whether `path` is a link to a folder that contains one of these places."""
    return path.is_symlink() and any(place.is_relative_to(path.resolve()) for place in places)
