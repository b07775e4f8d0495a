"""The command to run after running out of memory: the same optimizer updates from smaller batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from whichcar.config.experiment import Experiment
from whichcar.errors import TrainingError
from whichcar.text import shell_command
from whichcar.training.devices import devices_in_use
from whichcar.training.hosts import are_several

BATCH, ACCUMULATION = "data.batch_size", "recipe.gradient_accumulation"


def out_of_memory(
    config_path: Path,
    experiment: Experiment,
    overrides: Sequence[str] = (),
    track: str | None = None,
    saved: bool = False,
) -> TrainingError:
    """Return the error, with a command that starts the run again with fewer images per batch on each device, if any.

    That command cannot resume a saved state: its optimizer variables and step count refer to other batches.

    Args:
        config_path: the experiment's `config.yml`.
        experiment: the settings that ran out of memory.
        overrides: overrides of the file's settings, which the command repeats.
        track: the tracking service in use.
        saved: whether there is a state to resume from once other programs leave more memory.
    """
    whole, accumulated = experiment.data.batch_size, experiment.recipe.gradient_accumulation
    devices = devices_in_use()
    parts = next((n for n in range(2, whole + 1) if whole % n == 0 and whole // n % devices == 0), None)
    what = f"{config_path}: out of memory with {BATCH} {whole}"
    if parts is None:
        return TrainingError(f"{what}; use smaller images: lower data.image_size, recipe.stages and recipe.test_sizes")
    if saved:
        what += f"; free memory and resume: {_command(config_path, overrides, track, '--resume')}"
    kept = [text for text in overrides if text.partition("=")[0].strip() not in (BATCH, ACCUMULATION)]
    changed = [f"{BATCH}={whole // parts}", f"{ACCUMULATION}={accumulated * parts}"]
    again = _command(config_path, [*kept, *changed], track, "--overwrite")
    where = " (on every host, with its --hosts)" if are_several() else ""
    return TrainingError(
        f"{what}; {'or ' if saved else ''}start again with the same updates from smaller batches: {again}{where}"
    )


def _command(config_path: Path, overrides: Sequence[str], track: str | None, how: str) -> str:
    words = [*(word for text in overrides for word in ("--set", text)), *(["--track", track] if track else []), how]
    return shell_command(["whichcar", "train", str(config_path), *words])
