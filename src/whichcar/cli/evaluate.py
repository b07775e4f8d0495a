"""`whichcar evaluate`: evaluate a trained network on test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from whichcar.cli.interrupts import resumable
from whichcar.cli.options import FOLDER, DetectorCommand, crop_option, detector_option, model_option, track_option
from whichcar.cli.render import columns
from whichcar.cli.streams import say_lines
from whichcar.text import one_line, plural

_CLASSES_SHOWN = 20


@click.command(cls=DetectorCommand)
@click.argument("experiment", required=False)
@model_option
@click.option(
    "--data", type=FOLDER, help="Folder of other images, one folder per class.  [default: the dataset's own test split]"
)
@crop_option
@detector_option
@track_option
@click.option(
    "--tta",
    type=click.Choice(["flip"]),
    help="Test-time augmentation: also report the accuracy of probabilities averaged with those of the mirrored image.",
)
@click.option(
    "--with",
    "others",
    multiple=True,
    metavar="EXPERIMENT|BUNDLE|NAME",
    help="Also report the accuracy of probabilities averaged with those of this model (repeatable).",
)
def evaluate(
    experiment: str | None,
    model: str | None,
    data: Path | None,
    crop: bool,
    detector: str | None,
    family: str | None,
    track: str | None,
    tta: Literal["flip"] | None,
    others: tuple[str, ...],
) -> None:
    """Evaluate EXPERIMENT on the test set and write result.json, predictions.csv, report.html and plots to its folder.

    Where it has been refitted (`train --refit`), the refit is evaluated, in EXPERIMENT/refit/.

    Results for other images are written to EXPERIMENT/evaluations/, one folder per dataset. How often the same images
    have been evaluated is counted in EXPERIMENT/test_uses.json. The files for a bundle, or for a model that comes with
    whichcar, are written to evaluations/ of the current folder. With --data alone, the model is the one that comes
    with whichcar.

    \b
    Examples:
      whichcar evaluate experiments/exp_003
      whichcar evaluate experiments/exp_003 --data other_images --crop
      whichcar evaluate experiments/exp_003 --tta flip --with experiments/exp_002
      whichcar evaluate --model cars196 --data other_images --crop
    """
    if experiment is not None and model is not None:
        raise click.UsageError("name EXPERIMENT, or another model with --model; not both")
    if experiment is None and model is None and data is None:
        raise click.UsageError("name EXPERIMENT, or --data DIR with images for the model that comes with whichcar")
    from whichcar.evaluation.evaluate import evaluate as evaluate_experiment
    from whichcar.evaluation.result_file import as_json
    from whichcar.inference.released import DEFAULT

    kept = "no result was written; earlier result.json and predictions.csv are unchanged"
    chosen = experiment if model is None else model
    with resumable(f"{chosen or DEFAULT}: interrupted; {kept}", "to evaluate all images"):
        result = evaluate_experiment(
            chosen, data, crop=crop, detector=detector, family=family, track=track, tta=tta, others=others
        )
    say_lines(render_result(as_json(result), result.folder))


def render_result(result: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yield the accuracy, the hardest classes and the most confused pairs.

    Args:
        result: the content of result.json.
        folder: where it lies, with the report and the plots.
    """
    from whichcar.evaluation.result_folder import is_bundle

    data, best, classes = result["data"], result["top_1"], result["classes"]
    size = "x".join(map(str, result["image_size"]))
    low, high = best["interval_95"]
    noun = "image" if data["split"] == "images" else f"{data['split']} image"
    present = [row for row in classes if row["images"]]
    counted = "model" if is_bundle(Path(result["checkpoint"]["file"])) else "experiment"
    all_of = "" if len(present) == len(classes) else f"{len(present)} of the model's "
    yield (
        f"{one_line(result['checkpoint']['file'])}: {plural(best['total'], noun)} of {all_of}"
        f"{plural(len(classes), 'class')}, "
        f"{size}; this {counted} has been evaluated on them {plural(data['evaluations'], 'time')}"
    )
    if data["unreadable"]:
        yield f"  {plural(data['unreadable'], 'image')} could not be read; they are listed in result.json"
    for warning in result["warnings"]:
        yield f"  warning: {one_line(warning)}"
    yield ""
    yield f"  accuracy   {best['value']:6.1%}   (95 % interval {low:.1%} to {high:.1%}; {best['correct']} correct)"
    if before := result["before_refit"]:
        yield f"  before the refit {before['value']:.1%} (trained without the validation images)"
    if len(classes) > 5:
        yield f"  top-5      {result['top_5']['value']:6.1%}"
    yield f"  by chance  {1 / len(classes):6.1%}"
    for row in result["averages"]:
        yield f"  averaged   {row['top_1']['value']:6.1%}   ({_average(row)})"
    yield ""
    yield from _levels(result)
    yield from _answers(result)
    yield from _classes(present)
    for pair in result["most_confused"][:3]:
        label, predicted = one_line(pair["label"]), one_line(pair["predicted"])
        yield f"  {label} predicted as {predicted}: {pair['count']} of {pair['total']}"
    yield ""
    yield from _weakest(result)
    yield f"report   {folder / 'report.html'}"
    if (folder / "plots").is_dir():
        yield f"plots    {folder / 'plots'}"
    yield f"numbers  {folder / 'result.json'}, {folder / 'predictions.csv'}"


