"""The command: one sub-command a stage. The only place that parses arguments and prints.

What a stage needs is imported inside its handler, so that `whichcar --help` loads nothing heavy.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whichcar import __version__
from whichcar.cli_settings import CropCommand
from whichcar.errors import Interrupted, WhichcarError

if TYPE_CHECKING:
    from whichcar.evaluation.predict import Form

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)
INTERRUPTED = 130
MISTAKE = 2

overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Lay one setting over the file's; may be repeated."
)
detector_option = click.option(
    "--detector", help="For --crop: name or PATH.onnx (default: the one that cut those trained on)."
)
crop_option = click.option(
    "--crop", is_flag=True, help="Cut every picture to its vehicle first, as those trained on were."
)


def main() -> None:
    """Run the command line and leave with its status: 0, 2 for a mistake that can be mended, 130 after Ctrl-C."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command with these arguments and return its exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        whichcar.main(list(arguments), prog_name="whichcar", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return INTERRUPTED
    except Interrupted as error:
        click.echo(f"\n{error}", err=True)
        return INTERRUPTED
    except WhichcarError as error:
        click.echo(f"error: {error}", err=True)
        return MISTAKE
    except PermissionError as error:
        click.echo(f"error: {error.filename}: {error.strerror}; change its permissions", err=True)
        return MISTAKE
    return 0


