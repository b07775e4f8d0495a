"""The refit of an experiment: an ordinary experiment in its folder `refit/`, trained on its validation images too.

It belongs to one checkpoint of the experiment, identified by checksum. If the experiment now has another checkpoint,
for example after `--overwrite` or more epochs, the refit is ignored.
"""

from __future__ import annotations

import logging
from pathlib import Path

from whichcar.files import BEST, EVALUATIONS, REFIT, RESOLVED, read_json
from whichcar.text import shell_command
from whichcar.training.run.overwriting import recover

log = logging.getLogger(__name__)


def in_use(path: Path) -> Path:
    """Return the folder of an experiment's current refit, with a log message, or `path` if there is none.

    Raises:
        CheckpointError: the experiment is being overwritten.
        DataError: as for `current_refit`.
    """
    if path.is_dir():
        recover(path)
    refit = current_refit(path)
    if refit is None:
        return path
    log.warning("%s: its refit is used, which was trained on the training and the validation images", path)
    return refit


def current_refit(folder: Path) -> Path | None:
    """Return the folder of the finished refit of an experiment's current checkpoint, or None if there is none.

    Raises:
        DataError: the experiment's best.json or the refit's resolved.json is damaged.
    """
    refit = folder / REFIT
    if not (folder / BEST).is_file() or not (refit / RESOLVED).is_file():
        return None
    again = shell_command(["whichcar", "train", folder, "--refit"])
    record = read_json(refit / RESOLVED, {"finished": bool, "settings": dict}, f"delete {refit}, and run: {again}")
    if not record["finished"]:
        return None
    best = read_json(folder / BEST, {"blake2b?": str}, "put it back, or train again with --overwrite")
    if record["settings"].get("refit_of") == best.get("blake2b"):
        return refit
    log.warning("%s: is of an earlier checkpoint of this experiment, and not used; refit with: %s", refit, again)
    return None


def refitted(folder: Path) -> Path | None:
    """Return the experiment's folder if a folder is its refit, else None."""
    above = folder.absolute().parent
    return above if folder.absolute().name == REFIT and (above / BEST).is_file() else None


def evaluated_in(folder: Path) -> Path:
    """Return the experiment's folder if a folder is in its `evaluations/`, else the folder itself."""
    above = folder.resolve().parent
    return above.parent if above.name == EVALUATIONS and (above.parent / BEST).is_file() else folder


def experiment_name(folder: Path) -> str:
    """Return the name of an experiment, or of a folder in its `evaluations/`: `exp_003/refit`, `exp_003/photos`."""
    folder = folder.resolve()
    if (evaluated := evaluated_in(folder)) != folder:
        return f"{experiment_name(evaluated)}/{folder.name}"
    return f"{folder.parent.name}/{folder.name}" if refitted(folder) else folder.name