def _average(row: Mapping[str, Any]) -> str:
    """Return what is averaged, and how that compares with the network alone."""
    from whichcar.metrics import LEVEL

    low, high = row["difference"]["interval_95"]
    shown = "" if row["p_value"] < LEVEL else "; no difference shown"
    points = f"{100 * row['difference']['value']:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    return f"with {', '.join(map(one_line, row['of']))}: {points}{shown}"


def _levels(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of the accuracy at class, model, make, body type and year, or that there is the class only."""
    if len(result["levels"]) < 2:
        yield "  the class is the only level: no make, model, body type or year is in several class names"
        yield ""
        return
    rows = [("level", "groups", "top-1", "95 % interval", "top-5", "macro F1", "calibration error")]
    for level in result["levels"]:
        before, after = level["calibration_error"]["before"], level["calibration_error"]["after"]
        error = f"{before:.3f}" if after is None else f"{before:.3f}, calibrated {after:.3f}"
        top_5 = f"{level['top_5']['value']:.1%}" if level["groups"] > 5 else "-"
        low, high = level["top_1"]["interval_95"]
        top_1 = (f"{level['top_1']['value']:.1%}", f"{low:.1%} to {high:.1%}")
        shares = (*top_1, top_5, f"{level['macro']['f1']['value']:.3f}")
        rows.append((level["name"], str(level["groups"]), *shares, error))
    yield from _indented(rows)


def _answers(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of what is answered at each level where an accuracy is wanted."""
    if not result["answers"]:
        return
    names = [level["name"] for level in result["answers"][0]["levels"]]
    rows = [("wanted", "accuracy", *names, "unknown")]
    for row in result["answers"]:
        accuracy = f"{row['accuracy']['value']:.1%}" if row["accuracy"]["total"] else "-"
        shares = [level["share"] for level in row["levels"]]
        rows.append((f"{row['wanted']:.0%}", accuracy, *(f"{share:.1%}" for share in (*shares, 1 - row["share"]))))
    yield "  share of images answered at each level (`predict --confidence`), and accuracy of the answers"
    yield from _indented(rows)
    for row in result["answers"]:
        if needed := row["validation_images_needed"]:
            yield f"  {row['wanted']:.0%}: needs {plural(needed, 'validation image')} or more"


def _weakest(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the three kinds of images with the lowest accuracy, of those significantly below the other images."""
    from whichcar.metrics import LEVEL

    weak = sorted((row for row in result["slices"] if row["p_value"] < LEVEL), key=lambda row: row["value"])
    for row in weak[:3]:
        kind = f"{row['property']} {one_line(row['kind'])}"
        yield f"  less accurate than other images: {kind}: {row['value']:.1%} ({row['correct']} of {row['total']})"
    if weak:
        yield ""


def _indented(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield from (f"  {line}" for line in columns(rows))
    yield ""


def _classes(classes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table of the classes, hardest first; of many classes only the hardest."""
    hardest = sorted(classes, key=lambda row: (row["recall"], row["f1"]))
    rows = [("class", "images", "correct", "recall", "precision")]
    for row in hardest[:_CLASSES_SHOWN]:
        shares = (f"{row['recall']:.0%}", f"{row['precision']:.0%}")
        rows.append((one_line(row["name"]), str(row["images"]), str(row["correct"]), *shares))
    yield from (f"  {line}" for line in columns(rows))
    if len(hardest) > _CLASSES_SHOWN:
        yield f"  ... {plural(len(hardest) - _CLASSES_SHOWN, 'easier class')} in the report"
    yield ""
