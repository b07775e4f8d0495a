"""`whichcar explore`: what a dataset holds, on one page."""

from __future__ import annotations

from pathlib import Path

import click

from whichcar.cli.interrupts import resumable
from whichcar.cli.options import FILE, FOLDER
from whichcar.cli.streams import say


@click.command()
@click.argument("data", type=FOLDER)
@click.argument("labels", type=FILE, required=False)
@click.option("--output", type=FILE, help="Page to write.  [default: explore.html in DATA]")
@click.option("--seed", default=0, show_default=True, help="Random seed for the sampled images.")
def explore(data: Path, labels: Path | None, output: Path | None, seed: int) -> None:
    """Show what DATA holds on one page: classes, makes, years, sizes, brightness, samples, copies, unreadable files.

    DATA has a label file (LABELS, or car_dataset_labels.csv in it), is split or cropped, holds one folder per class, or
    images only. The page needs no other file and no network. A second run scans new images only. `whichcar look` does
    the same.

    \b
    Examples:
      whichcar explore data/car_ims_v1
      whichcar explore data data/car_dataset_labels.csv --output cars.html
    """
    from whichcar.data.explore.explore import explore as explore_images

    with resumable(f"{data}: interrupted; scanned images are remembered"):
        say(f"page   {explore_images(data, labels, output, seed)}")
