"""The models that come with the package: bundles that are known by a name."""

from __future__ import annotations

import os
from pathlib import Path

from whichcar.errors import CheckpointError
from whichcar.files import BEST, CONFIG, RESOLVED
from whichcar.inference.bundle import PLAIN_SUFFIX, SUFFIX
from whichcar.text import is_address

FOLDER = Path(__file__).parents[1] / "models"
DEFAULT = "cars196"
_FILES = (".keras", ".h5", SUFFIX, PLAIN_SUFFIX)


def released() -> dict[str, Path]:
    """Return the bundles in the package by their names, sorted."""
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def find_model(model: str | Path | None = None) -> Path:
    """Return the path of a model: that of a file or a folder which is there, or of a model with a name.

    Args:
        model: a path or a name (default: the model `cars196`). What is neither is returned as it is.

    Raises:
        CheckpointError: a model that comes with the package is asked for, and is not in it.
    """
    name = str(DEFAULT if model is None else model)
    if model is not None and Path(model).exists():
        return Path(model)
    models = released()
    if name in models:
        return models[name]
    if name == DEFAULT:
        raise CheckpointError(
            f"{name}: this installation has no such model ({FOLDER / name}{SUFFIX} is missing); "
            "name an experiment or a bundle with --model"
        )
    return Path(name)


def is_model(name: str) -> bool:
    """True for what names a model rather than images: a checkpoint, a bundle, a folder of an experiment, or a name.

    The name of a model, or of an experiment that is not there, has no suffix, unlike an image's.
    """
    path = Path(name)
    if os.path.isdir(name):  # noqa: PTH112  (False for a name that the system refuses, where Path raises)
        try:
            return any(entry.name in (BEST, RESOLVED, CONFIG) or entry.suffix in _FILES[:2] for entry in path.iterdir())
        except OSError:  # as images it is a row that says why
            return False
    is_pattern = any(sign in name for sign in "*?[")
    is_lost = name != "-" and not path.suffix and not is_address(name) and not is_pattern and _is_missing(path)
    return path.suffix.lower() in _FILES or is_lost


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # who knows
        return False
    return False
