"""`whichcar compare`: experiments and searches side by side."""

from __future__ import annotations

from pathlib import Path

import click

from whichcar.cli.options import FILE, FOLDER
from whichcar.cli.streams import say


@click.command()
@click.argument("experiments", nargs=-1, type=FILE)  # files, as in experiments/*, are skipped
@click.option(
    "--against",
    type=FOLDER,
    metavar="EXPERIMENT",
    help="Experiment to test every other one against, on the same images.",
)
@click.option(
    "--write",
    type=FILE,
    metavar="FILE",
    help="Markdown file whose table is replaced, between the lines <!-- results --> and <!-- /results -->.",
)
@click.option(
    "--block", default="", metavar="NAME", help="Name of the table in a file with several: <!-- results NAME -->."
)
def compare(experiments: tuple[Path, ...], against: Path | None, write: Path | None, block: str) -> None:
    """Print one row per experiment or search, as a Markdown table (default: all under experiments/).

    The table shows the settings that differ. With --against, it also shows the difference of each accuracy to that of
    EXPERIMENT in points, with its confidence interval and McNemar's test.

    \b
    Examples:
      whichcar compare
      whichcar compare experiments/exp_002 experiments/exp_003
      whichcar compare experiments/* --against experiments/exp_003
      whichcar compare --write results.md
      whichcar compare --write results.md --block crops experiments/crops/*_?
      whichcar compare experiments/sweeps/show/grid experiments/sweeps/show/pruned_1
    """
    if block and not write:
        raise click.UsageError("--block needs --write FILE, which has the markers")
    from whichcar.evaluation.compare.experiments import compare as comparison
    from whichcar.evaluation.compare.experiments import write_table

    folders = experiments or sorted(Path("experiments").glob("*"))
    say(write_table(write, folders, block, against) if write else comparison(folders, against))
