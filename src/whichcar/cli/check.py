"""`whichcar check`: find what is wrong with images and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from whichcar.cli.interrupts import resumable
from whichcar.cli.options import FILE, FOLDER, names
from whichcar.cli.streams import say, say_lines
from whichcar.progress import say_error
from whichcar.records import TINY
from whichcar.text import plural, shell_command

if TYPE_CHECKING:
    from whichcar.data.check.check import Checked
    from whichcar.records import Finding

FAILED = 1  # exit status of --fail-on


@click.command()
@click.argument("data", required=False)
@click.argument("labels", type=FILE, required=False)
@click.option("--output", type=FOLDER, help="Folder for issues.csv and check.html.  [default: DATA]")
@click.option(
    "--smallest",
    default=TINY,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Flag images whose shorter side is below N pixels as tiny.",
)
@click.option("--fail-on", metavar="LIST", help="Exit with status 1 if any of these issues is found.")
@click.option("--quarantine", type=FOLDER, metavar="DIR", help="Move images with issues to DIR; nothing is deleted.")
@click.option("--move", metavar="LIST", help="Issues whose images --quarantine moves.  [default: error]")
@click.option("--undo", type=FOLDER, metavar="DIR", help="Move images back that --quarantine moved to DIR.")
@click.option(
    "--labels-with", type=FOLDER, metavar="EXPERIMENT", help="Find label errors with the network of EXPERIMENT."
)
@click.option(
    "--folds",
    type=int,
    help="Number of cross-validation folds for --labels-with, so every image gets an out-of-fold prediction.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Scan new images on this Ray cluster: auto, or HOST:PORT of its head. DATA and --output must be on a disk "
    "that all its machines share.",
)
def check(
    data: str | None,
    labels: Path | None,
    output: Path | None,
    smallest: int,
    fail_on: str | None,
    quarantine: Path | None,
    move: str | None,
    undo: Path | None,
    labels_with: Path | None,
    folds: int | None,
    ray: str | None,
) -> int:
    """Find what is wrong with images and labels, and write DATA/issues.csv and DATA/check.html.

    DATA holds the images of a label file, train/ and test/, or one folder per class. Issues are unreadable files,
    copies (also between train and test, or with different labels), rows without an image, odd images, misspelt class
    names, and more. Images are scanned once; a second run scans new and changed images only. A LIST has names of
    issues, severities (error, warning, note), or any, separated by commas.

    \b
    Examples:
      whichcar check data
      whichcar check data/car_ims_v1 --fail-on leak,unreadable
      whichcar check images labels.csv --quarantine aside --move unreadable,exact_duplicate
      whichcar check --undo aside
      whichcar check data/car_ims_v2 --labels-with experiments/exp_003
      whichcar check --ray auto /shared/images
    """
    if undo is not None:
        _put_back(undo)
        return 0
    if data is None:
        raise click.UsageError("name the folder to check: whichcar check DATA")
    if folds is not None and labels_with is None:
        raise click.UsageError("--folds needs --labels-with EXPERIMENT")
    if move is not None and quarantine is None:
        raise click.UsageError("--move needs --quarantine DIR")
    moved, folder = names("error" if move is None else move), Path(data)
    from whichcar.data.check.check import check as check_images
    from whichcar.data.check.issues import matching
    from whichcar.data.check.page import check_output, write_report

    matching([], names(fail_on or ""), "--fail-on")  # errors in options show before the work
    matching([], moved, "--move")
    if quarantine is not None:
        from whichcar.data.check.quarantine import check_place

        check_place(folder, quarantine)
    if output is not None or folder.is_dir():
        check_output(output or folder)
    if labels_with is not None and folder.is_dir():
        from whichcar.evaluation.label_errors import check_experiment

        check_experiment(folder, labels_with, folds)
    with resumable(f"{data}: interrupted; scanned images are remembered"):
        if ray is None:
            checked = check_images(folder, labels, smallest)
        else:
            from whichcar.scale.check import check_on_cluster

            checked = check_on_cluster(ray, data, labels, smallest, output)
        if labels_with is not None:
            from whichcar.evaluation.label_errors import find_label_errors

            checked = checked.with_findings(find_label_errors(folder, labels_with, folds))
    say_lines(render_checked(checked, write_report(checked, output or folder)))
    if quarantine is not None:
        _move(folder, matching(checked.findings, moved, "--move"), quarantine)
    failing = matching(checked.findings, names(fail_on or ""), "--fail-on")
    if failing:
        say_error(f"issues of --fail-on: {render_counts(failing)}")
    return FAILED if failing else 0


def _move(folder: Path, findings: Iterable[Finding], quarantine: Path) -> None:
    """Move the images of these findings to another folder, and say how to undo it, also after Ctrl-C."""
    from whichcar.data.check.quarantine import quarantine as move_to

    back = shell_command(["whichcar", "check", "--undo", quarantine])
    with resumable(f"{quarantine}: interrupted; undo with: {back}", "to move the rest"):
        count = move_to(folder, findings, quarantine)
    say(f"moved  {plural(count, 'image')} to {quarantine}; undo with: {back}")


def _put_back(undo: Path) -> None:
    """Move all images of a quarantine back; no other option makes sense with it."""
    if others := _given_with("undo"):
        raise click.UsageError(f"--undo: only moves images back; leave {' and '.join(others)} out")
    from whichcar.data.check.quarantine import put_back

    with resumable(f"{undo}: interrupted", "to move the rest back"):
        say(f"{undo}: moved back {plural(put_back(undo), 'image')}")


def _given_with(option: str) -> list[str]:
    """Return the other arguments and options on the command line, as a user writes them."""
    context = click.get_current_context()
    return [
        one.human_readable_name if isinstance(one, click.Argument) else one.opts[0]
        for one in context.command.params
        if one.name != option and context.get_parameter_source(str(one.name)) is not ParameterSource.DEFAULT
    ]


def render_checked(checked: Checked, pages: Iterable[Path]) -> Iterator[str]:
    """Yield how often each issue was found, and where all of them are listed."""
    from whichcar.data.check.issues import ISSUES

    collection = checked.collection
    count = len({entry.class_name for entry in collection.entries if entry.class_name})
    classes = f" of {plural(count, 'class')}" if count else ""
    yield f"{collection.root}: {plural(len(collection.entries), 'image')}{classes} ({collection.kind})"
    if not checked.findings:
        yield "  no issues"
    for (name, severity), total in checked.counts.items():
        yield f"  {total:6d}  {severity:8s} {name:17s} {ISSUES[name].meaning}"
    for path in pages:
        yield f"{'table' if path.suffix == '.csv' else 'page':6s} {path}"


def render_counts(findings: Iterable[Finding]) -> str:
    """Return a count of each issue, such as `leak 3, unreadable 1`."""
    counts = Counter(finding.issue for finding in findings)
    return ", ".join(f"{name} {count}" for name, count in counts.items())
