"""The refit of an experiment: an ordinary experiment in its folder `refit/`, trained on its validation images too.

It belongs to one checkpoint of the experiment, by its checksum. Where the experiment has another one by now, as after
`--overwrite` or more epochs, the refit is passed over.
"""

from __future__ import annotations

import logging
from pathlib import Path

from whichcar.files import BEST, REFIT, RESOLVED, read_json
from whichcar.text import shell_command
from whichcar.training.run.overwriting import recover

log = logging.getLogger(__name__)


def in_use(path: Path) -> Path:
    """Return the folder of an experiment's refit where there is a current one, and log so; else `path`.

    Raises:
        CheckpointError: the experiment is being overwritten.
        DataError: as `current_refit`.
    """
    if path.is_dir():
        recover(path)
    refit = current_refit(path)
    if refit is None:
        return path
    log.warning("%s: its refit is used, which was trained on the training and the validation images", path)
    return refit


def current_refit(folder: Path) -> Path | None:
    """Return the folder of an experiment's finished refit; None where it has none of its present checkpoint.

    Raises:
        DataError: its best.json or the record of the refit is damaged.
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
    """Return the experiment that a folder is the refit of; None for any other folder."""
    above = folder.absolute().parent
    return above if folder.absolute().name == REFIT and (above / BEST).is_file() else None


def experiment_name(folder: Path) -> str:
    """Return what an experiment is called, such as `exp_003`, or `exp_003/refit`."""
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}" if refitted(folder) else folder.name
