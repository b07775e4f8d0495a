"""`whichcar new`: settings for a dataset, and the experiment of `whichcar train` for a folder of images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import click

from whichcar import files
from whichcar.cli.options import FOLDER
from whichcar.cli.streams import say_lines
from whichcar.environment import expanded
from whichcar.errors import ConfigError
from whichcar.text import file_name, shell_command

MINUTES, BACKBONE = 60.0, "resnet50"
NO_WEIGHTS = ("none", "null")


@click.command()
@click.argument("experiment", type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="Folder with one folder per class, or with train/ and test/.")
@click.option(
    "--minutes", type=float, default=MINUTES, show_default=True, help="Time budget for the whole training, in minutes."
)
@click.option(
    "--backbone",
    default=BACKBONE,
    show_default=True,
    metavar="NAME",
    help="Network of keras.applications, such as efficientnet_v2_b0.",
)
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|none|PATH",
    help="Weights to start from: those of ImageNet, which Keras downloads, random ones, or a file.",
)
@click.option("--overwrite", is_flag=True, help="Overwrite an existing config.yml.")
def new(experiment: Path, data: Path, minutes: float, backbone: str, weights: str, overwrite: bool) -> None:
    """Write EXPERIMENT/config.yml: settings chosen for a dataset, this machine and a time budget.

    A few training steps are run to see how fast this machine is. The file gives the reason for each choice and can be
    edited.

    \b
    Examples:
      whichcar new experiments/mine --data data/car_ims_v2
      whichcar new experiments/mine --data data/car_ims_v2 --minutes 20 --overwrite
      whichcar new experiments/mine --data data/car_ims_v2 --weights data/resnet50_top.h5
      whichcar new experiments/small --data data/car_ims_v2 --backbone efficientnet_v2_b0
    """
    if weights.lower() not in ("imagenet", *NO_WEIGHTS) and not expanded(weights).exists():
        raise ConfigError(f"--weights: no file {weights}; give imagenet, none, or the path of a .keras or .h5 file")
    _write(experiment, data, minutes, backbone, weights, overwrite)
    say_lines([f"next: {shell_command(['whichcar', 'train', experiment])}"])


def _write(experiment: Path, data: Path, minutes: float, backbone: str, weights: str, overwrite: bool = False) -> None:
    """Write the config of an experiment and say where it is and how long its training takes."""
    from whichcar.training.new import new as new_experiment

    logging.getLogger("whichcar").setLevel(logging.INFO)
    start = None if weights.lower() in NO_WEIGHTS else weights
    written = new_experiment(experiment, data, minutes, start, overwrite, backbone)
    lines = [
        f"settings: {written.config}, for about {max(1, round(written.minutes))} of {minutes:g} minutes of training"
    ]
    say_lines([*lines, *([f"remark: {written.remark}"] if written.remark else [])])


def experiment_of(path: Path, overrides: Sequence[str]) -> Path:
    """Return the experiment that `whichcar train` is to train: for a folder of images its own, written if need be.

    Any other path is returned as it is.

    Raises:
        ConfigError: the experiment that would be its own is another dataset's, an override is wrong, or the folder is
            neither an experiment nor one of images.
    """
    if not path.is_dir() or _has_config(path):
        return path
    from whichcar.config.load import CONFIGS, checked_overrides, load_config

    if not any(any(files.walk_images(folder)) for folder in files.folders(path)):
        raise ConfigError(
            f"{path}: holds neither a config.yml nor class folders with images; name an experiment's folder or a YAML "
            "file, or a folder that holds one folder per class"
        )
    experiment = Path("experiments") / file_name(path.resolve().name)
    if any((experiment / name).is_file() for name in CONFIGS):
        directory = Path(load_config(experiment)["data"]["directory"])
        if expanded(directory).resolve() != path.resolve():
            command = shell_command(["whichcar", "new", "EXPERIMENT", "--data", path])
            raise ConfigError(f"{experiment}: is the experiment of {directory}; give this one another name: {command}")
        return experiment
    model = checked_overrides(experiment, overrides).get("model", {})  # before this machine is measured
    _write(experiment, path, MINUTES, model.get("backbone", BACKBONE), str(model.get("weights", "imagenet")))
    return experiment


def _has_config(path: Path) -> bool:
    """Return whether a folder, or a folder in it, holds settings: it is an experiment, or holds several."""
    return any(path.glob("config.y*ml")) or any(path.glob("*/config.y*ml"))
