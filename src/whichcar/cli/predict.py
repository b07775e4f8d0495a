"""`whichcar predict`: classify images."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whichcar.cli.interrupts import resumable
from whichcar.cli.options import FOLDER, DetectorCommand, detector_option, model_option, ray_option
from whichcar.cli.streams import say, say_lines
from whichcar.text import one_line, plural

if TYPE_CHECKING:
    from whichcar.images.inputs import Given
    from whichcar.inference.input_crop import Vehicles
    from whichcar.inference.output_file import OutputFile
    from whichcar.inference.predict import Form
    from whichcar.records import Prediction, Skipped

    Images = Iterable[Given | Skipped]


@click.command(cls=DetectorCommand)
@click.argument("paths", nargs=-1, required=True, metavar="[EXPERIMENT] PATH...")
@model_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header.")
@click.option(
    "--output",
    metavar="FILE.csv|FILE.jsonl",
    help="Write to this file as CSV or JSON Lines; with --ray, Parquet files to this folder or s3:// address. A run "
    "that was interrupted, or killed, is resumed.",
)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="Number of classes listed per image.")
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="ACCURACY",
    help="Answer with the class, model, make or `unknown`: the most specific answer with this accuracy. Thresholds "
    "exist for 0.8, 0.9, 0.95 and 0.99; other values use the next higher one. The model must be calibrated: "
    "`evaluate` does that on validation images.",
)
@click.option(
    "--vehicles",
    type=click.Choice(["all", "largest"]),
    help="Classify each vehicle in an image, or the largest; an image without one is a row that says so. Vehicles of "
    "less than 32 pixels are left out.",
)
@click.option(
    "--annotate", type=FOLDER, metavar="DIR", help="With --vehicles, write images with the boxes and answers."
)
@click.option(
    "--save-crops", type=FOLDER, metavar="DIR", help="With --vehicles, write a cropped image of each vehicle."
)
@click.option(
    "--explain",
    type=FOLDER,
    metavar="DIR",
    help="Write heat maps of what supports the predicted class, alone and against the second most probable one.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Images per forward pass.  [default: what is fastest]")
@click.option(
    "--crop/--no-crop",
    default=None,
    help="Crop each image to its vehicle first, or take it as it is.  [default: crop if the model was trained on "
    "cropped images, unless `whichcar crop` wrote the image]",
)
@detector_option
@ray_option
def predict(
    paths: tuple[str, ...],
    model: str | None,
    as_json: bool,
    as_csv: bool,
    output: str | None,
    top: int,
    confidence: float | None,
    vehicles: Vehicles | None,
    annotate: Path | None,
    save_crops: Path | None,
    explain: Path | None,
    batch_size: int | None,
    crop: bool | None,
    detector: str | None,
    family: str | None,
    ray: str | None,
) -> None:
    """Classify images: PATH is a file, a folder, a quoted pattern, an http(s) address, or - for a list of these.

    The list is read from standard input, one a line. The model is that of --model; without it, EXPERIMENT, which is an
    experiment's folder, a checkpoint file or a bundle; without both, the model that comes with whichcar.

    An image that cannot be read, or a folder without images, becomes a row that says so; the exit status is 2 only if
    nothing could be read. Where images are cropped, rows have the box of the vehicle in pixels, the detection score
    and the number of vehicles, or say that there is none and the whole image was used. With --vehicles, each vehicle
    is a row, the largest first, and an image without one is a row that says so. With --json, --csv and --output,
    every row has the same names; what it does not have is null, or empty.

    \b
    Examples:
      whichcar predict street.jpg
      whichcar predict images/ 'more/**/*.png' --output answers.csv
      whichcar predict experiments/exp_003 https://example.org/car.jpg --confidence 0.95
      whichcar predict streets/ --vehicles all --annotate answers/
      find . -name '*.jpg' | whichcar predict - --json --model mine.whichcar
      whichcar predict --ray auto s3://bucket/images --output s3://bucket/answers
    """
    folders = {"annotate": annotate, "save-crops": save_crops, "explain": explain}
    _refuse_contradictions({"json": as_json, "csv": as_csv, "output": output}, folders, vehicles, ray, batch_size)
    if model is None:
        model, paths = _leading_model(paths)
    if ray is not None:
        settings = {"top": top, "crop": crop, "detector": detector, "family": family}
        _on_cluster(ray, model, paths, output, **settings, confidence=confidence, vehicles=vehicles)
        return
    from whichcar.images.inputs import each
    from whichcar.inference.classifier import Classifier
    from whichcar.inference.image_folders import ImageFolders
    from whichcar.inference.output_file import OutputFile
    from whichcar.inference.predict import columns, lines, names_of, one_usable

    classifier = Classifier(model, True if vehicles and crop is None else crop, detector, family)
    top = min(top, len(classifier.class_names))
    crops = classifier.input_crop.crops
    margin = classifier.input_crop.margin if crops and any(folders.values()) else 0.0
    explained = None
    if explain is not None:
        from whichcar.inference.explain import figures

        explained = explain, figures(classifier, confidence is not None)
    writer = ImageFolders(annotate, save_crops, explained, paths, vehicles or "largest", margin)
    images = each(names_of(paths, None if sys.stdin is None else sys.stdin.buffer))
    names = columns(top, crops, confidence is not None, vehicles is not None)

    def classify(images: Images) -> Iterator[Prediction | Skipped]:
        return writer.written(lambda given: classifier.stream(given, top, batch_size, confidence, vehicles), images)

    if output is not None:
        used = {"name": classifier.checkpoint.name, "blake2b": classifier.checksum}
        options = {"top": top, "confidence": confidence, **folders, "vehicles": vehicles}
        origin = {"model": used, "crop": classifier.input_crop.origin(vehicles), **options}
        file = OutputFile(Path(output), names, origin, "many" if vehicles == "all" else "one")
        _write(file, names, images, paths, vehicles, classify)
        return
    rows = one_usable(classify(images))
    form: Form = "json" if as_json else "csv" if as_csv else "table"
    width = max(len(one_line(name)) for name in classifier.class_names)
    with resumable("interrupted; the rows printed so far are complete", "to classify all images"):
        shown = _tracked(rows, each(paths), paths, vehicles) if _to_file() else rows
        say_lines(lines(shown, form, names, width))


def _refuse_contradictions(
    forms: dict[str, object],
    folders: dict[str, Path | None],
    vehicles: Vehicles | None,
    ray: str | None,
    batch_size: int | None,
) -> None:
    chosen = [f"--{name}" for name, given in forms.items() if given]
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(chosen)} exclude each other; choose one")
    for name in ("annotate", "save-crops"):
        if folders[name] is not None and vehicles is None:
            raise click.UsageError(f"--{name}: is for vehicles; add --vehicles all or --vehicles largest")
    if ray is not None:
        others = {**folders, "batch-size": batch_size}
        if refused := [f"--{name}" for name, given in others.items() if given is not None]:
            raise click.UsageError(f"--ray: writes Parquet files only; leave {' and '.join(refused)} out")


def _on_cluster(
    address: str,
    model: str | None,
    paths: tuple[str, ...],
    output: str | None,
    **settings: Any,  # noqa: ANN401  (of `predict_on_cluster`)
) -> None:
    if output is None or len(paths) != 1:
        raise click.UsageError("--ray: takes one folder, tar file or s3:// address, and --output")
    from whichcar.scale.predict import predict_on_cluster

    with resumable(f"{output}: interrupted; finished parts are kept"):
        done = predict_on_cluster(address, paths[0], output, model, **settings)
    before = f", {done.earlier:,} of them from an earlier run" if done.earlier else ""
    unusable = f", {done.unusable:,} of them not usable" if done.unusable else ""
    say(f"{output}: {plural(done.images, 'image')}{unusable}, in {plural(done.parts, 'file')}{before}")


def _leading_model(paths: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Return the model that is named before the images, if one is, and the images."""
    from whichcar.files import BEST
    from whichcar.inference.bundle import PLAIN_SUFFIX, SUFFIX
    from whichcar.inference.released import is_model

    for path in paths[1:]:
        is_bundle = path.lower().endswith((SUFFIX, PLAIN_SUFFIX)) and os.path.isfile(path)  # noqa: PTH113
        if is_bundle or os.path.isfile(f"{path}/{BEST}"):  # noqa: PTH113  (False where Path raises)
            raise click.UsageError(f"{path}: is a model; name it first, and only images after it")
    if not is_model(paths[0]) or (len(paths) == 1 and not Path(paths[0]).exists()):
        return None, paths
    if len(paths) == 1:
        raise click.UsageError(f"{paths[0]}: is a model; name the images to classify behind it")
    return paths[0], paths[1:]


