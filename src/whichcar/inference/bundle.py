"""A bundle: one file with a network that predicts without Keras, its class names, its settings and its model card.

`NAME.whichcar` is an uncompressed zip of `bundle.json`, `network.onnx`, `card.md` and `card.html`. `NAME.onnx`, the
same network as an ONNX file for any runtime, has the content of `bundle.json` as metadata under `whichcar`.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from whichcar.errors import CheckpointError, DataError
from whichcar.files import atomic_write, parse_json
from whichcar.inference.onnx_metadata import metadata_of, with_metadata, without_metadata
from whichcar.records import Metadata
from whichcar.text import as_text, one_line, reason_of

FORMAT = 1
SUFFIX, PLAIN_SUFFIX = ".whichcar", ".onnx"
KEY = "whichcar"
DESCRIPTION, _NETWORK, _CARD, _PAGE = "bundle.json", "network.onnx", "card.md", "card.html"
_AGAIN = "copy or export it again"
_WRITTEN = "give a file that `whichcar export` wrote"

Precision = Literal["float32", "int8"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """The content of a bundle.

    `network` is an ONNX file: input `images`, (n, height, width, 3) uint8 RGB at `image_size`; output `probabilities`,
    (n, classes) float32. `image_size` is (height, width); class i of the output is `class_names[i]`, and
    `class_folders[i]` is the name of its folder. `temperature` is already part of the network. `crop` says how the
    training images were cropped (`detection.crop.read_record`); None: not by whichcar. `fingerprints` identify the
    training data (`data.split.tree.Tree.fingerprints`), `experiment` holds the training settings, `metrics` the results
    of its verification. `card` and `page` are the model card as Markdown and as HTML; an ONNX file has none.
    """

    name: str
    network: bytes = field(repr=False)
    class_names: tuple[str, ...]
    class_folders: tuple[str, ...]
    image_size: tuple[int, int]
    precision: Precision
    backbone: str
    licence: str
    created: str
    whichcar: str
    experiment: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    taxonomy: dict[str, Any] | None = None
    temperature: float = 1.0
    thresholds: dict[str, Any] | None = None
    crop: dict[str, Any] | None = None
    card: str = field(default="", repr=False)
    page: str = field(default="", repr=False)

    @property
    def metadata(self) -> Metadata:
        """The same metadata as a checkpoint's, without the location of the training data."""
        return Metadata(
            tuple(map(as_text, self.class_names)), self.class_folders, self.image_size,
            {"whichcar": self.whichcar, **self.versions}, self.experiment, "", self.crop, self.fingerprints,
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Return the content of `bundle.json`: all but the card and the network, plus the SHA-256 of the network."""
        inside = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in _MEMBERS}
        return {"format": FORMAT, **inside, "network_sha256": hashlib.sha256(self.network).hexdigest()}


_MEMBERS = {"network": _NETWORK, "card": _CARD, "page": _PAGE}
_KEYS: dict[str, type] = {
    **dict.fromkeys(("name", "precision", "backbone", "licence", "created", "whichcar", "network_sha256"), str),
    **dict.fromkeys(("class_names", "class_folders", "image_size"), list),
    **dict.fromkeys(("experiment", "metrics", "versions", "fingerprints", "taxonomy?", "thresholds?", "crop?"), dict),
    "temperature": float,
}


def write_bundle(bundle: Bundle, path: str | Path) -> None:
    """Write a bundle atomically: `NAME.onnx` as a plain ONNX file with metadata, any other name as the zip.

    The same bundle always produces the same bytes.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    path, text = Path(path), as_text(json.dumps(bundle.as_json(), indent=1, ensure_ascii=False, allow_nan=False))
    with atomic_write(path) as tmp:
        if path.suffix == PLAIN_SUFFIX:
            tmp.write_bytes(with_metadata(bundle.network, KEY, text))
            return
        with zipfile.ZipFile(tmp, "w", zipfile.ZIP_STORED) as archive:
            members = {DESCRIPTION: text.encode(), _NETWORK: bundle.network}
            members |= {_CARD: bundle.card.encode(), _PAGE: bundle.page.encode()}
            for name, content in members.items():
                member = zipfile.ZipInfo(name)  # with a fixed date
                member.external_attr = 0o644 << 16  # otherwise `unzip` creates files that nobody may read
                archive.writestr(member, content)


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle: a `.whichcar` file, or an ONNX file with the metadata that `whichcar export` writes.

    Raises:
        CheckpointError: the file is missing, damaged, not a bundle, or of a newer version.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read as a bundle ({reason_of(error)}); {_WRITTEN}") from error
    return _from_onnx(path, content) if path.suffix.lower() == PLAIN_SUFFIX else _from_zip(path, content)


def _from_zip(path: Path, content: bytes) -> Bundle:
    if not content.startswith(b"PK\x03\x04"):
        kind = "is empty" if not content else "is not a bundle (no zip archive)"
        raise CheckpointError(f"{path}: {kind}; {_WRITTEN}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            wanted = (DESCRIPTION, *_MEMBERS.values()) if DESCRIPTION in archive.namelist() else ()
            members = {name: _member(archive, name, content) for name in wanted}
    except Exception as error:  # zipfile, zlib, lzma, struct and io raise theirs on damaged bytes
        raise CheckpointError(f"{path}: the bundle is damaged ({reason_of(error)}); {_AGAIN}") from error
    if not members:
        raise CheckpointError(f"{path}: is not a bundle (no {DESCRIPTION} in it); {_WRITTEN}")
    card, page = (members[name].decode("utf-8", "replace") for name in (_CARD, _PAGE))
    return _bundle(path, members[DESCRIPTION], members[_NETWORK], card, page)


def _member(archive: zipfile.ZipFile, name: str, content: bytes) -> bytes:
    """Return a member of the archive with the bytes `content`; a stored network is a slice of these, copied only once.

    Its CRC-32 is not computed, since its SHA-256 is compared anyway.
    """
    member = archive.getinfo(name)
    if name != _NETWORK or member.compress_type != zipfile.ZIP_STORED:
        return archive.read(member)
    # The local header has 30 bytes; the last 4 are the lengths of the name and the extra field, which follow it.
    start = member.header_offset + 30 + sum(struct.unpack_from("<HH", content, member.header_offset + 26))
    return content[start : start + member.file_size]


def _from_onnx(path: Path, content: bytes) -> Bundle:
    try:
        text = metadata_of(content).get(KEY)
    except ValueError as error:
        raise CheckpointError(f"{path}: is damaged, or not an ONNX file ({reason_of(error)}); {_AGAIN}") from error
    if text is None:
        raise CheckpointError(f"{path}: holds no class names (no metadata `{KEY}`); {_WRITTEN}")
    return _bundle(path, text.encode(), without_metadata(content, KEY))


def _described(path: Path, text: bytes) -> dict[str, Any]:
    """Return the content of bundle.json, checked.

    Raises:
        CheckpointError: it is damaged or of a newer version.
    """
    try:
        content = parse_json(text, path, {"format": int}, _AGAIN)
        if content["format"] > FORMAT:
            raise CheckpointError(
                f"{path}: its format is {content['format']}, of whichcar {one_line(content.get('whichcar'))}, and this "
                f"version reads {FORMAT}; update whichcar, or export it again with this version"
            )
        parse_json(text, path, _KEYS, _AGAIN)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    size, names, folders = content["image_size"], content["class_names"], content["class_folders"]
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise CheckpointError(f"{path}: damaged, `image_size` is not a height and a width; {_AGAIN}")
    if not names or len(folders) != len(names) or not all(isinstance(name, str) for name in (*names, *folders)):
        raise CheckpointError(f"{path}: damaged, there are no class names, or not one folder for each; {_AGAIN}")
    return content


def _bundle(path: Path, text: bytes, network: bytes, card: str = "", page: str = "") -> Bundle:
    content = _described(path, text)
    if hashlib.sha256(network).hexdigest() != content["network_sha256"]:
        raise CheckpointError(f"{path}: the bundle is damaged (its network has another checksum); {_AGAIN}")
    known = {one.name: content[one.name] for one in fields(Bundle) if one.name in content}
    lists = {name: tuple(content[name]) for name in ("class_names", "class_folders", "image_size")}
    return Bundle(**known | lists, network=network, card=card, page=page)
