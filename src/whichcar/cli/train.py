"""`whichcar train`: train a network."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from whichcar.cli.new import experiment_of
from whichcar.cli.options import FILE, overrides_option, track_option
from whichcar.cli.streams import say_lines
from whichcar.errors import Interrupted
from whichcar.text import shell_command


@click.command()
@click.argument("config", type=FILE)
@overrides_option
@click.option(
    "--resume", is_flag=True, help="Resume an interrupted training, or extend a finished one with --set fit.epochs=N."
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an earlier training and its evaluations, which are deleted once the new one has a checkpoint.",
)
@track_option
def train(config: Path, overrides: tuple[str, ...], resume: bool, overwrite: bool, track: str | None) -> None:
    """Train with the settings in CONFIG, a settings file or an experiment's folder.

    For a folder of images, settings for an hour are chosen and written first, as by `whichcar new`; the same command
    again resumes the training.

    Results are written to the experiment's folder (that of config.yml, or NAME/ for NAME.yml).

    Ctrl-C saves the state of the training first. A finished training is left as it is.

    \b
    Examples:
      whichcar train experiments/exp_003
      whichcar train data/car_ims_v2
      whichcar train experiments/exp_003/config.yml
      whichcar train experiments/exp_003/config.yml --set fit.epochs=3
      whichcar train experiments/exp_003/config.yml --resume
      whichcar train experiments/exp_003/config.yml --track mlflow
    """
    from whichcar.training.train import train as train_network

    logging.getLogger("whichcar").setLevel(logging.INFO)
    given, config = config, experiment_of(config, overrides)
    resume = resume or (config != given and not overwrite)
    try:
        trained = train_network(config, overrides, resume=resume, overwrite=overwrite, track=track)
    except Interrupted as error:
        command = ["whichcar", "train", str(config), *(word for text in overrides for word in ("--set", text))]
        command += ["--resume" if error.saved else "--overwrite", *(["--track", track] if track else [])]
        again = "resume with" if error.saved else "start again with"
        raise Interrupted(f"{error}\n{again}: {shell_command(command)}") from None
    say_lines([f"checkpoint: {trained.checkpoint}", f"next: {shell_command(['whichcar', 'evaluate', trained.folder])}"])
