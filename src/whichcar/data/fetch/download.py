"""One remote file to disk: resumed, retried, checked; whatever fsspec can open."""

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

SCHEMES = {"s3": "fetch", "https": "fetch", "http": "fetch", "hf": "hf"}  # scheme → extra that brings what it needs
TRIES = 5
BLOCK = 8_000_000  # bytes a request: what is lost when a connection breaks
_ERRORS = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("httpx", "HTTPError"),
    ("httpx2", "HTTPError"),
)
# Of Amazon, Google and CloudFront, then those of a shared access signature of Azure.
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
    """True for `s3://…`, `https://…` and the like; a path is not."""
    return "://" in source and not source.startswith("file://")


def tables_of(url: str) -> list[str]:
    """Return the Parquet files of a data set on the Hugging Face hub: `hf://datasets/OWNER/NAME`.

    Raises:
        DataError: there is no such data set, it may not be read, or it has none.
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
    url: str, folder: Path, sha256: str | None = None, pause: float = 1.0, name: str | None = None
) -> Downloaded:
    """Fetch one file into `folder`, resuming where an earlier call stopped.

    Credentials come from the environment: for S3 the usual AWS chain with `AWS_ENDPOINT_URL`, none where
    `WHICHCAR_ANONYMOUS=1`. Proxies are those of the environment.

    Args:
        url: of any scheme in `SCHEMES`.
        folder: where it goes; `NAME.part` next to it holds what has come.
        sha256: what its bytes must give, if that is known.
        pause: seconds before the first new try; each further one waits twice as long.
        name: of the file (default: the last part of the address).

    Raises:
        DataError: not there, not allowed, changed while it came, not the expected bytes, the disk is full, or no
            answer after several tries.
        MissingExtraError: fsspec needs another package for this scheme.
    """
    name = name or file_name(url)
    if not name:
        raise DataError(f"{without_password(url)}: names no file; give the address of an archive or a table")
    target, part = folder / name, folder / f"{name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    remote = _Remote(url)
    known = _there_already(remote, target)
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
    """Return the last part of an address as the name of a file; empty where it has none."""
    last = urlsplit(url).path.rpartition("/")[2]
    name = last if url.startswith("s3://") else unquote(last).replace("\\", "/").rpartition("/")[2]
    return "" if name in (".", "..") or "\0" in name else name


def identity(url: str) -> str:
    """Return what tells one address from another without holding secrets: what signs a request is left out."""
    query = [pair for pair in parse_qsl(urlsplit(url).query) if not _SIGNING.fullmatch(pair[0].lower())]
    address = without_password(url.partition("?")[0].partition("#")[0])
    return address + (f"?{hashlib.sha256(repr(query).encode()).hexdigest()[:12]}" if query else "")


def _there_already(remote: _Remote, target: Path) -> Downloaded | None:
    """Return what an earlier call fetched, if the server still has the same."""
    marks_file = _mark_of(target)
    if not target.is_file() or not marks_file.is_file():
        return None
    try:
        if _marks_in(marks_file) != remote.marks():
            return None
    except transport_errors():
        return None  # the download itself will report what is wrong
    return Downloaded(target, without_password(remote.url), target.stat().st_size, files.sha256(target))


def filesystem(scheme: str) -> Any:  # noqa: ANN401  (fsspec has no types)
    """Return what reads and writes the files of a scheme in `SCHEMES`, with the credentials of the environment.

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
    """A remote file: asked for its size and marks, and read in blocks."""

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
        """What tells one version of the file from another: size, and the tags that the server gives."""
        info = self._system.info(self.url)
        found = {name: str(info[name]) for name in _MARKS if info.get(name)}
        return {"size": info.get("size"), **found}

    def tables(self) -> list[str]:
        """The addresses of all Parquet files below this one."""
        return [f"{self.scheme}://{path}" for path in sorted(self._system.find(self.url)) if path.endswith(".parquet")]

    def blocks(self, start: int) -> Iterator[bytes]:
        """Yield the bytes from `start` on."""
        with self._system.open(self.url, "rb", block_size=BLOCK, cache_type="none") as file:
            if start:
                file.seek(start)
            while block := file.read(BLOCK):
                yield block

    def stream(self) -> Iterator[bytes]:
        """Yield all bytes in one go, from a server that gives no parts of a file."""
        with self._system.open(self.url, "rb", block_size=0) as file:
            while block := file.read(BLOCK):
                yield block


def _marks_in(path: Path) -> dict[str, Any] | None:
    """Return what an earlier download wrote down; None where nothing readable is there, and it is to be repeated."""
    try:
        return read_json(path)
    except DataError:
        return None


def _append(remote: _Remote, part: Path, name: str) -> None:
    """Write what is missing of a file to `part`; what belongs to another version of it is thrown away."""
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
    """Yield what is missing; all of it, into an emptied file, where the server gives no parts."""
    try:
        yield from remote.blocks(start)
    except ValueError as error:  # what fsspec makes of it
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
    """Leave nothing of a download that brought nothing."""
    if not part.is_file() or not part.stat().st_size:
        _remove(part)


def transport_errors() -> tuple[type[Exception], ...]:
    """What can go wrong on the way: the libraries below fsspec have errors of their own. One not loaded raises none."""
    loaded = [(sys.modules.get(module), name) for module, name in _ERRORS]
    return (OSError, *(vars(module)[name] for module, name in loaded if module is not None and name in vars(module)))


def is_final(error: BaseException) -> bool:
    """True when another try cannot help: not there, not allowed, not a name."""
    return _is_refused(error) or is_missing(error) or _is_invalid(error)


def is_missing(error: BaseException) -> bool:
    """True when the server says so; fsspec makes "not found" of every failure to ask for a file."""
    if (status := _status(error)) is not None:
        return status in (404, 410)
    causes = transport_errors()[1:]
    return isinstance(error, FileNotFoundError) and not isinstance(error.__cause__ or error.__context__, causes)


def _is_refused(error: BaseException) -> bool:
    return _status(error) in (401, 403) or isinstance(error, PermissionError) or _lacks_credentials(error)


def _lacks_credentials(error: BaseException) -> bool:
    """True where nothing was asked of S3, since there is nothing to sign the request with."""
    return type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")


def _is_invalid(error: BaseException) -> bool:
    """True where nothing was asked of S3, since no bucket can have that name."""
    return type(error).__name__ == "ParamValidationError"


def _refused_fix(scheme: str) -> str:
    if scheme == "s3":
        return f"{_GIVE_S3}, of an account that may read it"
    if scheme == "hf":
        return "accept the terms on its page if it has any, and set HF_TOKEN"
    return "check the address, and user and password or signature if it has them"


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status behind an error; fsspec makes one error of several."""
    while error is not None:
        for status in (getattr(error, "status", None), getattr(getattr(error, "response", None), "status_code", None)):
            if isinstance(status, int):
                return status
        error = error.__cause__ or error.__context__
    return None


def transport_reason(error: BaseException, url: str) -> str:
    """Return in one line what was wrong, without addresses, which may hold secrets."""
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
