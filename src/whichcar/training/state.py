"""The state of a training run on disk: everything that a run killed at any moment needs to go on as if nothing was."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whichcar.errors import TrainingError
from whichcar.files import replaced

if TYPE_CHECKING:
    import keras

NAME = "state.npz"


def save_state(path: Path, variables: Sequence[keras.Variable], progress: dict[str, Any]) -> None:
    """Write variables and progress (what JSON can hold) as one file, whole or not at all."""
    arrays: dict[str, Any] = {f"v{number}": np.asarray(v.numpy()) for number, v in enumerate(variables)}
    text = np.frombuffer(json.dumps(progress).encode(), np.uint8)
    with replaced(path) as beside:
        np.savez(beside, progress=text, **arrays)


def load_state(path: Path, variables: Sequence[keras.Variable]) -> dict[str, Any]:
    """Put the saved values into `variables` and return the progress.

    Raises:
        TrainingError: the file is broken or belongs to another network.
    """
    try:
        with path.open("rb") as file, np.load(file) as saved:
            progress: dict[str, Any] = json.loads(saved["progress"].tobytes())
            arrays = [saved[f"v{number}"] for number in range(len(saved.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path}: cannot be read ({error}); start anew with --overwrite") from error
    if [a.shape for a in arrays] != [tuple(variable.shape) for variable in variables]:
        raise TrainingError(f"{path}: belongs to another network or optimizer; start anew with --overwrite")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return progress
