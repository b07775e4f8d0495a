"""The body of a request: read into memory and nowhere else, and never more of it than is allowed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from whichcar.serving.problems import Refused, busy
from whichcar.serving.settings import MEGABYTE
from whichcar.text import one_line

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "image"
_MOST_HEADER = 8192  # bytes of the headers of one part
_MOST_VALUE = 200  # bytes of an option
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it also raises what it logs about a broken form
_LINGER = 2.0  # seconds to go on reading a refused body, so that its sender sees the response


@dataclass(slots=True)
class Upload:
    """The images of a request, by the names that the client gave them, and its options as text."""

    images: list[tuple[str, bytes]] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)


class Buffered:
    """The number of bytes of all requests in memory; only received bytes count, so a slow client takes no room."""

    def __init__(self, most: int) -> None:
        """Allow up to `most` bytes."""
        self._most, self.used = most, 0

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that counts the bytes of one request until the block ends.

        It raises `Refused` if all requests together exceed the limit, unless no other request is in memory.
        """
        own = 0

        def add(count: int) -> None:
            nonlocal own
            if self.used + count > self._most and self.used > own:
                raise busy("The server holds as many uploads as it can; send this one again later.", "memory")
            own += count
            self.used += count

        try:
            yield add
        finally:
            self.used -= own


def check_announced(headers: Mapping[str, str], most: int) -> None:
    """Check the size of a body by its headers, if they state it.

    Raises:
        Refused: the body has more than `most` bytes.
    """
    text = headers.get("content-length", "")
    if text.isascii() and text.isdigit() and int(text) > most:
        raise too_large(most)


def too_large(most: int) -> Refused:
    """Return the refusal of a body of more than `most` bytes."""
    return Refused(413, f"A request may have up to {most / MEGABYTE:g} MB; make the images smaller.", "too large")


async def read_body(stream: AsyncIterator[bytes], most: int, count: Callable[[int], None]) -> bytearray:
    """Return a body, counting its bytes as they arrive.

    Raises:
        Refused: the body has more than `most` bytes, or `count` refuses; the rest is not kept.
    """
    body = bytearray()
    async for part in stream:
        count(len(part))
        body += part
        if len(body) > most:
            raise too_large(most)
    return body


async def discard(stream: AsyncIterator[bytes]) -> None:
    """Read and discard the rest of a body: if the connection were reset, the client would not see the response."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_LINGER):
            async for _ in stream:
                pass


def parse(body: bytes | bytearray, content_type: str, most_images: int) -> Upload:
    """Return a copy of the content of a body: the parts of a form, or one image.

    Raises:
        Refused: the body is empty or JSON, or the form is broken, has an unknown field, no image, or too many images.
    """
    kind, parameters = parse_options_header(content_type)
    if kind == b"application/json":
        raise Refused(415, "Send the image itself, as the body or as the form field `image`; not JSON.", "not an image")
    if kind == b"multipart/form-data":
        return _parse_form(body, parameters.get(b"boundary", b""), most_images)
    if not body:
        raise Refused(400, "The body is empty; send an image.", "empty")
    return Upload([("image", bytes(body))])


def _parse_form(body: bytes | bytearray, boundary: bytes, most_images: int) -> Upload:
    if not boundary:
        raise Refused(400, "The form has no boundary in its Content-Type.", "broken form")
    upload, parts = Upload(), _Parts(most_images)
    for name, file, content in parts.of(body, boundary):
        if file is None:
            if name in upload.options:
                raise Refused(422, f"The option {_quoted(name)} is given twice.", "option")
            upload.options[name] = content.decode("utf-8", "replace")
        elif name != FIELD:
            raise Refused(422, f"An image belongs in the form field `{FIELD}`, not {_quoted(name)}.", "field")
        else:
            upload.images.append((file, content))
    if not upload.images:
        raise Refused(422, f"The form has no image; send a file as the field `{FIELD}`.", "empty")
    return upload


class _Parts:
    """Finds the parts of a form."""

    def __init__(self, most_images: int) -> None:
        self._most = most_images
        self._found: list[tuple[str, str | None, bytes]] = []
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._content = bytearray()
        self._ended = False

    def of(self, body: bytes | bytearray, boundary: bytes) -> list[tuple[str, str | None, bytes]]:
        """Return the parts in order: the name of the field, the name of the file (None for text), and the content.

        Raises:
            Refused: the form is broken or incomplete, or has too many or too long parts.
        """
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self._content.extend(memoryview(data)[start:end]),
            "on_part_end": self._end,
            "on_header_field": lambda data, start, end: self._extend(self._header, data[start:end]),
            "on_header_value": lambda data, start, end: self._extend(self._value, data[start:end]),
            "on_header_end": self._header_end,
            "on_end": self._finish,
        }
        try:
            parser = MultipartParser(boundary, callbacks)
            for start in range(0, len(body), MEGABYTE):
                parser.write(bytes(body[start : start + MEGABYTE]))
            parser.finalize()
        except (FormParserError, UnicodeError, ValueError) as error:
            raise Refused(400, "The form is broken; its parts cannot be found.", "broken form") from error
        if not self._ended:
            raise Refused(400, "The form is not whole; its end is missing.", "broken form")
        return self._found

    def _begin(self) -> None:
        if len(self._found) >= self._most + 16:  # 16 for the options
            raise Refused(413, f"A request may have up to {self._most} images.", "too many")
        self._content, self._disposition = bytearray(), b""

    def _extend(self, text: bytearray, more: bytes) -> None:
        text.extend(more)
        if len(text) > _MOST_HEADER:
            raise Refused(400, "A part of the form has too long a header.", "broken form")

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name, file = options.get(b"name"), options.get(b"filename")
        if name is None:
            raise Refused(400, "A part of the form has no name.", "broken form")
        if file is None and len(self._content) > _MOST_VALUE:
            what = f"The form field {_quoted(name.decode('utf-8', 'replace'))}"
            raise Refused(422, f"{what} is neither a file nor a short option; send an image as a file.", "field")
        files = sum(one[1] is not None for one in self._found)
        if file is not None and files >= self._most:
            raise Refused(413, f"A request may have up to {self._most} images.", "too many")
        shown = None if file is None else _file_name(file.decode("utf-8", "replace"))
        self._found.append((name.decode("utf-8", "replace"), shown, bytes(self._content)))
        self._content = bytearray()

    def _finish(self) -> None:
        self._ended = True


def _file_name(name: str) -> str:
    """Return the last component of a POSIX or Windows path, without control characters."""
    return one_line(PurePosixPath(PureWindowsPath(name).name).name)[:200] or "image"


def _quoted(name: str) -> str:
    return f"`{one_line(name)[:60]}`"
