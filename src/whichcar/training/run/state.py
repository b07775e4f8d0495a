"""The state of a training run on disk: everything that a run killed at any moment needs to resume exactly."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whichcar.errors import TrainingError
from whichcar.files import atomic_write
from whichcar.text import reason_of

if TYPE_CHECKING:
    import keras

FORMAT = 3  # version of the content of `progress`; incremented with every change
# Raised by zipfile, NumPy and json for a corrupt file.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile)


def save_state(path: Path, variables: Sequence[keras.Variable], progress: dict[str, Any]) -> None:
    """Write variables and progress (JSON-serializable) to one file atomically."""
    arrays: dict[str, Any] = {f"v{number}": np.asarray(v.numpy()) for number, v in enumerate(variables)}
    head = {"format": FORMAT, "progress": progress}
    with atomic_write(path) as tmp:
        np.savez(tmp, progress=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)


def load_state(path: Path, variables: Sequence[keras.Variable]) -> dict[str, Any]:
    """Put the saved values into `variables` and return the progress.

    Raises:
        TrainingError: the file is damaged, of another version's format, or belongs to another network.
    """
    try:
        with path.open("rb") as file, np.load(file) as saved:
            head: dict[str, Any] = json.loads(saved["progress"].tobytes())
            arrays = [saved[f"v{number}"] for number in range(len(saved.files) - 1)]
    except _DAMAGE as error:
        raise TrainingError(f"{path}: cannot be read ({reason_of(error)}); start over with --overwrite") from error
    if head.get("format") != FORMAT:
        raise TrainingError(
            f"{path}: has format {head.get('format')}, and this version of whichcar reads format {FORMAT}; resume "
            "with the version that environment.json names, or start over with --overwrite"
        )
    if [a.shape for a in arrays] != [tuple(variable.shape) for variable in variables]:
        raise TrainingError(f"{path}: belongs to another network or optimizer; start over with --overwrite")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    progress: dict[str, Any] = head["progress"]
    return progress
