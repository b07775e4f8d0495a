"""The number of an experiment's evaluations on each set of images, which is never reset.

Choosing between models by their test accuracy makes that accuracy optimistic, so every evaluation is counted. The count
belongs to the images and the experiment, not to one result: it stays in the experiment's folder when a result is
replaced and when the experiment is trained again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from whichcar.errors import DataError
from whichcar.files import EVALUATIONS, REFIT, RESULT, TEST_USES, locked, read_json, write_json

log = logging.getLogger(__name__)
_FIX = "the count of evaluations is in it: restore it, or delete it to count again from the results that are there"


def count_use(home: Path, fingerprint: str, use: dict[str, Any]) -> int:
    """Count one more evaluation on these images and return how many there have been.

    Args:
        home: the experiment's folder, also for its refit.
        fingerprint: fingerprint of the images (`data.identity.fingerprint`); for a bundle, followed by its checksum.
        use: details of the evaluation to record, such as its date and checkpoint.
    """
    with locked(home / f".{TEST_USES}.lock", wait=True):
        counts = read_uses(home)
        entry = counts.setdefault(fingerprint, {"times": 0, "uses": []})
        entry["times"] += 1
        entry["uses"].append(use)
        write_json(home / TEST_USES, counts)
    return int(entry["times"])


def read_uses(home: Path) -> dict[str, Any]:
    """Return `times` and the known `uses`, oldest first, by fingerprint of the images.

    If the count is missing, it is rebuilt from the existing results.

    Raises:
        DataError: the count, or a result that it is rebuilt from, is damaged.
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
    """Save counts that only results hold, before the results are deleted; nothing is saved if one is damaged."""
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
    of_bundles = home == Path(EVALUATIONS)  # in the current folder
    inside = f"*/{RESULT}" if of_bundles else f"{EVALUATIONS}/*/{RESULT}"
    # An experiment and its refit share one count.
    paths = [path for place in (home, home / REFIT) for path in (place / RESULT, *sorted(place.glob(inside)))]
    for path in paths:
        content = read_json(path) if path.is_file() else {}
        data, checkpoint = content.get("data"), content.get("checkpoint")
        if isinstance(data, dict) and isinstance(data.get("evaluations"), int) and "fingerprint" in data:
            key = str(data["fingerprint"])
            if of_bundles and isinstance(checkpoint, dict):
                key += f" {checkpoint.get('blake2b')}"
            before = counts.get(key, {"times": 0})["times"]
            counts[key] = {"times": max(before, data["evaluations"]), "uses": []}
    return counts
