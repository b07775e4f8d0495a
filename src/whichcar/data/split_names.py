"""The one rule for what a split is called, in folders, label files and tables alike."""

from __future__ import annotations

import re

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}


def split_of(name: str) -> str | None:
    """Return the split that a name means, such as `validation` for `Valid`, or None where it means none."""
    return _NAMES.get(name.strip().casefold())


def split_in(path: str) -> str | None:
    """Return the split that a word of a path means, such as `train` for `data/train-00000-of-00002.parquet`.

    The last such word counts, so that the file's own name comes before those of its folders.
    """
    words = re.split(r"[^a-z]+", path.casefold())
    return next((split for word in reversed(words) if (split := split_of(word))), None)
