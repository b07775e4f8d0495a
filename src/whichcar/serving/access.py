"""Access control: bearer tokens, read again when their file changes, and a limit of images per minute and caller."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections import OrderedDict
from pathlib import Path

from whichcar.errors import ConfigError
from whichcar.serving.problems import Refused
from whichcar.text import reason_of

VARIABLE = "WHICHCAR_TOKENS"
_MOST_CALLERS = 10_000
_FRESH = 1.0  # seconds before the file is checked again


class Access:
    """Checks the tokens and counts the images of each caller.

    Args:
        file: a file with one token per line; empty lines and those that begin with `#` are ignored. Tokens in the
            environment variable, separated by blanks, are valid too. If there are neither, access is open to all.
        rate: images per minute that a caller may send; that many may come at once.

    Raises:
        ConfigError: the file cannot be read, or holds no token.
    """

    def __init__(self, file: str | Path | None = None, rate: int | None = None) -> None:
        """Read the tokens."""
        self._file, self._rate = None if file is None else Path(file), rate
        self._fixed = {_digest(one) for one in os.environ.get(VARIABLE, "").split()}
        self._stamp: tuple[int, int, int] | None = None
        self._looked, self._digests = 0.0, set[bytes]()
        self._left: OrderedDict[bytes | str, tuple[float, float]] = OrderedDict()
        if self._file is not None and not self._tokens_of(self._file):
            raise ConfigError(f"{self._file}: holds no token; write one a line")

    def caller(self, authorization: str | None, address: str) -> bytes | str:
        """Return the identity of a caller: the digest of its token, or its address if no tokens are needed.

        Raises:
            Refused: the caller has no valid token.
        """
        if self._file is None and not self._fixed:
            return address
        scheme, _, token = (authorization or "").partition(" ")
        given, valid = _digest(token.strip()), False
        for known in self._fixed | self._current():
            valid |= hmac.compare_digest(given, known)  # all of them, so that the time reveals nothing
        if scheme.lower() != "bearer" or not valid:
            sentence = "This server needs a valid token, sent as `Authorization: Bearer TOKEN`."
            raise Refused(401, sentence, "token", {"WWW-Authenticate": "Bearer"})
        return given

    def count(self, caller: bytes | str, images: int) -> None:
        """Count a caller's images.

        Raises:
            Refused: the caller exceeds the rate.
        """
        if self._rate is None:
            return
        now = time.monotonic()
        left, since = self._left.pop(caller, (float(self._rate), now))
        left = min(float(self._rate), left + (now - since) * self._rate / 60)
        enough = left >= images
        self._left[caller] = (left - images if enough else left, now)
        if len(self._left) > _MOST_CALLERS:
            self._left.popitem(last=False)
        if images > self._rate:
            raise Refused(413, f"Up to {self._rate} images a minute are allowed; send fewer at once.", "rate")
        if not enough:
            seconds = int((images - left) * 60 / self._rate) + 1
            sentence = f"Up to {self._rate} images a minute are allowed; send this one again in {seconds} s."
            raise Refused(429, sentence, "rate", {"Retry-After": str(seconds)})

    def _current(self) -> set[bytes]:
        """Return the digests of the file's tokens; none if it cannot be read, so that deleting it revokes them all."""
        if self._file is not None and time.monotonic() - self._looked > _FRESH:
            try:
                self._tokens_of(self._file)
            except ConfigError:
                self._digests, self._stamp = set(), None
        return self._digests

    def _tokens_of(self, file: Path) -> set[bytes]:
        self._looked = time.monotonic()
        try:
            status = file.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
                self._digests = {_digest(line) for line in lines if line and not line.startswith("#")}
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: the tokens cannot be read ({reason_of(error)})") from error
        return self._digests


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
