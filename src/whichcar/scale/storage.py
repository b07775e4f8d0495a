"""One interface to folders and buckets: the files under a path or an `s3://` address."""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from whichcar import files
from whichcar.data.fetch.download import (
    BLOCK,
    TRIES,
    filesystem,
    is_final,
    is_missing,
    is_remote,
    transport_errors,
    transport_reason,
)
from whichcar.errors import DataError
from whichcar.text import as_text, without_password

log = logging.getLogger(__name__)
Result = TypeVar("Result")
PAUSE = 1.0  # seconds before the first retry, doubled for each further one


@dataclass(frozen=True, slots=True)
class Storage:
    """The files under `root`, by their names relative to it, with `/`.

    `root` is as the user gave it; `place` is independent of the working directory, for other machines.
    """

    root: str
    place: str

    @property
    def is_remote(self) -> bool:
        """True for a bucket."""
        return is_remote(self.root)

    def walk(self) -> Iterator[str]:
        """Yield the names of all files except hidden ones, sorted within each folder.

        Raises:
            DataError: a bucket does not answer, or refuses.
        """
        return (name for name, _ in self.versions())

    def versions(self) -> Iterator[tuple[str, str]]:
        """Yield what `walk` yields, each with its `version`."""
        if not self.is_remote:
            yield from ((name, self.version(name)) for name in files.walk(Path(self.place)))
            return
        prefix = self.place.partition("://")[2] + "/"
        for path, entry in sorted(self._tried(lambda: _system().find(self.place, detail=True), "").items()):
            name = path.removeprefix(prefix)
            # The object at this very address is listed too, and so are the empty objects that represent folders.
            if path.startswith(prefix) and not path.endswith("/") and all(map(files.is_visible, name.split("/"))):
                yield name, _version(entry)

    def shown(self, text: str) -> str:
        """Return the path of a file in `place` as a path in `root`, as shown in rows."""
        return as_text(self.root) + text.removeprefix(self.place) if text.startswith(self.place) else text

    def address(self, name: str) -> str:
        """Return the full path or address of a file."""
        return f"{self.place}/{name}"

    def version(self, name: str) -> str:
        """Return a version that changes if a file is replaced: its size, and its time or ETag; "" if there is no file.

        Raises:
            DataError: a bucket does not answer, or refuses.
        """
        try:
            if self.is_remote:
                return _version(self._tried(lambda: _system().info(self.address(name)), name))
            status = Path(self.address(name)).stat()
        except OSError:
            return ""
        return f"{status.st_size} {status.st_mtime_ns}"

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is no such file.

        Raises:
            DataError: it cannot be read.
        """
        try:
            if self.is_remote:
                content: bytes = self._tried(lambda: _system().cat_file(self.address(name)), name)
                return content
            return Path(self.address(name)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{self.root}/{name}: cannot be read ({error.strerror}); change its permissions") from error

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file that is read from its beginning to its end."""
        if not self.is_remote:
            return Path(self.address(name)).open("rb")
        opened: AbstractContextManager[IO[bytes]] = self._tried(
            lambda: _system().open(self.address(name), "rb", block_size=BLOCK, cache_type="readahead"), name
        )
        return opened

    def write(self, name: str, content: bytes | Path) -> None:
        """Write a file atomically.

        Args:
            name: name of the file.
            content: its content, or a file with its content.

        Raises:
            DataError: it cannot be written.
        """
        if not self.is_remote:
            where = Path(self.root, name)
            with (
                files.system_errors(where, "cannot be written", "fix that and run it again"),
                files.atomic_write(Path(self.address(name))) as tmp,
            ):
                tmp.write_bytes(content) if isinstance(content, bytes) else shutil.copyfile(content, tmp)
        elif isinstance(content, bytes):
            self._tried(lambda: _system().pipe_file(self.address(name), content), name)
        else:
            self._tried(lambda: _system().put_file(str(content), self.address(name)), name)

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        if not self.is_remote:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                Path(self.address(name)).unlink()
            return
        try:
            self._tried(lambda: _system().rm_file(self.address(name)), name)
        except FileNotFoundError:
            return

    def _tried(self, call: Callable[[], Result], name: str) -> Result:
        """Return the result of a call to the bucket; retry if the bucket is busy.

        Raises:
            FileNotFoundError: there is no such file, or bucket.
            DataError: any other error that a retry cannot fix, or that several retries did not fix.
        """
        where = without_password(f"{self.root}/{name}" if name else self.root)
        for number in range(TRIES):
            try:
                return call()
            except transport_errors() as error:
                if is_missing(error) and name:
                    raise FileNotFoundError(where) from error
                reason = transport_reason(error, self.root)
                if is_final(error) or number == TRIES - 1:
                    raise DataError(f"{where}: {reason}") from error
                wait = PAUSE * 2**number
                log.warning("%s: %s; trying again in %.0f s", where, reason, wait)
                time.sleep(wait)
        raise AssertionError("unreachable")


def _version(entry: Mapping[str, Any]) -> str:
    return f"{entry['size']} {entry['ETag']}" if "ETag" in entry else ""  # of a prefix


@functools.cache
def _system() -> Any:  # noqa: ANN401  (fsspec has no types)
    """Return the file system that reads and writes buckets, one per process."""
    return filesystem("s3")


def storage_at(root: str | Path) -> Storage:
    """Return the storage of a folder or an `s3://` address.

    Raises:
        DataError: it is another kind of address.
    """
    text = str(root)
    if not is_remote(text):
        path = Path(text.removeprefix("file://"))
        return Storage(str(path), str(path.absolute()))
    if not text.startswith("s3://"):
        raise DataError(f"{without_password(text)}: must be a folder, a tar file or an s3:// address")
    return Storage(text.rstrip("/"), text.rstrip("/"))


def temporary_file() -> Any:  # noqa: ANN401  (of `tempfile`)
    """Return an open file that is deleted when it is closed, for data that is too large for memory."""
    return tempfile.NamedTemporaryFile(suffix=".part")
