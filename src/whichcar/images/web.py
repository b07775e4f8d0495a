"""Download an image from a URL into memory, with limits on size and time and a reason for every failure."""

from __future__ import annotations

import base64
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request

from whichcar.errors import ImageError
from whichcar.text import without_password

LARGEST = 100_000_000  # bytes
SILENCE = 20.0  # seconds without a response
PATIENCE = 120.0  # seconds for the whole download
_BLOCK = 1 << 16


def read_url(url: str) -> bytes:
    """Return the bytes at an http or https URL, using the proxies set in the environment.

    Raises:
        ImageError: the URL is unsupported or missing, the connection fails, or a limit on size or time is exceeded.
    """
    request = _request(url)
    try:
        with urllib.request.urlopen(request, timeout=SILENCE) as answer:
            return _body(answer)
    except urllib.error.HTTPError as error:
        error.close()
        raise _error(url, f"the server answers {error.code} {_words(error.reason)}") from error
    except urllib.error.URLError as error:
        raise _error(url, f"no connection ({_words(error.reason)})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _error(url, f"cannot be fetched ({_words(error)})") from error


def _request(url: str) -> urllib.request.Request:
    """Return a request that sends user and password in a header, which redirects do not receive, not in the URL."""
    try:
        url.encode()  # raises at a byte that is not UTF-8
        parts = urllib.parse.urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError as error:
        raise _error(url, f"not a usable address ({_words(error)})") from error
    if parts.scheme.lower() not in ("http", "https"):
        kind = f"{parts.scheme}://"
        raise _error(url, f"{kind} addresses are not supported; give http:// or https://, or a file")
    if not host:
        raise _error(url, "names no host; give https://HOST/PATH")
    place = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    quoted = (urllib.parse.quote(part, safe="/%:=&?~+!$,;'@()*[]") for part in (parts.path, parts.query))
    request = urllib.request.Request(
        urllib.parse.urlunsplit((parts.scheme.lower(), place, *quoted, "")), headers={"User-Agent": "whichcar"}
    )
    if parts.username is not None:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    return request


def _body(answer: http.client.HTTPResponse) -> bytes:
    started = time.monotonic()
    announced = int(answer.headers.get("Content-Length") or 0)
    content = bytearray()
    while max(announced, len(content)) <= LARGEST:
        block = answer.read1(_BLOCK)
        if not block and len(content) < announced:
            raise ValueError(f"the connection ended after {len(content):,} of {announced:,} bytes")
        if not block:
            return bytes(content)
        content += block
        if time.monotonic() - started > PATIENCE:
            raise ValueError(f"not whole after {PATIENCE:.0f} seconds")
    raise ValueError(f"larger than {LARGEST // 1_000_000} MB")


def _error(url: str, reason: str) -> ImageError:
    return ImageError(f"{without_password(url)}: {reason}", reason)


def _words(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