class _Group(click.Group):
    """Lists the commands in the order of the work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="whichcar")
def whichcar() -> None:
    """Tell make, model and year from a picture of a car.

    \b
    Try it on drawn cars, in a few minutes:
      whichcar demo
    With your own pictures, one stage after the other:
      whichcar split raw/car_ims raw/car_dataset_labels.csv data/car_ims_v1
      whichcar crop data/car_ims_v1 data/car_ims_v2
      whichcar train experiments/exp_003/config.yml
      whichcar evaluate experiments/exp_003
      whichcar predict experiments/exp_003 picture.jpg
    """


@whichcar.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--into", type=FOLDER, default="data", show_default=True, help="Folder for pictures and labels.")
@click.option("--sha256", help="Checksum that the first source must have.")
@click.option("--redo", is_flag=True, help="Fetch and arrange anew, in place of what is there.")
def fetch(sources: tuple[str, ...], into: Path, sha256: str | None, redo: bool) -> None:
    """Get pictures and labels: INTO/car_ims/ and INTO/car_dataset_labels.csv, ready to be split.

    SOURCE is an address (s3://, https://, hf://datasets/OWNER/NAME), an archive, a table, a folder, or stanford-cars;
    several make one set.
    Without SOURCE it is what WHICHCAR_SOURCE lists. Credentials come from the environment, for S3 as usual with AWS
    (AWS_ENDPOINT_URL for other servers, WHICHCAR_ANONYMOUS=1 for public buckets). A label file, the Stanford devkit and
    a folder a class are understood. Stopped, the same command goes on; a second run downloads nothing.

    \b
    Examples:
      whichcar fetch s3://my-bucket/car_ims.tgz s3://my-bucket/car_dataset_labels.csv
      whichcar fetch https://example.org/cars.zip --into data
      whichcar fetch hf://datasets/someone/cars
      whichcar fetch stanford-cars
      whichcar fetch my_pictures/ --into data
    """
    from whichcar import summary
    from whichcar.data.fetch import fetch as fetch_set

    try:
        _say(summary.of_fetched(fetch_set(sources, into, sha256, redo)))
    except KeyboardInterrupt:
        raise Interrupted(f"{into}: stopped; what has come is kept\ngo on with the same command") from None


@whichcar.command()
@click.argument("data", type=FOLDER)
@click.argument("labels", type=FILE)
@click.argument("output", type=FOLDER)
@click.option("--validation", default=0.2, show_default=True, help="Share of train set aside for validation, by class.")
@click.option("--seed", default=123, show_default=True, help="Of the choice of these.")
def split(data: Path, labels: Path, output: Path, validation: float, seed: int) -> None:
    """Sort pictures into OUTPUT/{train,test}/CLASS/ by the label file (img_name,class,subset).

    Pictures are hard-linked, or copied to another disk. Running it again does only what is missing. What was done,
    which pictures are kept for validation and every row that could not be used stand in OUTPUT/split.json.

    \b
    Example:
      whichcar split raw raw/car_dataset_labels.csv data/car_ims_v1
    """
    from whichcar import summary
    from whichcar.data.split import split as split_pictures

    _say(summary.of_split(split_pictures(data, labels, output, validation, seed)))


@whichcar.command(cls=CropCommand)
@click.argument("source", type=FOLDER, metavar="INPUT")
@click.argument("output", type=FOLDER)
@click.option("--batch-size", default=1, show_default=True, type=click.IntRange(1), help="Pictures the detector takes.")
@click.option("--workers", type=click.IntRange(1), help="Threads (default: the processors there are).")
@click.option("--redo", is_flag=True, help="Cut everything anew, also with other settings than before.")
@click.option("--contact-sheet", is_flag=True, help="Also write a page of pictures with boxes drawn, least sure first.")
def crop(
    source: Path,
    output: Path,
    batch_size: int,
    workers: int | None,
    redo: bool,
    contact_sheet: bool,
    **settings: Any,  # noqa: ANN401  (of CropSettings)
) -> None:
    """Cut every picture under INPUT to its vehicle, under the same path in OUTPUT.

    What was found and done stands in OUTPUT/boxes.csv, a row a picture. Stopped at any moment, the same command does
    the rest.

    \b
    Examples:
      whichcar crop data/car_ims_v1 data/car_ims_v2
      whichcar crop data/car_ims_v1 data/car_ims_v2 --detector yolox_nano.onnx --contact-sheet
      whichcar crop photos cut --choice central --margin 0.05 --missing skip
    """
    from whichcar import summary
    from whichcar.detection.contact_sheet import write_contact_sheet
    from whichcar.detection.crop import count_pictures
    from whichcar.detection.crop import crop as crop_pictures
    from whichcar.progress import track

    told = summary.Cropped(output)
    rows = crop_pictures(source, output, redo=redo, batch_size=batch_size, workers=workers, **settings)
    try:
        for row in track(rows, "cropping", count_pictures(source)):
            told.add(row)
    except KeyboardInterrupt:
        raise Interrupted(f"{output}: stopped after {told.count} pictures\ngo on with the same command") from None
    _say(told.lines())
    if contact_sheet:
        click.echo(f"page   {write_contact_sheet(source, output)}")


@whichcar.command()
def detectors() -> None:
    """List the detectors that have a name; `whichcar crop --detector NAME` fetches one the first time.

    \b
    Example:
      whichcar detectors
    """
    from whichcar import summary

    _say(summary.of_detectors())


@whichcar.command()
@click.argument("file", type=FILE, required=False)
@overrides_option
def config(file: Path | None, overrides: tuple[str, ...]) -> None:
    """Check a settings file and print every setting with where it comes from.

    Without FILE: all settings there are, with kind, default, limits and meaning, as a Markdown table.

    \b
    Examples:
      whichcar config
      whichcar config experiments/exp_003/config.yml
      whichcar config experiments/exp_003/config.yml --set fit.epochs=3 --set data.batch_size=16
    """
    from whichcar import summary

    if file is None:
        if overrides:
            raise click.UsageError("--set needs the FILE it is laid over")
        from whichcar.config_table import describe_settings

        _say(summary.of_setting_table(describe_settings()))
        return
    from whichcar.config_file import settings_with_origin

    _say(summary.of_settings(settings_with_origin(file, overrides)))


@whichcar.group(invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """List the decoded pictures that training keeps on disk, or clear them.

    \b
    Examples:
      whichcar cache
      whichcar cache clear
    """
    if context.invoked_subcommand is None:
        from whichcar import summary
        from whichcar.data.packed import cache_root, list_caches

        _say(summary.of_caches(cache_root(), list_caches()))


@cache.command()
@click.argument("key", required=False)
def clear(key: str | None) -> None:
    """Remove the cache KEY, or all of them.

    \b
    Example:
      whichcar cache clear
    """
    from whichcar.data.packed import clear_caches

    click.echo(f"{clear_caches(key)} removed")


@whichcar.command()
@click.argument("config", type=FILE)
@overrides_option
@click.option("--resume", is_flag=True, help="Go on where an interrupted training stopped.")
@click.option("--overwrite", is_flag=True, help="Delete what an earlier training left in the folder.")
def train(config: Path, overrides: tuple[str, ...], resume: bool, overwrite: bool) -> None:
    """Train as CONFIG says; everything is written beside it. Ctrl-C saves first.

    \b
    Examples:
      whichcar train experiments/exp_003/config.yml
      whichcar train experiments/exp_003/config.yml --set fit.epochs=3
      whichcar train experiments/exp_003/config.yml --resume
    """
    from whichcar.training.train import train as train_network

    logging.getLogger("whichcar").setLevel(logging.INFO)
    try:
        trained = train_network(config, overrides, resume=resume, overwrite=overwrite)
    except Interrupted as error:
        sets = "".join(f" --set {shlex.quote(text)}" for text in overrides)
        raise Interrupted(f"{error}\ngo on with: whichcar train {shlex.quote(str(config))}{sets} --resume") from None
    _say([f"checkpoint: {trained.checkpoint}", f"next: whichcar evaluate {shlex.quote(str(trained.folder))}"])


@whichcar.command()
@click.argument("file", type=FILE)
@overrides_option
@click.option(
    "--storage", help="FILE.db, FILE.journal (shared disk) or postgresql://… (default: study.db beside the trials)."
)
def sweep(file: Path, overrides: tuple[str, ...], storage: str | None) -> None:
    """Search for settings as FILE says: many trainings, each an experiment folder beside FILE.

    Stopped or killed at any moment, the same command goes on; after the end it does nothing until FILE's budget is
    raised. Started several times, also on other machines, with the same --storage, the processes share the trials.

    \b
    Examples:
      whichcar sweep experiments/sweeps/fast.yml
      whichcar sweep experiments/sweeps/fast.yml --set model.weights=data/resnet50_notop.h5
      whichcar sweep experiments/sweeps/fast.yml --storage postgresql://user@host/studies
    """
    from whichcar import summary
    from whichcar.training.sweep.driver import sweep as search

    try:
        _say(summary.of_swept(search(file, overrides, storage)))
    except Interrupted as error:
        options = [*(f"--set {shlex.quote(text)}" for text in overrides)]
        options += ["--storage …"] if storage else []
        command = " ".join(["whichcar sweep", shlex.quote(str(file)), *options])
        raise Interrupted(f"{error}\ngo on with: {command}") from None


@whichcar.command()
@click.argument("experiment", type=FILE)
@click.option("--data", type=FOLDER, help="Other pictures, one folder a class (default: the test part trained beside).")
@crop_option
@detector_option
def evaluate(experiment: Path, data: Path | None, crop: bool, detector: str | None) -> None:
    """Measure EXPERIMENT on the test pictures: result.json, predictions.csv, report.html and plots beside it.

    \b
    Examples:
      whichcar evaluate experiments/exp_003
      whichcar evaluate experiments/exp_003 --data other_pictures --crop
    """
    from whichcar import summary
    from whichcar.evaluation.evaluate import evaluate as evaluate_experiment

    result = evaluate_experiment(experiment, data, crop=crop, detector=detector)
    _say(summary.of_result(result.as_json(), result.folder))


@whichcar.command()
@click.argument("experiment", type=FILE)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--json", "form", flag_value="json", help="One JSON object a line.")
@click.option("--csv", "form", flag_value="csv", help="CSV with a header.")
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="How many classes a picture.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1), help="Pictures at once.")
@crop_option
@detector_option
def predict(
    experiment: Path,
    paths: tuple[str, ...],
    form: Form | None,
    top: int,
    batch_size: int,
    crop: bool,
    detector: str | None,
) -> None:
    """Tell the classes of pictures: PATH is a file, a folder, or - for a list of paths on standard input.

    EXPERIMENT is an experiment's folder or a checkpoint file. A picture that cannot be read becomes a row that says so.

    \b
    Examples:
      whichcar predict experiments/exp_003 car.jpg
      whichcar predict experiments/exp_003 street.jpg --crop
      whichcar predict experiments/exp_003 pictures/ --csv --top 1 > answers.csv
      find . -name '*.jpg' | whichcar predict experiments/exp_003 - --json
    """
    from whichcar.evaluation.classifier import Classifier
    from whichcar.evaluation.predict import lines, pictures_named
    from whichcar.evaluation.predict import predict as predict_pictures

    classifier = Classifier(experiment, crop, detector)
    top = min(top, len(classifier.class_names))
    rows = predict_pictures(classifier, pictures_named(paths, sys.stdin), top, batch_size)
    _say(lines(rows, form or "table", top, max(map(len, classifier.class_names))))


@whichcar.command()
@click.argument("experiments", nargs=-1, type=FOLDER)
@click.option("--write", type=FILE, help="Put the table into this Markdown file, between its markers.")
@click.option("--block", default="", help="Name of the markers, for a file with several tables.")
def compare(experiments: tuple[Path, ...], write: Path | None, block: str) -> None:
    """Print one line an evaluated experiment or search, as a Markdown table (default: all under experiments/).

    \b
    Examples:
      whichcar compare
      whichcar compare experiments/exp_002 experiments/exp_003
      whichcar compare --write experiments/README.md
      whichcar compare --write experiments/README.md --block crops experiments/crops/*_?
      whichcar compare experiments/sweeps/show/grid experiments/sweeps/show/pruned
    """
    from whichcar.evaluation.compare import comparison, write_table

    folders = experiments or sorted(Path("experiments").glob("*"))
    click.echo(write_table(write, folders, block) if write else comparison(folders))


@whichcar.command()
@click.option("--into", type=FOLDER, default="demo", show_default=True, help="Folder for everything.")
@click.option("--real", type=FOLDER, help="Your pictures: one folder a class, or car_ims/ and car_dataset_labels.csv.")
@click.option("--quick", is_flag=True, help="Fewer pictures and epochs: shows the way, learns little.")
def demo(into: Path, real: Path | None, quick: bool) -> None:
    """Run the whole way on a small set: draw cars, split, train from random weights, evaluate.

    A second run does only what is missing.

    \b
    Examples:
      whichcar demo
      whichcar demo --real my_pictures --into demo_real
    """
    from whichcar import demo as whole_way

    logging.getLogger("whichcar").setLevel(logging.INFO)
    try:
        whole_way.run(into, real=real, quick=quick, say=click.echo)
    except Interrupted as error:
        raise Interrupted(f"{error}\ngo on with the same command") from None


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


if __name__ == "__main__":
    main()
