"""The command to run when memory is used up: the same optimizer updates from smaller batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from whichcar.config.experiment import Experiment
from whichcar.errors import TrainingError
from whichcar.text import shell_command

BATCH, ACCUMULATION = "data.batch_size", "recipe.gradient_accumulation"


def out_of_memory(
    config_path: Path, experiment: Experiment, overrides: Sequence[str] = (), track: str | None = None
) -> TrainingError:
    """Return the error with a command that starts the run again and needs less memory for a batch.

    Args:
        config_path: the experiment's `config.yml`.
        experiment: the settings that need too much.
        overrides: those laid over the file, which the command repeats.
        track: the tracking service in use.
    """
    whole, accumulated = experiment.data.batch_size, experiment.recipe.gradient_accumulation
    parts = next((number for number in range(2, whole + 1) if whole % number == 0), None)
    what = f"{config_path}: out of memory with {BATCH} {whole}"
    if parts is None:
        return TrainingError(f"{what}; use smaller images: lower data.image_size, recipe.stages and recipe.test_sizes")
    kept = [text for text in overrides if text.partition("=")[0].strip() not in (BATCH, ACCUMULATION)]
    changed = [f"{BATCH}={whole // parts}", f"{ACCUMULATION}={accumulated * parts}"]
    command = ["whichcar", "train", str(config_path), *(word for text in (*kept, *changed) for word in ("--set", text))]
    command += ["--track", track] if track else []
    return TrainingError(
        f"{what}; start again with the same updates from smaller batches: {shell_command([*command, '--overwrite'])}"
    )
