"""Bring the sources of `fetch` to this disk: URLs, datasets on the Hugging Face hub, paths, and named datasets."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from whichcar import files
from whichcar.data.fetch.download import Downloaded, download, file_name, is_remote, tables_of
from whichcar.data.split_names import split_in
from whichcar.errors import DataError
from whichcar.text import plural

log = logging.getLogger(__name__)

# Named datasets and their known homes, which are tried in turn; each home lists all files needed. The site of Stanford
# Cars is gone; these are copies by others, and whichcar's authors have not tested fetching them.
NAMED: dict[str, tuple[tuple[str, ...], ...]] = {
    "stanford-cars": (("hf://datasets/tanganke/stanford_cars",), ("hf://datasets/Donghyun99/Stanford-Cars",))
}
TERMS = {
    "stanford-cars": "its own site is gone; this is a copy by others on the Hugging Face hub, untested with "
    "whichcar; the images (Krause et al. 2013) are for non-commercial research"
}


def bring(wanted: list[str], raw: Path, sha256: str | None, redo: bool = False) -> list[Downloaded]:
    """Return the sources as files or folders on this disk, from the first home that has all of them.

    Args:
        wanted: URLs and paths, or one name in `NAMED`.
        raw: folder for what is downloaded.
        sha256: checksum of the first source, if it is known.
        redo: as for `download`.

    Raises:
        DataError: no home has all sources, or the first source has another checksum.
        MissingExtraError: another package is needed for this kind of source.
    """
    failures = []
    for home in _homes(wanted):
        try:
            sums = itertools.chain([sha256], itertools.repeat(None))
            expanded = _expanded(home)
            return [
                _bring(source, raw, name, known, redo)
                for source, name, known in zip(expanded, _names(expanded), sums, strict=False)
            ]
        except DataError as error:
            failures.append(str(error))
    by_hand = "; get its files another way and give their paths" if wanted[0] in NAMED else ""
    raise DataError("; ".join(failures) + by_hand)


def _homes(wanted: list[str]) -> Sequence[Sequence[str]]:
    """Return the sets of sources to be tried in turn."""
    if len(wanted) == 1 and not is_remote(wanted[0]) and not Path(wanted[0]).exists():
        if wanted[0] in NAMED:
            log.warning("%s: %s", wanted[0], TERMS[wanted[0]])
            return NAMED[wanted[0]]
        raise DataError(f"{wanted[0]}: no such file or folder, nor a data set with a name ({', '.join(NAMED)})")
    return [wanted]


def _expanded(home: Sequence[str]) -> list[str]:
    """Return the sources, with each dataset on the hub replaced by its tables."""
    lists = [_of_splits(tables_of(one)) if _is_data_set(one) else [one] for one in home]
    return list(itertools.chain.from_iterable(lists))


def _is_data_set(source: str) -> bool:
    """Return True for a dataset on the hub or a folder in it; the dataset's own name may contain a dot."""
    return source.startswith("hf://") and not Path(*Path(source).parts[4:]).suffix


def _of_splits(tables: list[str]) -> list[str]:
    """Leave out tables of a hub dataset that belong to no split, such as distorted copies of its test images."""
    named = [table for table in tables if split_in(_inside(table))]
    if named and len(named) < len(tables):
        other = next(table for table in tables if table not in named)
        log.warning("%s left out, such as %s: in no split", plural(len(tables) - len(named), "table"), other)
    return named or tables


def _inside(url: str) -> str:
    """Return the path of a file in a hub dataset, relative to the dataset."""
    return urlsplit(url).path.strip("/").split("/", 2)[-1]


def _names(sources: Sequence[str]) -> list[str]:
    """Return a unique name for each file to be downloaded.

    Tables in several folders of a hub dataset may have the same name, and the folder's name tells the split.
    """
    names: list[str] = []
    for source in sources:
        name = _inside(source).replace("/", "-") if source.startswith("hf://") else ""
        name = name or file_name(source)
        names.append(f"{len(names) + 1}-{name}" if name in names else name)
    return names


def _bring(source: str, raw: Path, name: str, sha256: str | None, redo: bool) -> Downloaded:
    """Return a source as a file or folder on this disk."""
    if is_remote(source):
        return download(source, raw, sha256, name=name, redo=redo)
    path = Path(source)
    if path.is_dir():
        return Downloaded(path, source, 0, "")
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder; check the name")
    digest = files.sha256(path)
    if sha256 and digest != sha256.lower():
        raise DataError(f"{path}: its SHA-256 is {digest}, not {sha256}; get the right file or the right checksum")
    return Downloaded(path, source, path.stat().st_size, digest)
