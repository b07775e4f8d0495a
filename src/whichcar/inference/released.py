"""The models that come with the package: bundles known by name."""

from __future__ import annotations

import os
from pathlib import Path

from whichcar.errors import CheckpointError
from whichcar.files import BEST, CONFIG, RESOLVED, is_image
from whichcar.inference.bundle import PLAIN_SUFFIX, SUFFIX
from whichcar.text import is_address, suggestion

FOLDER = Path(__file__).parents[1] / "models"
DEFAULT = "cars196"
_FILES = (".keras", ".h5", SUFFIX, PLAIN_SUFFIX)


def released() -> dict[str, Path]:
    """Return the package's bundles by name, sorted."""
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def find_model(model: str | Path | None = None) -> Path:
    """Return the path of a model: an existing file or folder, or the model of that name in the package.

    Args:
        model: a path or a name (default: the model `cars196`).

    Raises:
        CheckpointError: it is neither, or its name is not a model's, such as an image's.
    """
    name = str(DEFAULT if model is None else model)
    if model is not None and Path(model).exists():
        return _not_an_image(Path(model))
    models = released()
    if name in models:
        return models[name]
    if name == DEFAULT:
        raise CheckpointError(
            f"{name}: this installation has no such model ({FOLDER / name}{SUFFIX} is missing); "
            "name an experiment or a bundle with --model"
        )
    advice = suggestion(name, models)
    raise CheckpointError(
        f"{name}: no such experiment, checkpoint or bundle, nor a model that `whichcar models` lists"
        f"{advice and '; '}{advice}"
    )


def name_of(path: Path) -> str:
    """Return a model's name in messages: the name of a model in the package, else the path."""
    return path.stem if path.parent == FOLDER else str(path)


def _not_an_image(path: Path) -> Path:
    if path.is_dir() or path.suffix.lower() in _FILES:
        return path
    kind = "an image, not a model" if is_image(path) else "not a model"
    raise CheckpointError(
        f"{path}: is {kind}; name an experiment's folder, a checkpoint (.keras, .h5), a bundle ({SUFFIX}, "
        f"{PLAIN_SUFFIX}), or a model that `whichcar models` lists"
    )


def is_model(name: str) -> bool:
    """Return whether a name is a model's rather than an image's: a checkpoint, bundle, experiment folder or model name.

    A model's name, or the path of a missing experiment, has no suffix, unlike an image's.
    """
    path = Path(name)
    if os.path.isdir(name):  # noqa: PTH112  (False for a name that the system refuses, where Path raises)
        try:
            return any(entry.name in (BEST, RESOLVED, CONFIG) or entry.suffix in _FILES[:2] for entry in path.iterdir())
        except OSError:  # taken as images, it becomes a row with the reason
            return False
    is_pattern = any(sign in name for sign in "*?[")
    is_lost = name != "-" and not path.suffix and not is_address(name) and not is_pattern and _is_missing(path)
    return path.suffix.lower() in _FILES or is_lost


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # unknown
        return False
    return False
