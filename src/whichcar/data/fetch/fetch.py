"""The fetch stage: bring images from a bucket, the web or a disk to `car_ims/` and `car_dataset_labels.csv`.

`INTO/raw/` contains the downloaded files and `manifest.json`, with the source, size and SHA-256 of each file. A second
run finds them there and downloads nothing.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from whichcar import files
from whichcar.data.fetch import formats
from whichcar.data.fetch.archives import KINDS, TABLES, is_archive, unpack
from whichcar.data.fetch.download import Downloaded, identity, is_remote
from whichcar.data.fetch.parquet import SUFFIX, unpack_parquet
from whichcar.data.fetch.sources import bring
from whichcar.data.labels import read_labels
from whichcar.data.split_names import SPLITS
from whichcar.environment import expanded
from whichcar.errors import DataError
from whichcar.text import one_line, plural

log = logging.getLogger(__name__)

SOURCE_VARIABLE = "WHICHCAR_SOURCE"
MANIFEST = "manifest.json"
_STAGING = ".fetching"
_UNREAD = (".xlsx", ".xlsm", ".ods", *(f"{table}{packing}" for table in TABLES for packing in (".gz", ".bz2", ".xz")))

# The keys of a manifest, and of each entry in its `files`.
_KEYS = {"sources": list, "finished": bool, "files": list, "labels": int, "kind": str, "names": list}
_FILE_KEYS = {"path", "source", "size", "sha256"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """The result of `fetch`; `kind` is how the images were labelled, `fresh` is whether anything was done.

    `classes` are sorted; `splits` maps each split to its number of labels.
    """

    into: Path
    kind: str
    images: int
    labels: int
    files: tuple[Downloaded, ...]
    fresh: bool
    classes: tuple[str, ...]
    splits: dict[str, int]


def fetch(
    sources: str | Path | Sequence[str | Path] = (),
    into: str | Path = "data",
    sha256: str | None = None,
    redo: bool = False,
) -> Fetched:
    """Download or copy a set of images to where the other stages expect it.

    Args:
        sources: URLs (`s3://bucket/key`, `https://…`, `hf://datasets/OWNER/NAME`), paths of archives, tables or
            folders, or one name in `sources.NAMED`; together they are one set (default: those that `WHICHCAR_SOURCE`
            lists, separated as in a shell).
        into: folder for `car_ims/` and `car_dataset_labels.csv`.
        sha256: checksum of the first source, if it is known: 64 hexadecimal digits, compared on each call.
        redo: overwrite what an earlier call wrote, even from other sources; a file is downloaded again only if it has
            changed. Without it, missing files are restored, and the others are left alone.

    Raises:
        DataError: there is no source, or one cannot be fetched, is unsafe or has no supported layout; existing files
            are untouched.
        MissingExtraError: another package is needed for this kind of source.
    """
    into = Path(into)
    given = [sources] if isinstance(sources, str | Path) else sources
    try:
        wanted = [str(source) for source in given] or shlex.split(os.environ.get(SOURCE_VARIABLE, ""))
    except ValueError as error:
        raise DataError(f"{SOURCE_VARIABLE}: {error}; quote its paths as in a shell") from error
    if not wanted:
        raise DataError(
            f"fetch: no source; name one, such as s3://bucket/car_ims.tgz, or list them in {SOURCE_VARIABLE}"
        )
    wanted = [one if is_remote(one) else str(expanded(one.removeprefix("file://"))) for one in wanted]
    _check_sum(sha256, wanted[0])
    for source in wanted:
        _check_apart(source, into)
    try:
        with files.locked(into / "raw" / "lock", remove=True):
            return _Stage(into, wanted, sha256).run(redo)
    except BlockingIOError as error:
        raise DataError(f"{into}: another process fetches into it; wait for it or stop it") from error
    except OSError as error:
        if files.is_disk_full(error):
            raise DataError(
                f"{into}: the disk is full; make room and run it again, downloaded files are kept"
            ) from error
        raise DataError(f"{error.filename or into}: {error.strerror or error}; fix that and run it again") from error


def _check_sum(sha256: str | None, source: str) -> None:
    """Raise DataError if a checksum is malformed, or if its source is a folder, which has none."""
    if sha256 is None:
        return
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise DataError(f"{one_line(sha256)!r}: is not a SHA-256 checksum; give its 64 hexadecimal digits")
    if not is_remote(source) and Path(source).is_dir():
        raise DataError(f"{source}: is a folder, which has no SHA-256 checksum; leave the checksum out")


def _check_apart(source: str, into: Path) -> None:
    """Raise DataError if a source is, contains, or lies in what is to be written."""
    if is_remote(source):
        return
    place, target = Path(source).resolve(), into.resolve()
    if any(place == target / name for name in formats.WRITTEN):
        raise DataError(f"{source}: would be overwritten; give another folder with --into")
    if place.is_dir() and (target.is_relative_to(place) or place.is_relative_to(target / formats.IMAGES)):
        raise DataError(f"{into}: and {source} lie in each other; give another folder with --into")


class _Stage:
    """One run of the stage, with exclusive use of its folder."""

    def __init__(self, into: Path, wanted: list[str], sha256: str | None) -> None:
        self.into, self.wanted, self.sha256 = into, wanted, sha256
        self.manifest, self.staging = into / "raw" / MANIFEST, into / _STAGING
        self.new = self.staging / "new"
        self.asked = [identity(one) if is_remote(one) else one for one in wanted]

    def run(self, redo: bool) -> Fetched:
        known, gone = self._known(), None
        if known is not None and not redo:
            if known["sources"] != self.asked:
                earlier = " ".join(known["sources"])
                raise DataError(f"{self.into}: holds {earlier}; give another folder, or --redo to overwrite it")
            if known["finished"]:
                there = self._checked(known)
                gone = [name for name in known["names"] if not (self.into / name).exists()]
                if not gone:
                    return self._fetched(known["kind"], there, fresh=False)
        if known is None:
            self._check_new()
        elif redo and known["finished"]:
            self._check_own(set(known["names"]))
        got = bring(self.wanted, self.into / "raw", self.sha256, redo)
        try:
            content = self._arrange(got)
            if known and gone:
                content = known | {"files": content["files"]}
                self._restore(gone, content)
            else:
                files.write_json(self.manifest, content)  # from here on the folder counts as written by this stage
                for name in formats.WRITTEN:
                    _put(self.new / name, self.into / name)
            files.write_json(self.manifest, content | {"finished": True})
            return self._fetched(content["kind"], tuple(got), fresh=True)
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)

    def _check_new(self) -> None:
        """Raise DataError if something that no earlier run wrote would be overwritten."""
        for name in formats.WRITTEN:
            place = self.into / name
            if place.exists():
                called = f"{name}/" if place.is_dir() else name
                raise DataError(f"{self.into}: has a {called} that `whichcar fetch` did not write; give another folder")

    def _check_own(self, written: set[str]) -> None:
        """Raise DataError if images that no earlier run wrote would be deleted."""
        names = (f"{formats.IMAGES}/{name}" for name in files.walk_images(self.into / formats.IMAGES))
        if own := next((name for name in names if name not in written), None):
            raise DataError(
                f"{self.into}: --redo would delete images that `whichcar fetch` did not write, such as "
                f"{one_line(own)}; move them elsewhere first"
            )

    def _known(self) -> dict[str, Any] | None:
        """Return the manifest of an earlier run, or None."""
        if not self.manifest.is_file():
            return None
        fix = "remove it and run the same command again"
        known = files.read_json(self.manifest, _KEYS, fix)
        whole = all(isinstance(one, dict) and one.keys() >= _FILE_KEYS for one in known["files"])
        if not whole or not all(isinstance(name, str) for name in known["names"]):
            raise DataError(f"{self.manifest}: damaged, an entry of `files` or `names` is incomplete; {fix}")
        return known

    def _checked(self, known: dict[str, Any]) -> tuple[Downloaded, ...]:
        """Return the files that an earlier run fetched, after comparing the checksum of the first one."""
        got = tuple(Downloaded(Path(one["path"]), one["source"], one["size"], one["sha256"]) for one in known["files"])
        if self.sha256 and got and got[0].sha256 not in ("", self.sha256.lower()):
            raise DataError(f"{got[0].source}: its SHA-256 is {got[0].sha256}, not {self.sha256}; fetch it with --redo")
        return got

    def _arrange(self, got: list[Downloaded]) -> dict[str, Any]:
        """Build the set in the folder `new` and return its manifest."""
        shutil.rmtree(self.staging, ignore_errors=True)
        unpacked = self.staging / "unpacked"
        called = " ".join(one.source for one in got)
        if len(got) == 1 and got[0].path.is_dir() and not _tables_in(got[0].path):
            image_set = formats.find(got[0].path, called)
        else:
            for one in got:
                _stage(one.path, unpacked)
            if tables := _tables_in(unpacked):
                unpack_parquet(tables, unpacked, formats.IMAGES, formats.LABELS)
            image_set = formats.find(unpacked, called)
        formats.arrange(image_set, self.new)
        return {
            "finished": False,
            "sources": self.asked,
            "kind": image_set.kind,
            "labels": len(image_set.labels),
            "files": [asdict(one) | {"path": str(one.path)} for one in got],
            "names": list(files.walk(self.new)),
        }

    def _restore(self, gone: list[str], content: dict[str, Any]) -> None:
        """Restore missing files, and remove from the manifest those that are missing from the source too."""
        lost = {name for name in gone if not (self.new / name).exists()}
        found = [name for name in gone if name not in lost]
        for name in found:
            (self.into / name).parent.mkdir(parents=True, exist_ok=True)
            (self.new / name).rename(self.into / name)
        content["names"] = [name for name in content["names"] if name not in lost]
        for names, fate in ((found, "brought back"), (sorted(lost), "nor in the source, which has changed")):
            if names:
                count, example = plural(len(names), "file"), one_line(names[0])
                log.warning("%s of the set not there any more, such as %s; %s", count, example, fate)

    def _fetched(self, kind: str, got: tuple[Downloaded, ...], fresh: bool) -> Fetched:
        """Describe the set of images by its label file."""
        images = sum(1 for _ in files.walk_images(self.into / formats.IMAGES))
        rows = read_labels(self.into / formats.LABELS)
        classes = tuple(sorted({row.class_name for row in rows if row.class_name}))
        counts = Counter(row.subset for row in rows if row.subset)
        splits = {split: counts.pop(split) for split in SPLITS if split in counts} | counts
        return Fetched(self.into, kind, images, len(rows), got, fresh, classes, splits)


def _put(new: Path, place: Path) -> None:
    """Replace a file or folder with a new one, or delete it if there is no new one."""
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if new.exists():
        new.rename(place)


def _tables_in(folder: Path) -> list[Path]:
    return [folder / name for name in files.walk(folder) if name.lower().endswith(SUFFIX)]


def _stage(path: Path, unpacked: Path) -> None:
    """Unpack or copy a source into the folder shared by all sources; tables in a folder keep their relative paths."""
    if path.is_dir():
        tables = _tables_in(path)
        if not tables:
            raise DataError(f"{path}: a folder goes alone; give archives and tables together, or one folder")
        for table in tables:
            _stage(table, unpacked / table.parent.relative_to(path))
        return
    if path.name.lower().endswith(_UNREAD):  # by its content, a spreadsheet is a zip
        raise DataError(
            f"{path}: spreadsheets and compressed tables are not read; unpack it, or save it as .csv in UTF-8"
        )
    if is_archive(path):
        unpack(path, unpacked)
        return
    if path.suffix.lower() not in TABLES:
        raise DataError(
            f"{path}: is not an archive ({KINDS}), label file (.csv, .mat) or table ({SUFFIX}); give one of these"
        )
    if path.suffix.lower() == ".csv":
        read_labels(path)  # raises unless it is a label file: one that is named is not passed over
    unpacked.mkdir(parents=True, exist_ok=True)
    if (unpacked / path.name).exists():
        raise DataError(f"{path}: {path.name} is in the archive too; keep one")
    files.link_or_copy(path, unpacked / path.name)
