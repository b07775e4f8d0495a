"""The whole way in small: draw or take images, split, train from random weights, evaluate."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from whichcar import files
from whichcar.cli.evaluate import render_result
from whichcar.cli.options import FOLDER
from whichcar.cli.split import render_split
from whichcar.cli.streams import say
from whichcar.errors import DataError, Interrupted
from whichcar.text import plural, shell_command

Say = Callable[[str], None]

# About as many images as the drawn set shows in all its epochs; more images get fewer epochs.
_SHOWN = 13_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is drawn and learned."""

    classes: int
    per_class: int
    size: int
    epochs: int
    batch_size: int


FULL = Plan(classes=12, per_class=40, size=64, epochs=32, batch_size=16)
QUICK = Plan(classes=3, per_class=8, size=32, epochs=1, batch_size=4)

_CONFIG = """\
# Question: does the whole way work here, and does the network learn anything from random weights?
# Command:  whichcar demo
# Expected: far above chance on drawn cars. Images of real cars need `weights: imagenet` and a larger size.

seed: 123

data:
  directory: {directory}
  validation_split: {validation}
  image_size: [{size}, {size}]
  batch_size: {batch_size}

model:
  weights: null
  input_shape: [{size}, {size}, 3]
  data_aug_layer:
    random_flip:
      mode: horizontal

compile:
  optimizer:
    adamw:
      learning_rate: 0.001
      weight_decay: 0.02

fit:
  epochs: {epochs}
  callbacks:
    model_checkpoint:
      save_best_only: true
      keep: 1

recipe:
  schedule: cosine
  warmup_share: 0.1
  label_smoothing: 0.1
  batch_norm_momentum: 0.9
  random_resized_crop:
    side: [0.8, 1.0]
"""


def run(into: Path, real: Path | None = None, quick: bool = False, say: Say = print) -> Mapping[str, Any]:
    """Do what is missing of the whole way and tell about it.

    Args:
        into: folder for everything.
        real: images to use instead of drawn ones: one folder a class, or `car_ims/` and `car_dataset_labels.csv`.
        quick: few images and one epoch.
        say: takes each line of the story.

    Returns:
        The content of result.json.
    """
    started = time.monotonic()
    plan = QUICK if quick else FULL
    experiment = into / "experiments" / "demo"
    trained_on = _images(into, real, plan, say)
    _write_config(experiment / files.CONFIG, into / "data", plan, trained_on)
    _train(experiment, say)
    result, folder = _evaluate(experiment, say)
    for line in ("", *render_result(result, folder), *_next(into, experiment)):
        say(line)
    say(f"\ndone in {time.monotonic() - started:.0f} s")
    return result


def _images(into: Path, real: Path | None, plan: Plan, say: Say) -> int:
    """Get the images and split them; returns how many there are to learn from."""
    from whichcar.data.labels import labels_from_folders
    from whichcar.data.split.split import split
    from whichcar.synthetic.draw import draw

    raw = real or into / "raw"
    if real is None:
        say(f"1/4  drawing {plan.classes} kinds of cars and trucks, {plural(plan.per_class, 'image')} each, into {raw}")
        draw(raw, plan.classes, plan.per_class)
    elif not real.is_dir():
        raise DataError(f"{real}: no such folder; name one with images: one folder a class, or car_ims/ and its labels")
    else:
        say(f"1/4  taking the images in {raw}")
    labels = raw / "car_dataset_labels.csv"
    say(f"2/4  splitting them into {into / 'data'}")
    rows = labels if labels.exists() else labels_from_folders(raw, test_share=0.25, seed=123)
    done = split(raw, rows, into / "data", _validation(quick=plan is QUICK), seed=123)
    for line in render_split(done):
        say(f"     {line}")
    return done.counts["train"] - done.counts["validation"]


def _validation(quick: bool) -> float:
    return 0.34 if quick else 0.15


def _write_config(path: Path, directory: Path, plan: Plan, pictures: int) -> None:
    """Write the settings, unless they are there: then they may have been changed by hand."""
    if path.exists():
        return
    epochs = max(2, min(plan.epochs, round(_SHOWN / pictures))) if plan is FULL else plan.epochs
    text = _CONFIG.format(
        directory=_quoted(directory),
        validation=_validation(quick=plan is QUICK),
        size=plan.size,
        batch_size=plan.batch_size,
        epochs=epochs,
    )
    files.write_text(path, text)


def _quoted(path: Path) -> str:
    """Return the path as YAML reads it back, whatever signs it holds."""
    return "'" + str(path).replace("'", "''") + "'"


def _train(experiment: Path, say: Say) -> None:
    from whichcar.training.train import train

    say(f"3/4  training ResNet-50 from random weights as {experiment / 'config.yml'} says")
    trained = train(experiment / files.CONFIG, resume=True)
    say(f"     {plural(len(trained.history), 'epoch')}; the best by validation is {trained.checkpoint}")


def _evaluate(experiment: Path, say: Say) -> tuple[Mapping[str, Any], Path]:
    """Return the content of result.json and the folder it lies in."""
    from whichcar.evaluation.evaluate import evaluate
    from whichcar.evaluation.result import read_result
    from whichcar.training.run.checkpoint import find_checkpoint

    say("4/4  measuring it on images it has never seen")
    best, known = find_checkpoint(experiment), experiment / files.RESULT
    if known.exists():
        result = read_result(experiment)
        if result["checkpoint"] == {"file": best.name, "blake2b": files.checksum(best)}:
            say("     measured before")
            return result, known.parent
    evaluated = evaluate(experiment)
    return evaluated.as_json(), evaluated.folder


def _next(into: Path, experiment: Path) -> list[str]:
    """Say what to type next, with the command as it can be called from here."""
    command = "whichcar" if shutil.which("whichcar") else os.path.relpath(Path(sys.executable).with_name("whichcar"))
    some = next(iter(files.images(into / "data" / "test")), into)
    return [
        "",
        "what to type next",
        f"  {shell_command([command, 'predict', experiment, some])}",
        f"  {shell_command([command, 'config', experiment / 'config.yml'])}",
        f"  {shell_command([command])} demo --real YOUR_PICTURES --into demo_real",
        f"  {shell_command([command])} --help",
    ]


@click.command()
@click.option("--into", type=FOLDER, default="demo", show_default=True, help="Folder for everything the demo writes.")
@click.option(
    "--real",
    type=FOLDER,
    help="Your own images: one folder per class, or car_ims/ and car_dataset_labels.csv.",
)
@click.option("--quick", is_flag=True, help="Use fewer images and epochs, which shows every stage but learns little.")
def demo(into: Path, real: Path | None, quick: bool) -> None:
    """Run all stages on a small dataset: draw cars, split, train from random weights, evaluate.

    A second run does only what is missing.

    \b
    Examples:
      whichcar demo
      whichcar demo --real my_images --into demo_real
    """
    logging.getLogger("whichcar").setLevel(logging.INFO)
    try:
        run(into, real=real, quick=quick, say=say)
    except Interrupted as error:
        raise Interrupted(f"{error}\nrun the same command again to resume") from None
