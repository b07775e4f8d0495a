"""The files of a run, and the earlier run while `--overwrite` puts a new one in its place.

The earlier run waits in a hidden folder of the experiment until the new one has written its first checkpoint, and is
removed then. Where none comes, however the new run ended, it is put back: at once, or by the next command after a kill.
The hidden folder is renamed between the phases, so that at any moment it is known which run a file belongs to.
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

SPARED = "best-"  # before the name of a best checkpoint whose own name another epoch took
# What a run and its evaluation leave besides checkpoints and logs, in the experiment's folder.
LEFT = (
    *(RESOLVED, BEST, HISTORY, CURVES, ENVIRONMENT, TRACKING),
    *(RESULT, PREDICTIONS, REPORT, PLOTS, EVALUATIONS, REFIT),
)

_WAITING = ".previous"  # all of the earlier run; what lies outside is the new one's
_MOVING = ".previous.moving"  # some of the earlier run; the rest of it lies outside, and nothing of a new one
_REMOVED = ".previous.removed"  # what is being deleted
_HALF_WRITTEN = re.compile(r"\.[0-9a-f]{32}\.(keras|h5|npz)")  # by `files.atomic_write`
_NUMBER = r"\s*(?:[+-]?[\d.,_e+-]+%?|[+-]?nan%?|[+-]?inf%?)"


def files_of_run(folder: Path, pattern: str = "", logs: str = "") -> Iterator[Path]:
    """Yield the files and folders that the run in a folder has left.

    Args:
        folder: the experiment's.
        pattern, logs: of the checkpoints' names and the name of the log folder, where resolved.json is damaged.
    """
    try:
        callbacks = read_json(folder / RESOLVED, {"settings.fit.callbacks": dict})["settings"]["fit"]["callbacks"]
        pattern = Path(callbacks["model_checkpoint"]["filepath"]).name
        logs = Path(callbacks["tensor_board"]["log_dir"]).name
    except (DataError, KeyError, TypeError):
        pass  # missing or damaged, which must not keep it from being overwritten
    names = [*LEFT, *([logs] if logs else []), *_checkpoints(folder, pattern)]
    yield from (folder / name for name in names if (folder / name).exists())
    if (folder / STATE).exists():
        yield folder / STATE


def set_aside(folder: Path, files: Iterable[Path], weights: Path) -> None:
    """Hide the files of the earlier run; `weights`, which the new one starts from, stay in their place as well."""
    moving = folder / _MOVING
    moving.mkdir()
    for path in files:
        if path.resolve() == weights:
            link_or_copy(path, moving / path.name)
        else:
            path.rename(moving / path.name)
    moving.rename(folder / _WAITING)


def is_set_aside(folder: Path) -> bool:
    """True while an earlier run waits."""
    return (folder / _WAITING).exists() or (folder / _MOVING).exists()


def remove_previous(folder: Path) -> None:
    """Delete the earlier run, if one waits."""
    if (folder / _WAITING).exists():
        (folder / _WAITING).rename(folder / _REMOVED)
    if (folder / _REMOVED).exists():
        shutil.rmtree(folder / _REMOVED)


def put_back(folder: Path) -> None:
    """Put the earlier run back in its place, if one waits, and delete what the new one has left.

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
    """Delete checkpoints and states that a kill has left half written, each as large as a whole one.

    The caller holds the folder's lock.
    """
    for path in (*folder.glob(".*"), *(folder / STATE).parent.glob(".*")):
        if _HALF_WRITTEN.fullmatch(path.name):
            path.unlink()


def recover(folder: Path) -> None:
    """Put an earlier run back whose successor was killed.

    Raises:
        CheckpointError: the successor is still training.
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
    """Yield the names that a pattern such as `model.{epoch:02d}.h5` gives."""
    if pattern and folder.is_dir():
        name = re.compile(f"(?:{SPARED})?" + _NUMBER.join(map(re.escape, re.split(r"{.*?}", pattern))))
        yield from (path.name for path in folder.iterdir() if name.fullmatch(path.name))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
