"""The names of splits, which are the same in folders, label files and tables."""

from __future__ import annotations

import re

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}


def split_of(name: str) -> str | None:
    """Return the split that a name stands for, such as `validation` for `Valid`, or None."""
    return _NAMES.get(name.strip().casefold())


def split_in(path: str) -> str | None:
    """Return the split that a word in a path stands for, such as `train` in `data/train-00000-of-00002.parquet`.

    The last such word counts, so that the file's own name takes precedence over its folders.
    """
    words = re.split(r"[^a-z]+", path.casefold())
    return next((split for word in reversed(words) if (split := split_of(word))), None)
