"""The fetch stage: pictures from a bucket, the web or a disk to `car_ims/` and `car_dataset_labels.csv`.

`INTO/raw/` holds what was downloaded and `manifest.json`: source, size and SHA-256 of each file. A second run finds
them there and downloads nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from whichcar import files
from whichcar.data import layout
from whichcar.data.archives import is_archive, unpack
from whichcar.data.parquet import SUFFIX, unpack_parquet
from whichcar.data.remote import Downloaded, download, is_remote, shown, tables_of
from whichcar.errors import DataError

SOURCE_VARIABLE = "WHICHCAR_SOURCE"
MANIFEST = "manifest.json"
_STAGING = ".unpacked"

# Data sets with a name: their known homes, tried in turn; each home is all the files it takes.
NAMED: dict[str, tuple[tuple[str, ...], ...]] = {
    "stanford-cars": (
        (
            "http://ai.stanford.edu/~jkrause/car196/car_ims.tgz",
            "http://ai.stanford.edu/~jkrause/car196/cars_annos.mat",
        ),
        (
            "http://imagenet.stanford.edu/internal/car196/car_ims.tgz",
            "http://imagenet.stanford.edu/internal/car196/cars_annos.mat",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is there now; `kind` is how it was labelled, `fresh` whether anything was done."""

    into: Path
    kind: str
    pictures: int
    labels: int
    files: tuple[Downloaded, ...]
    fresh: bool


def fetch(
    sources: Sequence[str | Path] = (), into: str | Path = "data", sha256: str | None = None, redo: bool = False
) -> Fetched:
    """Get a set of pictures and put it where the other stages expect it.

    Args:
        sources: addresses (`s3://bucket/key`, `https://…`, `hf://datasets/OWNER/NAME`), paths of archives, tables or
            folders, or one name of `NAMED`; all of them together are one set. By default what `WHICHCAR_SOURCE` lists,
            divided by spaces.
        into: gets `car_ims/`, `car_dataset_labels.csv` and, where they are known, `boxes.csv`.
        sha256: of the first source, if it is known.
        redo: arrange anew, also in the place of another set that an earlier call brought; what was downloaded from the
            same address is not downloaded again unless it changed.

    Raises:
        DataError: nothing to fetch, not to be had, hostile, or not understood.
        MissingExtraError: another package is needed for this kind of source.
    """
    into = Path(into)
    wanted = [str(source) for source in sources] or os.environ.get(SOURCE_VARIABLE, "").split()
    if not wanted:
        raise DataError(
            f"fetch: no source; name one, such as s3://bucket/car_ims.tgz, or list them in {SOURCE_VARIABLE}"
        )
    manifest = into / "raw" / MANIFEST
    asked = [shown(source) if is_remote(source) else source for source in wanted]
    if not redo and (known := _finished(manifest, asked, into)):
        return known
    if not manifest.is_file() and (into / layout.PICTURES).exists():
        raise DataError(f"{into}: has a {layout.PICTURES}/ that `whichcar fetch` did not write; give another folder")
    try:
        got, failures = None, []
        for home in _homes(wanted):
            try:
                sums = itertools.chain([sha256], itertools.repeat(None))
                got = [
                    _bring(source, into / "raw", known) for source, known in zip(_expanded(home), sums, strict=False)
                ]
                break
            except DataError as error:
                failures.append(str(error))
        if got is None:
            raise DataError("; ".join(failures))
        return _arrange(asked, got, into, manifest)
    except OSError as error:
        if files.is_disk_full(error):
            raise DataError(f"{into}: the disk is full; make room and run it again, what has come is kept") from error
        raise DataError(f"{error.filename or into}: {error.strerror or error}; mend that and run it again") from error


def _homes(wanted: list[str]) -> Sequence[Sequence[str]]:
    """Return the sets of sources to be tried in turn."""
    if len(wanted) == 1 and not is_remote(wanted[0]) and not Path(wanted[0]).exists():
        if wanted[0] in NAMED:
            return NAMED[wanted[0]]
        raise DataError(f"{wanted[0]}: no such file or folder, nor a data set with a name ({', '.join(NAMED)})")
    return [wanted]


def _expanded(home: Sequence[str]) -> list[str]:
    """Return the sources with each data set of the hub as its tables."""
    parts = [tables_of(one) if one.startswith("hf://") and not Path(one).suffix else [one] for one in home]
    return [one for some in parts for one in some]


def _bring(source: str, raw: Path, sha256: str | None) -> Downloaded:
    """Return a source as a file or folder on this disk."""
    if is_remote(source):
        # Tables of several folders may have one name, and the folder's says which half it is.
        name = "-".join(urlsplit(source).path.strip("/").split("/")[1:]) if source.startswith("hf://") else None
        return download(source, raw, sha256, name=name)
    path = Path(source.removeprefix("file://")).expanduser()
    if path.is_dir():
        return Downloaded(path, source, 0, "")
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder; check the name")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and digest != sha256.lower():
        raise DataError(f"{path}: its SHA-256 is {digest}, not {sha256}; get the right file or the right checksum")
    return Downloaded(path, source, path.stat().st_size, digest)


def _arrange(asked: list[str], got: list[Downloaded], into: Path, manifest: Path) -> Fetched:
    staging = into / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        if len(got) == 1 and got[0].path.is_dir() and not any(got[0].path.rglob(f"*{SUFFIX}")):
            found = layout.find(got[0].path)
        else:
            for one in got:
                _stage(one.path, staging)
            if tables := sorted(staging.rglob(f"*{SUFFIX}")):
                unpack_parquet(tables, staging, layout.PICTURES, layout.LABELS, layout.TEST_SHARE, layout.SEED)
            found = layout.find(staging)
        if manifest.is_file():
            shutil.rmtree(into / layout.PICTURES, ignore_errors=True)
            (into / layout.BOXES).unlink(missing_ok=True)
        pictures = layout.arrange(found, into)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    content = {
        "sources": asked,
        "kind": found.kind,
        "pictures": pictures,
        "labels": len(found.labels),
        "files": [asdict(one) | {"path": str(one.path)} for one in got],
    }
    files.write_json(manifest, content)
    return Fetched(into, found.kind, pictures, len(found.labels), tuple(got), fresh=True)


def _stage(path: Path, staging: Path) -> None:
    if path.is_dir():
        tables = sorted(path.rglob(f"*{SUFFIX}"))
        if not tables:
            raise DataError(f"{path}: a folder goes alone; give archives and tables together, or one folder")
        for table in tables:
            _stage(table, staging)
        return
    if is_archive(path):
        unpack(path, staging)
        return
    staging.mkdir(parents=True, exist_ok=True)
    if (staging / path.name).exists():
        raise DataError(f"{path}: {path.name} stands in the archive too; keep one")
    files.link_or_copy(path, staging / path.name)


def _finished(manifest: Path, asked: list[str], into: Path) -> Fetched | None:
    """Return what an earlier run left, if it fetched the same and nothing of it is gone."""
    if not manifest.is_file():
        return None
    known: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    if known["sources"] != asked:
        raise DataError(
            f"{into}: holds {' '.join(known['sources'])}; give another folder, or --redo to put this in its place"
        )
    pictures = sum(1 for _ in files.walk_images(into / layout.PICTURES))
    if pictures < known["pictures"] or not (into / layout.LABELS).is_file():
        return None
    got = tuple(Downloaded(Path(one["path"]), one["source"], one["size"], one["sha256"]) for one in known["files"])
    return Fetched(into, known["kind"], pictures, known["labels"], got, fresh=False)
