"""The demo: every stage on a small dataset, trained on whole images and on crops, with the accuracy of both."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from whichcar import files
from whichcar.cli.crop import CropSummary
from whichcar.cli.interrupts import resumable
from whichcar.cli.options import FOLDER
from whichcar.cli.render import columns
from whichcar.cli.split import render_split
from whichcar.cli.streams import say
from whichcar.data.split_record import RECORD
from whichcar.errors import DataError, Interrupted
from whichcar.text import as_text, one_line, plural, shell_command
from whichcar.version import VERSION

Say = Callable[[str], None]

WHOLE, CROPS = "whole", "crops"
_DATA = {WHOLE: "car_ims_v1", CROPS: "car_ims_v2"}
_RECORD = "demo.json"  # tells the folder of a demo from another
_IMAGES_TRAINED = 8_000  # in all epochs of one training; a larger dataset gets fewer epochs


@dataclass(frozen=True, slots=True)
class Plan:
    """How many images are drawn and how long the networks train."""

    classes: int
    per_class: int
    size: int
    epochs: int
    batch_size: int
    validation: float


FULL = Plan(classes=8, per_class=48, size=64, epochs=32, batch_size=16, validation=0.15)
QUICK = Plan(classes=2, per_class=4, size=32, epochs=1, batch_size=4, validation=0.34)

_CONFIG = """\
# Question: how accurate is a small network trained from random weights on {name} images?
# Command:  whichcar demo
# Expected: far above chance on drawn cars. Photos need pretrained weights and a larger size: see `whichcar new`.

seed: 123

data:
  directory: {directory}
  validation_split: {plan.validation}
  image_size: [{plan.size}, {plan.size}]
  batch_size: {plan.batch_size}

model:
  backbone: mobilenet_v3_small  # learns more in these minutes than the default, a ResNet-50
  weights: null
  input_shape: [{plan.size}, {plan.size}, 3]
  data_aug_layer:
    random_flip:
      mode: horizontal

compile:
  optimizer:
    adamw:
      learning_rate: 0.002
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """One experiment of the demo: its folder, the seconds of its training and the content of its result.json."""

    folder: Path
    seconds: float
    result: Mapping[str, Any]


def run(into: Path, real: Path | None = None, quick: bool = False, say: Say = print) -> dict[str, Outcome]:
    """Run the stages that are not done yet.

    Args:
        into: folder for everything: new, empty, or of an earlier run.
        real: images to use instead of drawn ones: one folder per class, or `car_ims/` and `car_dataset_labels.csv`.
        quick: few images and one epoch.
        say: takes each line of the output.

    Returns:
        The outcome on whole images and on crops.

    Raises:
        DataError: no folder `real`, or `into` has files that no demo wrote, or a demo of other images, or lies among
            the classes of `real`, or has a name that is not UTF-8.
    """
    from whichcar.data.fetch.formats import LABELS

    started = time.monotonic()
    plan = QUICK if quick else FULL
    if real is not None:
        if not real.is_dir():
            raise DataError(
                f"{real}: no such folder; name one with one folder of images per class, or car_ims/ and its labels"
            )
        if not (real / LABELS).exists() and into.resolve().is_relative_to(real.resolve()):
            raise DataError(f"{into}: lies in {real}, whose folders are the classes; name one outside with --into")
    if as_text(into) != into.as_posix():
        raise DataError(
            f"{one_line(into)}: is not text in UTF-8, so that no settings file can name it; give another with --into"
        )
    _claim(into, images=as_text(real.resolve()) if real else None, quick=quick)
    raw = _get_images(into, real, plan, say)
    count = _split(raw, into / _DATA[WHOLE], plan, say)
    _claim(into, split=files.read_json(into / _DATA[WHOLE] / RECORD)["fingerprint"])
    _crop(into / _DATA[WHOLE], into / _DATA[CROPS], say)
    experiments = {name: into / "experiments" / name for name in _DATA}
    seconds = {}
    say(f"4/5  training a MobileNetV3 from random weights twice, each on {plural(count, 'image')}")
    for name, experiment in experiments.items():
        write_config(experiment / files.CONFIG, name, into / _DATA[name], plan, count)
        seconds[name] = _train(experiment, say)
    say("5/5  evaluating both on the test images, which neither was trained on")
    outcomes = {name: Outcome(path, seconds[name], _evaluate(path, say)) for name, path in experiments.items()}
    for line in ("", *columns(table(outcomes)), "", *_next_steps(into, outcomes)):
        say(line)
    say(f"\ndone in {time.monotonic() - started:.0f} s")
    return outcomes


def _claim(into: Path, **facts: str | bool | None) -> None:
    """Record what the demo in this folder is about.

    Raises:
        DataError: the folder has files of others, or the trainings of a demo with other images or options, which
            would be taken for this one's.
    """
    record = into / _RECORD
    others = [path.name for path in sorted(into.glob("*")) if files.is_visible(path.name) and path != record]
    if others and not record.is_file():
        raise DataError(
            f"{into}: contains files that `whichcar demo` did not write, such as {one_line(others[0])}; "
            "give a new or empty folder with --into"
        )
    # Alone, the record is of a demo that was refused its images.
    before = files.read_json(record, fix=f"delete {into}, or give another folder with --into") if others else {}
    if any(before.get(name, value) != value for name, value in facts.items()):
        raise DataError(
            f"{into}: holds a demo of other images or another --quick; delete it, or name another with --into"
        )
    files.write_json(record, {"whichcar": VERSION} | before | facts)


