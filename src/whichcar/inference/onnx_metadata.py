"""The metadata of an ONNX file (`metadata_props`, a text per key), read and written without the onnx package.

An ONNX file is one Protocol Buffers message, a sequence of fields with their lengths. Fields can thus be listed
without decoding the network, and appended.
"""

from __future__ import annotations

from collections.abc import Iterator

_METADATA_PROPS = 14  # field number in ModelProto of onnx.proto
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5  # wire types


def with_metadata(model: bytes, key: str, value: str) -> bytes:
    """Return an ONNX file with this text under `key`, instead of any text it had there."""
    entry = field(1, key.encode()) + field(2, value.encode())
    return without_metadata(model, key) + field(_METADATA_PROPS, entry)


def without_metadata(model: bytes, key: str) -> bytes:
    """Return an ONNX file without the text under `key`."""
    places = [place for found, _, place in _entries(model) if found == key]
    for start, end in reversed(places):
        model = model[:start] + model[end:]
    return model


def metadata_of(model: bytes) -> dict[str, str]:
    """Return the texts by key.

    Raises:
        ValueError: this is not an ONNX file, or it is incomplete.
    """
    return {key: value for key, value, _ in _entries(model)}


def _entries(model: bytes) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Yield the key, the text and the (start, end) of each entry."""
    for number, content, place in fields_of(model):
        if number == _METADATA_PROPS:
            parts = {inner: str(text, "utf-8") for inner, text, _ in fields_of(content)}
            yield parts.get(1, ""), parts.get(2, ""), place


def fields_of(message: bytes | memoryview) -> Iterator[tuple[int, memoryview, tuple[int, int]]]:
    """Yield the number of each field, its content (empty for numbers) and its (start, end) in the message.

    Raises:
        ValueError: this is not a message, or it is incomplete.
    """
    place, view = 0, memoryview(message)
    while place < len(message):
        start = place
        tag, place = _varint(message, place)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            _, place = _varint(message, place)
        elif kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in (_FIXED_64, _FIXED_32):
            place += 8 if kind == _FIXED_64 else 4
        else:
            raise ValueError(f"a field of kind {kind} at byte {start}")
        end = place + size
        if end > len(message):
            raise ValueError(f"ends at byte {len(message)} of {end}")
        yield tag >> 3, view[place:end], (start, end)
        place = end


def _varint(message: bytes | memoryview, place: int) -> tuple[int, int]:
    """Return the varint at `place` (seven bits per byte, lowest first) and the position after it."""
    number = 0
    for step in range(10):
        if place + step >= len(message):
            raise ValueError(f"ends at byte {len(message)}, within a number")
        byte = message[place + step]
        number |= (byte & 127) << 7 * step
        if byte < 128:
            return number, place + step + 1
    raise ValueError(f"a number of more than 64 bits at byte {place}")


def field(number: int, content: bytes) -> bytes:
    """Return an encoded field with this content."""
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(content)) + content


def _as_varint(number: int) -> bytes:
    parts = []
    while number >= 128:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
