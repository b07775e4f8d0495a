"""`whichcar predict`: classify images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whichcar.cli.interrupts import resumable
from whichcar.cli.options import FILE, DetectorCommand, crop_option, detector_option
from whichcar.cli.streams import say_lines
from whichcar.text import one_line

if TYPE_CHECKING:
    from whichcar.inference.predict import Form


@click.command(cls=DetectorCommand)
@click.argument("experiment", type=FILE)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header.")
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="Number of classes listed per image.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1), help="Images per forward pass.")
@crop_option
@detector_option
def predict(
    experiment: Path,
    paths: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    top: int,
    batch_size: int,
    crop: bool,
    detector: str | None,
    family: str | None,
) -> None:
    """Classify images: PATH is a file, a folder, an http(s) address, or - for a list of these on standard input.

    EXPERIMENT is an experiment's folder or a checkpoint file. An image that cannot be read, or a folder without images,
    becomes a row that says so; the exit status is 2 only if nothing could be classified. With --crop, rows have the box
    of the vehicle in pixels, the detection score and the number of vehicles, or say that there is none and the whole
    image was used. With --json and --csv, every row has the same names; what it does not have is null, or empty.

    \b
    Examples:
      whichcar predict experiments/exp_003 car.jpg
      whichcar predict experiments/exp_003 street.jpg --crop
      whichcar predict experiments/exp_003 https://example.org/car.jpg
      whichcar predict experiments/exp_003 images/ --csv --top 1 > answers.csv
      find . -name '*.jpg' | whichcar predict experiments/exp_003 - --json
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other; choose one")
    from whichcar.inference.classifier import Classifier
    from whichcar.inference.predict import lines, names_of, one_usable

    classifier = Classifier(experiment, crop, detector, family)
    top = min(top, len(classifier.class_names))
    names = names_of(paths, None if sys.stdin is None else sys.stdin.buffer)
    rows = one_usable(classifier.stream(names, top, batch_size))
    form: Form = "json" if as_json else "csv" if as_csv else "table"
    with resumable("interrupted; the rows printed so far are complete", "to classify all images"):
        say_lines(lines(rows, form, top, max(len(one_line(name)) for name in classifier.class_names), crop))
