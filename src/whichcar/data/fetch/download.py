"""Download a remote file that fsspec can open, with resuming, retries and checks."""

from __future__ import annotations

import hashlib
import logging
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from whichcar import files
from whichcar.environment import is_set
from whichcar.errors import DataError, MissingExtraError
from whichcar.files import is_disk_full, read_json, write_json
from whichcar.progress import Bar
from whichcar.text import without_password

log = logging.getLogger(__name__)

SCHEMES = {"s3": "fetch", "https": "fetch", "http": "fetch", "hf": "hf"}  # scheme → extra with the packages it needs
TRIES = 5
BLOCK = 8_000_000  # bytes per request, which are lost if a connection breaks
_ERRORS = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("httpx", "HTTPError"),
    ("httpx2", "HTTPError"),
)
# Query parameters of signed URLs: of Amazon, Google and CloudFront, then of Azure's shared access signatures.
_SIGNING = re.compile(
    "x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|key-pair-id|policy|expires"
    "|(.*[-_])?((access)?token|signature|api[-_]?key|credential|auth)"
    "|sig|s[eprv]|st|spr|ske|skoid|sks|skt|sktid|skv"
)
_GIVE_S3 = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_MARKS = ("ETag", "Content-MD5", "Digest", "Last-Modified", "LastModified", "blob_id")


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file on disk, where it came from (without secrets), its size in bytes and SHA-256."""

    path: Path
    source: str
    size: int
    sha256: str


def is_remote(source: str) -> bool:
    """Return True for `s3://…`, `https://…` and the like, and False for a path."""
    return "://" in source and not source.startswith("file://")


def tables_of(url: str) -> list[str]:
    """Return the Parquet files of a dataset on the Hugging Face hub: `hf://datasets/OWNER/NAME`.

    Raises:
        DataError: the dataset does not exist, may not be read, or has no Parquet files.
    """
    try:
        found = _Remote(url).tables()
    except transport_errors() as error:
        raise DataError(f"{without_password(url)}: {transport_reason(error, url)}") from error
    if not found:
        raise DataError(
            f"{without_password(url)}: no .parquet file in it; give the address of an archive in it instead"
        )
    return found


def download(
    url: str,
    folder: Path,
    sha256: str | None = None,
    pause: float = 1.0,
    name: str | None = None,
    redo: bool = False,
) -> Downloaded:
    """Download one file into `folder`, resuming where an earlier call stopped.

    Credentials and proxies come from the environment: for S3, the usual AWS chain with `AWS_ENDPOINT_URL`, or no
    credentials if `WHICHCAR_ANONYMOUS=1`.

    Args:
        url: a URL with any scheme in `SCHEMES`.
        folder: the target folder; `NAME.part` in it contains the bytes received so far.
        sha256: the expected checksum, if it is known.
        pause: seconds before the first retry; each further one waits twice as long.
        name: the file's name (default: the last part of the URL).
        redo: download a file again, unless the server has a tag or a date that shows it has not changed.

    Raises:
        DataError: the file is missing, may not be read, changes during the download or has another checksum, the disk
            is full, or there is no response after several tries.
        MissingExtraError: fsspec needs another package for this scheme.
    """
    name = name or file_name(url)
    if not name:
        raise DataError(f"{without_password(url)}: names no file; give the address of an archive or a table")
    target, part = folder / name, folder / f"{name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    remote = _Remote(url)
    known = _there_already(remote, target, redo)
    if known and (sha256 is None or known.sha256 == sha256.lower()):
        return known
    tries = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            _append(remote, part, name)
            break
        except transport_errors() as error:
            if isinstance(error, OSError) and is_disk_full(error):
                raise DataError(
                    f"{folder}: the disk is full; make room and run it again, it resumes from there"
                ) from error
            got = (part.stat().st_size if part.is_file() else 0) - before
            tries = 1 if got > 0 else tries + 1
            if is_final(error) or tries >= TRIES:
                _remove_empty(part)
                raise DataError(f"{without_password(url)}: {transport_reason(error, url)}") from error
            wait = pause * 2 ** (tries - 1)
            log.warning("%s: %s; trying again in %.0f s", without_password(url), transport_reason(error, url), wait)
            time.sleep(wait)
    digest = files.sha256(part)
    size = part.stat().st_size
    if sha256 and digest != sha256.lower():
        _remove(part)
        raise DataError(
            f"{without_password(url)}: its SHA-256 is {digest}, not {sha256}; "
            "get the right checksum, or do not trust it"
        )
    part.replace(target)
    _mark_of(part).replace(_mark_of(target))
    return Downloaded(target, without_password(url), size, digest)


def file_name(url: str) -> str:
    """Return the last part of a URL as a file name; empty if it has none."""
    last = urlsplit(url).path.rpartition("/")[2]
    name = last if url.startswith("s3://") else unquote(last).replace("\\", "/").rpartition("/")[2]
    return "" if name in (".", "..") or "\0" in name else name


def identity(url: str) -> str:
    """Return a string that identifies a URL without its secrets: parameters that sign a request are left out."""
    query = [pair for pair in parse_qsl(urlsplit(url).query) if not _SIGNING.fullmatch(pair[0].lower())]
    address = without_password(url.partition("?")[0].partition("#")[0])
    return address + (f"?{hashlib.sha256(repr(query).encode()).hexdigest()[:12]}" if query else "")


def _there_already(remote: _Remote, target: Path, redo: bool) -> Downloaded | None:
    """Return the file that an earlier call downloaded, if the server still has the same version."""
    marks_file = _mark_of(target)
    if not target.is_file() or not marks_file.is_file():
        return None
    try:
        marks = remote.marks()
        has_tag = marks.keys() > {"address", "size"}
        if _marks_in(marks_file) != marks or (redo and not has_tag):
            return None
    except transport_errors():
        return None  # the download itself will report what is wrong
    return Downloaded(target, without_password(remote.url), target.stat().st_size, files.sha256(target))


def filesystem(scheme: str) -> Any:  # noqa: ANN401  (fsspec has no types)
    """Return the fsspec file system for a scheme in `SCHEMES`, with the credentials from the environment.

    Raises:
        MissingExtraError: fsspec needs another package for it.
    """
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "s3":
        options["anon"] = is_set("WHICHCAR_ANONYMOUS")
    elif scheme != "hf":
        options["client_kwargs"] = {"trust_env": True}  # proxies
    try:
        import fsspec

        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise MissingExtraError(f"what reads {scheme}:// ({error})", SCHEMES[scheme]) from error


class _Remote:
    """A remote file, which can be asked for its size and marks, and is read in blocks."""

    def __init__(self, url: str) -> None:
        scheme = urlsplit(url).scheme
        if scheme not in SCHEMES:
            raise DataError(
                f"{without_password(url)}: {scheme}:// is not known here; known: {', '.join(SCHEMES)} and paths"
            )
        self.url, self.scheme = url, scheme

    @cached_property
    def _system(self) -> Any:  # noqa: ANN401  (fsspec has no types)
        return filesystem(self.scheme)

    def marks(self) -> dict[str, Any]:
        """Return what identifies a version of the file: its address, its size and the tags that the server sends."""
        info = self._system.info(self.url)
        found = {name: str(info[name]) for name in _MARKS if info.get(name)}
        return {"address": identity(self.url), "size": info.get("size"), **found}

    def tables(self) -> list[str]:
        """Return the URLs of all Parquet files below this one."""
        return [f"{self.scheme}://{path}" for path in sorted(self._system.find(self.url)) if path.endswith(".parquet")]

    def blocks(self, start: int) -> Iterator[bytes]:
        """Yield the bytes from `start` on."""
        with self._system.open(self.url, "rb", block_size=BLOCK, cache_type="none") as file:
            if start:
                file.seek(start)
            while block := file.read(BLOCK):
                yield block

    def stream(self) -> Iterator[bytes]:
        """Yield all bytes in one request, for a server that does not support ranges."""
        with self._system.open(self.url, "rb", block_size=0) as file:
            while block := file.read(BLOCK):
                yield block


def _marks_in(path: Path) -> dict[str, Any] | None:
    """Return the marks of an earlier download, or None if they cannot be read and it has to be repeated."""
    try:
        return read_json(path)
    except DataError:
        return None


def _append(remote: _Remote, part: Path, name: str) -> None:
    """Append the missing bytes of a file to `part`; a part of another version is discarded first."""
    marks, marks_file = remote.marks(), _mark_of(part)
    if part.is_file() and _marks_in(marks_file) != marks:
        log.warning("%s: changed since its download began; beginning again", without_password(remote.url))
        part.unlink()
    write_json(marks_file, marks)
    size = marks["size"]
    if size is not None and part.is_file() and part.stat().st_size > size:
        part.unlink()
    start = part.stat().st_size if part.is_file() else 0
    bar = Bar(f"fetching {name}", None if size is None else size // 1000, "kB", done=start // 1000)
    with bar, part.open("ab") as file:
        if size is None or start < size:
            for block in _blocks(remote, start, file):
                file.write(block)
                file.flush()
                bar.update(file.tell() // 1000 - bar.done)  # `_blocks` may empty the file first
    got = part.stat().st_size
    if size is not None and got != size:
        raise OSError(f"the connection ended after {got:,} of {size:,} bytes")
    if remote.marks() != marks:
        raise OSError("the file changed while it was fetched")


def _blocks(remote: _Remote, start: int, file: IO[bytes]) -> Iterator[bytes]:
    """Yield the missing bytes, or, if the server does not support ranges, empty the file and yield all bytes."""
    try:
        yield from remote.blocks(start)
    except ValueError as error:  # raised by fsspec in that case
        if not re.search("range|seek", str(error), re.IGNORECASE):
            raise
        file.truncate(0)
        yield from remote.stream()


def _mark_of(part: Path) -> Path:
    return part.with_name(f".{part.name}.json")


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _mark_of(part).unlink(missing_ok=True)


def _remove_empty(part: Path) -> None:
    """Remove all traces of a download that received nothing."""
    if not part.is_file() or not part.stat().st_size:
        _remove(part)


def transport_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of a failed transfer, including those of libraries below fsspec, if they are loaded."""
    loaded = [(sys.modules.get(module), name) for module, name in _ERRORS]
    return (OSError, *(vars(module)[name] for module, name in loaded if module is not None and name in vars(module)))


