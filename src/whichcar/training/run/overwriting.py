"""The files of a run, and how `--overwrite` sets an earlier run aside until a new one replaces it.

The earlier run is kept in a hidden folder of the experiment until the new one has written its first checkpoint, and is
then deleted. If the new run ends without a checkpoint, the earlier one is restored: at once, or by the next command
after a kill. The hidden folder is renamed between the phases, so that it is always clear which run a file belongs to.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from whichcar.errors import CheckpointError, DataError
from whichcar.files import (
    BEST,
    CURVES,
    ENVIRONMENT,
    EVALUATIONS,
    HISTORY,
    LABEL_FOLDS,
    LOCK,
    PLOTS,
    PREDICTIONS,
    REFIT,
    REPORT,
    RESOLVED,
    RESULT,
    STATE,
    TRACKING,
    link_or_copy,
    locked,
    read_json,
)

log = logging.getLogger(__name__)

SPARED = "best-"  # prefix of a best checkpoint after another epoch needed its name
# Files in the experiment's folder that a run and what is done with it write, besides checkpoints and logs.
LEFT = (
    *(RESOLVED, BEST, HISTORY, CURVES, ENVIRONMENT, TRACKING),
    *(RESULT, PREDICTIONS, REPORT, PLOTS, EVALUATIONS, REFIT, LABEL_FOLDS),
)

_WAITING = ".previous"  # holds the whole earlier run; files outside belong to the new one
_MOVING = ".previous.moving"  # holds part of the earlier run; the rest is outside, with no file of a new run
_REMOVED = ".previous.removed"  # is being deleted
_HALF_WRITTEN = re.compile(r"\.[0-9a-f]{32}\.(keras|h5|npz)")  # temporary names of `files.atomic_write`
_NUMBER = r"\s*(?:[+-]?[\d.,_e+-]+%?|[+-]?nan%?|[+-]?inf%?)"


def files_of_run(folder: Path, pattern: str = "", logs: str = "") -> Iterator[Path]:
    """Yield the files and folders that the run in a folder has written.

    Args:
        folder: the experiment's folder.
        pattern, logs: pattern of checkpoint names and name of the log folder, used if resolved.json is damaged.
    """
    try:
        callbacks = read_json(folder / RESOLVED, {"settings.fit.callbacks": dict})["settings"]["fit"]["callbacks"]
        pattern = Path(callbacks["model_checkpoint"]["filepath"]).name
        logs = Path(callbacks["tensor_board"]["log_dir"]).name
    except (DataError, KeyError, TypeError):
        pass  # missing or damaged, which must not prevent overwriting
    names = [*LEFT, *([logs] if logs else []), *_checkpoints(folder, pattern)]
    yield from (folder / name for name in names if (folder / name).exists())
    if (folder / STATE).exists():
        yield folder / STATE


def set_aside(folder: Path, files: Iterable[Path], weights: Path) -> None:
    """Hide the files of the earlier run; `weights`, which the new run starts from, also stays in place."""
    moving = folder / _MOVING
    moving.mkdir()
    for path in files:
        if path.resolve() == weights:
            link_or_copy(path, moving / path.name)
        else:
            path.rename(moving / path.name)
    moving.rename(folder / _WAITING)


def is_set_aside(folder: Path) -> bool:
    """Return whether an earlier run is set aside."""
    return (folder / _WAITING).exists() or (folder / _MOVING).exists()


def remove_previous(folder: Path) -> None:
    """Delete the earlier run, if one is set aside."""
    if (folder / _WAITING).exists():
        (folder / _WAITING).rename(folder / _REMOVED)
    if (folder / _REMOVED).exists():
        shutil.rmtree(folder / _REMOVED)


def put_back(folder: Path) -> None:
    """Restore the earlier run, if one is set aside, and delete the files of the new one.

    The caller holds the folder's lock.
    """
    waiting, moving = folder / _WAITING, folder / _MOVING
    if not is_set_aside(folder):
        return
    if waiting.exists():
        for path in files_of_run(folder):
            _delete(path)
        waiting.rename(moving)
    for path in moving.iterdir():
        path.replace(folder / (STATE if path.name == Path(STATE).name else path.name))
    shutil.rmtree(moving)
    log.warning(
        "%s: the training that was to overwrite this run ended before its first checkpoint; the run is back as it was",
        folder,
    )


def remove_half_written(folder: Path) -> None:
    """Delete half-written checkpoints and states that a kill has left, each as large as a complete one.

    The caller holds the folder's lock.
    """
    for path in (*folder.glob(".*"), *(folder / STATE).parent.glob(".*")):
        if _HALF_WRITTEN.fullmatch(path.name):
            path.unlink()


def recover(folder: Path) -> None:
    """Restore an earlier run if the run that was to replace it was killed.

    Raises:
        CheckpointError: the new run is still training.
    """
    if not is_set_aside(folder):
        return
    try:
        with locked(folder / LOCK):
            put_back(folder)
    except BlockingIOError:
        raise CheckpointError(
            f"{folder}: is being overwritten by a training without a checkpoint so far; wait for its first epoch"
        ) from None


def _checkpoints(folder: Path, pattern: str) -> Iterator[str]:
    """Yield the file names in a folder that match a pattern such as `model.{epoch:02d}.h5`."""
    if pattern and folder.is_dir():
        name = re.compile(f"(?:{SPARED})?" + _NUMBER.join(map(re.escape, re.split(r"{.*?}", pattern))))
        yield from (path.name for path in folder.iterdir() if name.fullmatch(path.name))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
