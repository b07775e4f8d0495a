"""The models that come with the package: bundles that are known by a name."""

from __future__ import annotations

from pathlib import Path

from whichcar.errors import CheckpointError
from whichcar.inference.bundle import SUFFIX

FOLDER = Path(__file__).parents[1] / "models"
DEFAULT = "cars196"


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
