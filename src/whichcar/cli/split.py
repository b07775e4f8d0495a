"""`whichcar split`: divide images into train, validation and test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whichcar.cli.options import FILE, FOLDER
from whichcar.cli.render import SHOWN
from whichcar.cli.streams import say_lines
from whichcar.text import listed, one_line, plural, shell_command

if TYPE_CHECKING:
    from whichcar.data.split.split import Split


@click.command()
@click.argument("data", type=FOLDER)
@click.argument("labels", type=FILE, required=False)
@click.argument("output", type=FILE, metavar="OUTPUT", required=False)
@click.option(
    "--test-share",
    type=float,
    help="Share of the images for test, by class, where neither LABELS nor folders say what is in test; 0 for no test "
    "split.  [default: 0.25]",
)
@click.option(
    "--validation",
    default=0.2,
    show_default=True,
    help="Share of the training images held out for validation, by class; 0 for none.",
)
@click.option(
    "--group-by",
    metavar="PATTERN",
    help="Keep images of one group on one side of the split. PATTERN is a regular expression searched in each image's "
    "path inside DATA; its first group, or the whole match, names the group.",
)
@click.option("--seed", default=123, show_default=True, help="Random seed for the drawn splits.")
@click.option(
    "--keep-copies",
    is_flag=True,
    help="Keep training images that duplicate a test or validation image, or are in its group.",
)
def split(
    data: Path,
    labels: Path | None,
    output: Path | None,
    test_share: float | None,
    validation: float,
    group_by: str | None,
    seed: int,
    keep_copies: bool,
) -> None:
    """Divide images into OUTPUT/{train,test}/CLASS/.

    DATA holds one folder per class, which may be divided into train/, validation/ and test/ already, or the images of
    a label file: LABELS, or car_dataset_labels.csv in DATA. A label file has the columns img_name,class and
    optionally subset and group; without a subset, test is drawn.

    Images are hard-linked, or copied to another disk. A second run does only what is missing. Copies of one image, also
    near copies, and images of one group end on one side of train, validation and test. OUTPUT/split.json lists the
    counts, the validation images, and every row that could not be used.

    \b
    Examples:
      whichcar split photos data/cars --test-share 0.2
      whichcar split raw raw/car_dataset_labels.csv data/car_ims_v1
      whichcar split photos data/cars --group-by '^(.+)_[^/]*$'  # car12_a.jpg and car12_b.jpg are one group
    """
    from whichcar.data.split.split import split as split_images

    if labels is None and output is None:
        raise click.UsageError(f"no output folder; give one: {shell_command(['whichcar', 'split', data])} OUTPUT")
    done = split_images(data, labels, output, validation, seed, keep_copies, test_share, group_by)
    say_lines(render_split(done))


def render_split(split: Split) -> Iterator[str]:
    """Yield how many images are in each split and which rows could not be used."""
    counts = split.counts
    yield f"{split.output}: {plural(len(split.classes), 'class')}"
    held_out = f"{counts['validation']:,} of them for validation"
    yield f"  train {plural(counts['train'], 'image')}, {held_out}; test {plural(counts['test'], 'image')}"
    if split.test_share == 0:
        yield "  no test split was drawn (--test-share 0)"
    elif split.test_share is not None:
        yield f"  test was drawn: a share of {split.test_share:g} of the images (--test-share), by class"
    if split.groups:
        yield f"  {plural(split.groups, 'group')}, each on one side of the split"
    if split.unlabelled:
        yield f"  {plural(split.unlabelled, 'image')} without a label, left out"
    if split.unused_classes:
        count = plural(len(split.unused_classes), "class")
        yield f"  warning: {count} without a usable image, left out: {listed(split.unused_classes, SHOWN)}"
    if split.conflicts:
        command = shell_command(["whichcar", "check", split.output])
        yield f"  warning: {split.conflicts:,} images have a copy in another class; list them with: {command}"
    if split.problems:
        yield f"  {plural(len(split.problems), 'image' if split.by_folder else 'row')} could not be used:"
        for problem in split.problems[:SHOWN]:
            name = "(no name)" if problem.path == Path() else one_line(problem.path)
            yield f"    {name}: {problem.reason}"
        if len(split.problems) > SHOWN:
            yield f"    ... all of them in {split.output / 'split.json'}"