def _get_images(into: Path, real: Path | None, plan: Plan, say: Say) -> Path:
    """Return the folder with the images, drawn where none is given."""
    from whichcar.synthetic.draw import draw

    if real is None:
        raw = into / "raw"
        say(
            f"1/5  drawing {plan.classes} models of cars and trucks, {plural(plan.per_class, 'image')} each, into {raw}"
        )
        draw(raw, plan.classes, plan.per_class)
        return raw
    say(f"1/5  using the images in {real}")
    return real


def _split(raw: Path, output: Path, plan: Plan, say: Say) -> int:
    """Split the images and return how many there are to train on."""
    from whichcar.data.split.split import split

    say(f"2/5  splitting them into {output}")
    done = split(raw, None, output, plan.validation, seed=123)
    for line in render_split(done):
        say(f"     {line}")
    return done.counts["train"] - done.counts["validation"]


def _crop(source: Path, output: Path, say: Say) -> None:
    from whichcar.detection.crop import count_images, crop
    from whichcar.progress import track

    say(f"3/5  cropping them to the vehicle, into {output}")
    summary = CropSummary(output)
    for row in track(crop(source, output), "cropping", count_images(source)):
        summary.add(row)
    for line in summary.lines():
        say(f"     {line}")


def write_config(path: Path, name: str, directory: Path, plan: Plan, images: int) -> None:
    """Write an experiment's settings; a file that exists is kept, since it may have been edited."""
    import yaml

    if path.exists():
        return
    epochs = max(2, min(plan.epochs, round(_IMAGES_TRAINED / images))) if plan is FULL else plan.epochs
    quoted = yaml.safe_dump(str(directory), default_style="'", allow_unicode=True, width=10**9).rstrip("\n")
    described = {WHOLE: "whole", CROPS: "cropped"}[name]
    files.write_text(path, _CONFIG.format(name=described, directory=quoted, plan=plan, epochs=epochs))


def _train(experiment: Path, say: Say) -> float:
    """Train, or resume, and return the seconds that all epochs took."""
    from whichcar.training.train import train

    trained = train(experiment / files.CONFIG, resume=True)
    if trained.asked_to_stop:
        raise Interrupted(f"{experiment}: trained; stopped before the next stage")
    say(f"     {plural(len(trained.history), 'epoch')}; best by validation: {trained.checkpoint}")
    return trained.history[-1].seconds


def _evaluate(experiment: Path, say: Say) -> Mapping[str, Any]:
    """Return the content of result.json, which is kept where it is of the same checkpoint."""
    from whichcar.evaluation.evaluate import evaluate
    from whichcar.evaluation.result_file import as_json, read_result
    from whichcar.training.run.checkpoint import find_checkpoint

    best = find_checkpoint(experiment)
    if (experiment / files.RESULT).exists():
        result = read_result(experiment)
        if result["checkpoint"] == {"file": best.name, "blake2b": files.checksum(best)}:
            say(f"     {experiment}: already evaluated")
            return result
    return as_json(evaluate(experiment))


def table(outcomes: Mapping[str, Outcome]) -> list[tuple[str, ...]]:
    """Return the rows of the accuracy table; top-5 is left out where there are no more than five classes."""
    classes = len(next(iter(outcomes.values())).result["classes"])
    rows: list[tuple[str, ...]] = [("images", "top-1", "95 % interval", "top-5", "training")]
    for name, outcome in outcomes.items():
        low, high = outcome.result["top_1"]["interval_95"]
        rows.append((
            name,
            f"{outcome.result['top_1']['value']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{outcome.result['top_5']['value']:.1%}",
            f"{outcome.seconds:.0f} s",
        ))  # fmt: skip
    rows.append(("(chance)", f"{1 / classes:.1%}", "", f"{5 / classes:.1%}", ""))
    return rows if classes > 5 else [(*row[:3], row[4]) for row in rows]


def _next_steps(into: Path, outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    """Yield what to do next, with the command as it can be called from here."""
    command = "whichcar" if shutil.which("whichcar") else os.path.relpath(Path(sys.executable).with_name("whichcar"))
    photo = next(iter(files.images(into / _DATA[WHOLE] / "test")), Path("PHOTO.jpg"))
    crops = outcomes[CROPS].folder
    yield "next"
    yield f"  open {shell_command([crops / 'report.html'])} in a browser"
    yield f"  {shell_command([command, 'predict', crops, photo])} --crop"
    yield f"  {shell_command([command])} demo --real YOUR_IMAGES --into demo_real"
    yield f"  {shell_command([command])} --help"


@click.command()
@click.option("--into", type=FOLDER, default="demo", show_default=True, help="Folder for everything the demo writes.")
@click.option(
    "--real",
    type=FOLDER,
    help="Your own images: one folder per class, or car_ims/ and car_dataset_labels.csv. The network is small and "
    "starts from random weights; for accuracy, use whichcar train.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Draw fewer images and train for one epoch, which shows every stage but learns little.",
)
def demo(into: Path, real: Path | None, quick: bool) -> None:
    """Run all stages on a small dataset: draw cars, split, crop, train on whole images and on crops, evaluate both.

    A second run does only what is missing.

    \b
    Examples:
      whichcar demo
      whichcar demo --real my_images --into demo_real
    """
    logging.getLogger("whichcar").setLevel(logging.INFO)
    with resumable(f"{into}: interrupted"):
        run(into, real=real, quick=quick, say=say)
