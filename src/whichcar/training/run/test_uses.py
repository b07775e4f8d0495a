"""How often an experiment has been evaluated on which images: a count that nothing resets.

Choosing between models by their test accuracy makes that accuracy optimistic, so every evaluation is counted. The count
belongs to the images and the experiment, not to one result: it stays in the experiment's folder when a result is
replaced and when the experiment is trained again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from whichcar.errors import DataError
from whichcar.files import EVALUATIONS, RESULT, TEST_USES, locked, read_json, write_json

log = logging.getLogger(__name__)
_FIX = "the count of evaluations is in it: restore it, or delete it to count again from the results that are there"


def count_use(home: Path, fingerprint: str, use: dict[str, Any]) -> int:
    """Count one more evaluation on these images and return how many there have been.

    Args:
        home: the experiment's folder.
        fingerprint: of the images (`data.identity.fingerprint`); for a bundle, followed by its checksum.
        use: what is written down of it, such as its date and checkpoint.
    """
    with locked(home / f".{TEST_USES}.lock", wait=True):
        counts = read_uses(home)
        entry = counts.setdefault(fingerprint, {"times": 0, "uses": []})
        entry["times"] += 1
        entry["uses"].append(use)
        write_json(home / TEST_USES, counts)
    return int(entry["times"])


def read_uses(home: Path) -> dict[str, Any]:
    """Return, by fingerprint of the images, `times` and the `uses` that are known of these, oldest first.

    Where the count is gone, it is taken from the results that are there.

    Raises:
        DataError: the count, or a result it has to be taken from, is damaged.
    """
    path = home / TEST_USES
    if not path.exists():
        return _earlier(home)
    counts = read_json(path, fix=_FIX)
    for value in counts.values():
        if not isinstance(value, dict) or not isinstance(value.get("times"), int):
            raise DataError(f"{path}: damaged, an entry without `times`; {_FIX}")
        if not isinstance(value.get("uses"), list):
            raise DataError(f"{path}: damaged, an entry without `uses`; {_FIX}")
    return counts


def keep_uses(home: Path) -> None:
    """Write down the counts that are only in results so far, before these are deleted; damaged results have none."""
    try:
        counts = {} if (home / TEST_USES).exists() else _earlier(home)
    except DataError as error:
        log.warning("%s", error)
        return
    if counts:
        with locked(home / f".{TEST_USES}.lock", wait=True):
            if not (home / TEST_USES).exists():
                write_json(home / TEST_USES, counts)


def _earlier(home: Path) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    of_bundles = home == Path(EVALUATIONS)  # of the current folder
    inside = home.glob(f"*/{RESULT}" if of_bundles else f"{EVALUATIONS}/*/{RESULT}")
    for path in (home / RESULT, *sorted(inside)):
        content = read_json(path) if path.is_file() else {}
        data, checkpoint = content.get("data"), content.get("checkpoint")
        if isinstance(data, dict) and isinstance(data.get("evaluations"), int) and "fingerprint" in data:
            key = str(data["fingerprint"])
            if of_bundles and isinstance(checkpoint, dict):
                key += f" {checkpoint.get('blake2b')}"
            before = counts.get(key, {"times": 0})["times"]
            counts[key] = {"times": max(before, data["evaluations"]), "uses": []}
    return counts
