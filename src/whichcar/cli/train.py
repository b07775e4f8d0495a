"""`whichcar train`: train a network."""

from __future__ import annotations

import logging
import math
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
    "--resume",
    is_flag=True,
    help="Resume an interrupted training, or extend a finished one with --set fit.epochs=N (and recipe.stages, if it "
    "has any).",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an earlier training and its evaluations, which are deleted once the new one has a checkpoint.",
)
@click.option(
    "--refit",
    is_flag=True,
    help="After the training, train again on training and validation images, at the image size that validation chose.",
)
@click.option(
    "--hosts",
    metavar="HOST:PORT,HOST,…",
    help="Train on several hosts: the address of the first one, with a free port, and the others; or auto, under "
    "Slurm, Open MPI or Kubernetes. Run the same command on each.",
)
@click.option("--host", metavar="NUMBER", type=int, help="Index of this host in --hosts, from 0.")
@track_option
def train(
    config: Path,
    overrides: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    refit: bool,
    hosts: str | None,
    host: int | None,
    track: str | None,
) -> None:
    """Train with the settings in CONFIG, a settings file or an experiment's folder.

    For a folder of images, settings for an hour are chosen and written first, as by `whichcar new`; the same command
    again resumes the training.

    Results are written to the experiment's folder (that of config.yml, or NAME/ for NAME.yml).

    Ctrl-C saves the state of the training first. A finished training is left as it is.

    With --refit, a second training in EXPERIMENT/refit/ uses the validation images too, at the image size that the
    first one chose on them; with a constant learning rate, it also ends at the epoch that was chosen. `evaluate` and
    `predict` then use its checkpoint.

    \b
    Examples:
      whichcar train experiments/exp_003
      whichcar train data/car_ims_v2
      whichcar train experiments/exp_003/config.yml
      whichcar train experiments/exp_003/config.yml --set fit.epochs=3
      whichcar train experiments/exp_003/config.yml --resume
      whichcar train experiments/exp_003 --refit
      whichcar train experiments/exp_003/config.yml --track mlflow
      whichcar train experiments/exp_003 --hosts 10.0.0.1:8476,10.0.0.2 --host 1
    """
    from whichcar.training.hosts import AUTO, join
    from whichcar.training.refit import refit as train_and_refit
    from whichcar.training.train import train as train_once

    logging.getLogger("whichcar").setLevel(logging.INFO)
    if (host is None) != (hosts in (None, AUTO)):
        raise click.UsageError("--hosts with addresses and --host belong together")
    given, config = config, config if hosts else experiment_of(config, overrides)
    resume = resume or (config != given and not overwrite)
    joined = join(config, hosts, host) if hosts else config
    follows = joined != config  # the first host has the results, and reports
    if follows:
        track = None
    sets = [word for text in overrides for word in ("--set", text)]
    try:
        train_network = train_and_refit if refit else train_once
        trained = train_network(joined, overrides, resume=resume, overwrite=overwrite, track=track)
    except Interrupted as error:
        if follows:
            raise Interrupted(f"{config}: stopped; host 0 has what is saved") from None
        command = ["whichcar", "train", str(config), *sets]
        command += [*(["--refit"] if refit else []), "--resume" if error.saved else "--overwrite"]
        command += ["--hosts", hosts] if hosts else []
        command += ["--host", str(host)] if host is not None else []
        command += ["--track", track] if track else []
        again = "resume with" if error.saved else "start again with"
        raise Interrupted(f"{error}\n{again}: {shell_command(command)}") from None
    if follows:
        say_lines([f"trained with host 0, which has the results of {config}"])
        return
    folder = trained.folder.parent if refit else trained.folder
    lines = [f"checkpoint: {trained.checkpoint}", f"next: {shell_command(['whichcar', 'evaluate', folder])}"]
    if not refit and not all(math.isnan(epoch.val_accuracy) for epoch in trained.history):
        again = shell_command(["whichcar", "train", config, *sets, "--refit"])
        lines.append(f"before use, to train again on the validation images too: {again}")
    say_lines(lines)