def _to_file() -> bool:
    """True where standard output goes to a file, so that a bar on standard error does not get between the rows."""
    try:
        return stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _tracked(
    rows: Iterable[Prediction | Skipped], images: Iterable[object], paths: tuple[str, ...], vehicles: Vehicles | None
) -> Iterator[Prediction | Skipped]:
    """Yield the rows and show how many images have theirs; the number of a list, or of vehicles, is not known."""
    from whichcar.progress import track

    if vehicles == "all":
        return track(rows, "predicting", unit="vehicles")
    return track(rows, "predicting", None if "-" in paths else sum(1 for _ in images))


def _counted(rows: Iterable[Prediction | Skipped], file: OutputFile) -> Iterator[Prediction | Skipped]:
    """Yield the rows, and count those of images that cannot be read as the file's problems."""
    from whichcar.records import NoVehicle, Prediction

    for row in rows:
        file.problems += not isinstance(row, Prediction | NoVehicle)
        yield row


def _write(
    file: OutputFile,
    names: list[str],
    images: Images,
    paths: tuple[str, ...],
    vehicles: Vehicles | None,
    classify: Callable[[Images], Iterator[Prediction | Skipped]],
) -> None:
    from whichcar.images.inputs import each
    from whichcar.inference.predict import lines, one_usable

    rows = classify(file.remaining(images))  # what is wrong with the options is raised before the file is there
    with file.opened(), resumable(f"{file.path}: interrupted; its rows are complete"):
        rows = rows if file.usable else one_usable(rows, file.rows)
        tracked = _tracked(_counted(rows, file), file.remaining(each(paths)), paths, vehicles)
        new = file.write(lines(tracked, file.form, names))
    before = f", {file.rows:,} of them from an earlier run" if file.rows else ""
    unusable = f", {file.problems:,} of them not usable" if file.problems else ""
    say(f"{file.path}: {plural(file.rows + new, 'row')}{unusable}{before}")
