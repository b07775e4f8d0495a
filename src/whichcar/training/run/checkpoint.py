"""A checkpoint: an ordinary Keras file (`.keras` or `.h5`) that also holds its class names, image size and settings.

The model is the plain float32 one without augmentation, so that Keras alone can load it. whichcar adds a dataset
`whichcar` in HDF5, or a file `whichcar.json` in the archive, which Keras ignores.
"""

from __future__ import annotations

import contextlib
import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.errors import CheckpointError, DataError
from whichcar.files import BEST, CONFIG, REFIT, RESOLVED, atomic_write, checksum, read_json
from whichcar.records import Metadata
from whichcar.text import as_text, listed, plural, reason_of, shell_command
from whichcar.training.hardware import fused_batch_norm_is_faster, prepare, quiet
from whichcar.training.network.resnet50 import load_saved_model, training_copy
from whichcar.training.run.overwriting import recover
from whichcar.training.run.refits import in_use

if TYPE_CHECKING:
    import keras

NAME = "whichcar"
SUFFIXES = (".keras", ".h5")


def save_checkpoint(model: keras.Model, metadata: Metadata, path: Path) -> None:
    """Write model and metadata to `path` (.keras or .h5), whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    # `.h5` is supported on purpose; Keras warns that it is legacy at every save.
    with atomic_write(path) as tmp, warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        try:
            model.save(tmp)
            write_metadata(tmp, metadata)
        except RuntimeError as error:
            # HDF5 raises this if the disk is full when it closes a file.
            if "errno = " not in str(error):
                raise
            raise OSError(str(error)) from error


def write_metadata(path: Path, metadata: Metadata) -> None:
    """Add metadata to a model file that has none yet."""
    text = json.dumps(asdict(metadata))
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{NAME}.json", text)
    else:
        import h5py

        with h5py.File(path, "r+") as file:
            # A dataset, since an attribute is limited to 64 kB.
            file.create_dataset(NAME, data=text.encode())


def read_metadata(path: Path) -> Metadata:
    """Return the metadata stored in a checkpoint.

    Raises:
        CheckpointError: the file is missing or broken, or whichcar did not write it.
    """
    from pydantic import TypeAdapter

    try:
        # Not `validate_json`, which refuses the surrogates of a name that is not UTF-8.
        metadata = TypeAdapter(Metadata).validate_python(json.loads(_read_text(path)))
        return replace(metadata, class_names=tuple(map(as_text, metadata.class_names)))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: holds no class names; give a checkpoint that `whichcar train` wrote") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({reason_of(error)}); choose another or train again"
        ) from error


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint file at a path or in an experiment's folder (the one in `best.json`, or the only one).

    If the experiment has a current refit (`refits.in_use`), return the refit's checkpoint.

    Raises:
        CheckpointError: there is no checkpoint, or it is not the file that `best.json` describes.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such experiment or checkpoint")
    path = in_use(path)
    recover(path)
    best = read_best(path)
    if best is None:
        return _lone_checkpoint(path)
    while problem := _mismatch(path, best):
        before, best = best, read_best(path) or {}
        if best in (before, {}):  # else a running training has just written another
            raise CheckpointError(problem)
    return path / str(best["checkpoint"])


def read_best(folder: Path) -> dict[str, Any] | None:
    """Return the content of an experiment's best.json, or None if there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / BEST
    if not path.exists():
        return None
    try:
        return read_json(
            path, {"checkpoint": str}, "name a checkpoint file instead of the folder, or train again with --overwrite"
        )
    except DataError as error:
        raise CheckpointError(str(error)) from error


def unfinished(experiment: Path, used: str) -> str:
    """Return a warning if the training of an experiment, or that of its refit, is not finished; else "".

    Args:
        experiment: the folder of an experiment, or of a refit that is in use (`refits.in_use`); for a file there is no
            warning.
        used: what is done with its checkpoint, such as `exported`.
    """
    for folder, text in (
        (experiment, "its training is not finished; the best checkpoint so far is"),
        (experiment / REFIT, "its refit is not finished; the checkpoint before it is"),
    ):
        with contextlib.suppress(DataError):  # no record, or a damaged one, which says nothing
            if not read_json(folder / RESOLVED, {"finished": bool})["finished"]:
                return f"{as_text(experiment)}: {text} {used}"
    return ""


def _mismatch(folder: Path, best: Mapping[str, Any]) -> str:
    """Return how the file that best.json names differs from its description there; empty if it does not."""
    file = folder / best["checkpoint"]
    if not file.is_file():
        return f"{file}: named by {folder / BEST} but missing; train again or give another checkpoint"
    if best.get("blake2b", "") not in ("", checksum(file)):
        return (
            f"{file}: is not the file that {folder / BEST} describes; put that back, or name this file instead of "
            "the folder"
        )
    return ""


def _lone_checkpoint(folder: Path) -> Path:
    """Return the only checkpoint in a folder without best.json, for example one that was copied there.

    Raises:
        CheckpointError: there is none, or more than one.
    """
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    checkpoints = [entry for entry in entries if entry.suffix in SUFFIXES and entry.is_file()]
    if len(checkpoints) == 1:
        return checkpoints[0]
    if checkpoints:
        count = plural(len(checkpoints), "checkpoint")
        raise CheckpointError(f"{folder}: holds {count} and no {BEST}; name one of them: {_some(checkpoints)}")
    if (folder / CONFIG).is_file():
        begun = ["--resume"] if (folder / RESOLVED).is_file() else []
        command = shell_command(["whichcar", "train", folder / CONFIG, *begun])
        raise CheckpointError(f"{folder}: holds no finished epoch yet; run: {command}")
    if experiments := [entry for entry in entries if (entry / BEST).is_file()]:
        raise CheckpointError(
            f"{folder}: holds {plural(len(experiments), 'experiment')}, but no checkpoint itself; "
            f"name one of them: {_some(experiments)}"
        )
    content = (
        f"holds no checkpoint ({' or '.join(SUFFIXES)}), only {_some(entries)}" if entries else "is an empty folder"
    )
    raise CheckpointError(f"{folder}: {content}; name an experiment's folder or a checkpoint")


def _some(paths: Sequence[Path]) -> str:
    return listed([path.name for path in paths], most=6)


def load_model(path: Path) -> keras.Model:
    """Load a checkpoint in the form that predicts fastest here.

    Returns:
        A model from (n, h, w, 3) RGB in 0..255 to (n, classes) float32 probabilities.

    Raises:
        CheckpointError: the file is missing, broken or not a model.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    hardware = prepare()
    return training_copy(load_saved_model(path), hardware.policy, fused_batch_norm_is_faster(hardware.backend))


def _read_text(path: Path) -> str | bytes:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"{NAME}.json")
    import h5py

    with h5py.File(path) as file:
        return bytes(file[NAME][()])
