"""The parts that the work is divided into: one tar shard each, or a few hundred loose images.

A part is what one worker does at a time, and what is lost if that worker dies. The worker itself reads the images of a
part, so that they do not pass through Ray's object store.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from whichcar.data.fetch.archives import BROKEN, tar_members
from whichcar.data.fetch.download import transport_errors, transport_reason
from whichcar.errors import DataError
from whichcar.files import NO_IMAGES, is_broken_link, is_image, is_unopened, is_visible, not_opened
from whichcar.images.inputs import Given, image_at
from whichcar.images.read import decoded, enough_for
from whichcar.parallel import ordered_map
from whichcar.records import Skipped
from whichcar.scale.storage import Storage, storage_at
from whichcar.text import as_text, one_line, reason_of, without_password

log = logging.getLogger(__name__)
PART_IMAGES = 200
_READERS = 8  # concurrent requests of a worker to a bucket
SHARD = ".tar"


class DamagedShardError(DataError):
    """A tar shard cannot be read to its end."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some images of a source: one tar shard, or files; `name` identifies the files, `version` their content."""

    name: str
    files: tuple[str, ...]
    version: str = ""

    @property
    def is_shard(self) -> bool:
        """True if the images are in a tar file."""
        return self.files[0].endswith(SHARD)


@dataclass(frozen=True, slots=True)
class Item:
    """A file of a part: an image, or another member of a shard, which has only `content`."""

    name: str
    image: Given | Skipped | None
    content: bytes | None = None


def source_of(source: str | Path) -> tuple[Storage, dict[str, str]]:
    """Return the storage of a source, and the names of the files to process with the version of each.

    Args:
        source: a folder, a tar file, or an `s3://` address of either.

    Raises:
        DataError: there is no such folder or file, or the folder has no image and no tar file.
    """
    text = str(source)
    if text.endswith(SHARD):
        before, _, name = text.rpartition("/")
        storage = storage_at(before or ("/" if text.startswith("/") else "."))
        version = storage.version(name)
        if not version or not (storage.is_remote or Path(storage.address(name)).is_file()):
            raise DataError(f"{without_password(text)}: no such file; give a folder, a tar file or an s3:// address")
        return storage, {name: version}
    storage = storage_at(text)
    if not storage.is_remote and not Path(storage.place).is_dir():
        raise DataError(f"{text}: no such folder; give a folder, a tar file or an s3:// address")
    versions: dict[str, str] = {}
    unopened = 0
    for name, version in storage.versions():
        unopened += is_unopened(name)
        if name.endswith(SHARD) or is_image(name) or _is_lost(storage, name):
            versions[name] = version
    if unopened:
        log.warning("%s", not_opened(without_password(text), unopened))
    if not versions:
        raise DataError(f"{text}: {NO_IMAGES}; nor is there a tar file")
    return storage, versions


def place_of(source: str | Path, storage: Storage) -> str:
    """Return the absolute path or address of a source; the storage of a tar file is its folder."""
    name = str(source).rpartition("/")[2]
    return storage.address(name) if name.endswith(SHARD) else storage.place


def _is_lost(storage: Storage, name: str) -> bool:
    return not storage.is_remote and is_broken_link(Path(storage.address(name)))


def parts_of(versions: Mapping[str, str]) -> list[Part]:
    """Divide the files with these names into parts: first the tar shards, then the loose images, each in order."""
    parts: list[Part] = []
    loose: list[str] = []
    for name in versions:
        if name.endswith(SHARD):
            parts.append(_part([name], versions))
        else:
            loose.append(name)
    return parts + [_part(loose[start : start + PART_IMAGES], versions) for start in range(0, len(loose), PART_IMAGES)]


def _part(names: Sequence[str], versions: Mapping[str, str]) -> Part:
    return Part(f"part-{_digest(names)}", tuple(names), _digest([versions[name] for name in names]))


def _digest(texts: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def items_of(source: Storage, part: Part) -> Iterator[Item]:
    """Yield the images of a part, and other files of a shard, lazily; a link or other special file in it is skipped.

    Raises:
        DamagedShardError: a shard is damaged; raised after its last member that can be read.
        DataError: a bucket does not answer, or refuses the request.
    """
    if part.is_shard:
        yield from _members(source, part.files[0])
    elif source.is_remote:
        yield from ordered_map(lambda name: _loaded(source, name), part.files, _READERS, 2 * _READERS)
    else:
        for name in part.files:
            yield Item(name, image_at(Path(source.address(name))))


def _loaded(source: Storage, name: str) -> Item:
    content, address = source.read(name), source.address(name)
    if content is None:
        return Item(name, Skipped(address, "no such file; it was deleted after the others were listed"))
    return Item(name, _image_in(content, address))


def _image_in(content: bytes, path: str | Path) -> Given:
    return Given(path, lambda size: decoded(content, size and enough_for(size), name=path))


def _members(source: Storage, shard: str) -> Iterator[Item]:
    if _is_lost(source, shard):
        target = as_text(Path(source.address(shard)).readlink())
        raise DamagedShardError(f"a link to {target}, which is not there; restore that or remove the link")
    try:
        with source.open(shard) as file:
            for member in tar_members(file):
                if not all(map(is_visible, member.name.removeprefix("./").split("/"))):
                    continue
                name = f"{shard}/{as_text(member.name.removeprefix('./'))}"
                path = source.address(name) if source.is_remote else Path(source.address(name))
                if member.content is not None:
                    content = member.content.read()
                    yield Item(name, _image_in(content, path) if is_image(member.name) else None, content)
                elif is_image(member.name):
                    advice = "pack the image itself (tar --dereference --hard-dereference)"
                    yield Item(name, Skipped(path, f"{member.problem} in the tar file; {advice}"))
    except BROKEN as error:
        raise DamagedShardError(f"the tar file is damaged ({one_line(reason_of(error))}); copy it again") from error
    except FileNotFoundError as error:
        raise DamagedShardError("no such file; it was deleted after the others were listed") from error
    except transport_errors() as error:
        raise DataError(f"{source.root}/{shard}: {transport_reason(error, source.root)}") from error