def is_final(error: BaseException) -> bool:
    """Return True if a retry cannot help: the file is missing, access is refused, or the name is invalid."""
    return _is_refused(error) or is_missing(error) or _is_invalid(error)


def is_missing(error: BaseException) -> bool:
    """Return True if the server reports a missing file; fsspec turns every failed request into "not found"."""
    if (status := _status(error)) is not None:
        return status in (404, 410)
    causes = transport_errors()[1:]
    return isinstance(error, FileNotFoundError) and not isinstance(error.__cause__ or error.__context__, causes)


def _is_refused(error: BaseException) -> bool:
    return _status(error) in (401, 403) or isinstance(error, PermissionError) or _lacks_credentials(error)


def _lacks_credentials(error: BaseException) -> bool:
    """Return True if no request was sent to S3, since there are no credentials to sign it with."""
    return type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")


def _is_invalid(error: BaseException) -> bool:
    """Return True if no request was sent to S3, since no bucket can have that name."""
    return type(error).__name__ == "ParamValidationError"


def _refused_fix(scheme: str) -> str:
    if scheme == "s3":
        return f"{_GIVE_S3}, of an account that may read it"
    if scheme == "hf":
        return "accept the terms on its page if it has any, and set HF_TOKEN"
    return "check the address, and user and password or signature if it has them"


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status behind an error; fsspec may wrap several errors in one."""
    while error is not None:
        for status in (getattr(error, "status", None), getattr(getattr(error, "response", None), "status_code", None)):
            if isinstance(status, int):
                return status
        error = error.__cause__ or error.__context__
    return None


def transport_reason(error: BaseException, url: str) -> str:
    """Return in one line what was wrong, without URLs, which may contain secrets."""
    if _lacks_credentials(error):
        found = "no credentials were found" if type(error).__name__ == "NoCredentialsError" else str(error)
        return f"{found}; {_GIVE_S3}, or WHICHCAR_ANONYMOUS=1 to read a public bucket"
    if _is_refused(error):
        return f"access is refused; {_refused_fix(urlsplit(url).scheme)}"
    if is_missing(error):
        return "there is no such file; check bucket, key or address, and whether it is private"
    if _is_invalid(error):
        return "no bucket can have this name; check the address"
    if (status := _status(error)) and status >= 400:
        return f"the server answers {status}"
    cause = error.__cause__ or error if isinstance(error, FileNotFoundError) else error
    text = " ".join(str(cause).split())
    return text if text and "://" not in text else f"no connection ({type(cause).__name__})"
