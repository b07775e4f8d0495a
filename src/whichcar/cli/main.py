"""The command: one sub-command a stage. The only place that parses arguments and prints.

What a stage needs is imported inside its handler, so that `whichcar --help` loads nothing heavy.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whichcar.cli.options import CropCommand
from whichcar.cli.streams import described, prepare_streams, say, say_error
from whichcar.environment import VARIABLES
from whichcar.errors import Interrupted, WhichcarError
from whichcar.text import one_line, plural, shell_command
from whichcar.version import VERSION

if TYPE_CHECKING:
    from whichcar.inference.predict import Form

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)
INTERRUPTED = 130
MISTAKE = 2
FOUND = 1  # by check --fail-on

overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Lay one setting over the file's; may be repeated."
)
detector_option = click.option(
    "--detector", help="With --crop: name or PATH.onnx (default: the detector used for the training images)."
)
track_option = click.option(
    "--track", metavar="SERVICE", help="Log to a tracking service too: mlflow (its address: MLFLOW_TRACKING_URI)."
)
crop_option = click.option(
    "--crop", is_flag=True, help="Crop each image to its vehicle first, with the training crop settings."
)


def main() -> None:
    """Run the command line and leave with its status: 0, 1 (--fail-on), 2 (a mistake), or 130 (Ctrl-C)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command with these arguments and return its exit status."""
    try:
        prepare_streams()
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        status = whichcar.main(list(arguments), prog_name="whichcar", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        say_error("\n".join(_refusal(error)))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say_error("stopped")
        return INTERRUPTED
    except Interrupted as error:
        say_error(f"\n{error}")
        return INTERRUPTED
    except WhichcarError as error:
        say_error(f"error: {error}")
        return MISTAKE
    except OSError as error:
        if error.strerror is None:  # not the system's
            raise
        say_error(f"error: {described(error)}")
        return MISTAKE
    return status if isinstance(status, int) else 0


def _refusal(error: click.ClickException) -> Iterator[str]:
    """Yield how the command is used and what is wrong with how it was, in the look of all other errors."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        yield error.ctx.get_usage()
        yield f"Try '{error.ctx.command_path} --help' for help.\n"
    yield f"error: {error.format_message()}"


_ALIASES = {"look": "explore"}


class _Group(click.Group):
    """Knows aliases, and lists the commands in the order of the work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, _ALIASES.get(cmd_name, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click would cut each summary at the end of its line.
        whole = 1000
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(whole)) for name, command in self.commands.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Environment variables"):
            formatter.write_dl(list(VARIABLES.items()))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="whichcar")
def whichcar() -> None:
    """Tell make, model and year from an image of a car.

    \b
    Try it on drawn cars, in a few minutes:
      whichcar demo
    With your own images, one stage after the other:
      whichcar split raw/car_ims raw/car_dataset_labels.csv data/car_ims_v1
      whichcar crop data/car_ims_v1 data/car_ims_v2
      whichcar train experiments/exp_003/config.yml
      whichcar evaluate experiments/exp_003
      whichcar predict experiments/exp_003 image.jpg
    """


@whichcar.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--into", type=FOLDER, default="data", show_default=True, help="Folder for images and labels.")
@click.option("--sha256", help="Checksum that the first source must have.")
@click.option("--redo", is_flag=True, help="Fetch and arrange again, in place of what is there.")
def fetch(sources: tuple[str, ...], into: Path, sha256: str | None, redo: bool) -> None:
    """Get images and labels: INTO/car_ims/ and INTO/car_dataset_labels.csv, ready to be split.

    SOURCE is an address (s3://, https://, hf://datasets/OWNER/NAME), an archive, a table, a folder, or stanford-cars
    (copies by others on the Hugging Face hub, for non-commercial research, untested); several make one set.
    Without SOURCE it is what WHICHCAR_SOURCE lists. Credentials come from the environment, for S3 as usual with AWS
    (AWS_ENDPOINT_URL for other servers, WHICHCAR_ANONYMOUS=1 for public buckets). A label file, the Stanford devkit and
    one folder per class, also inside train/, valid/ and test/, are understood. A validation split that is given is
    used; where neither validation nor test is given, a quarter of each class goes to test. Stopped, the same command
    goes on; a second run downloads nothing.

    \b
    Examples:
      whichcar fetch s3://my-bucket/car_ims.tgz s3://my-bucket/car_dataset_labels.csv
      whichcar fetch https://example.org/cars.zip --into data
      whichcar fetch hf://datasets/someone/cars
      whichcar fetch stanford-cars
      whichcar fetch my_images/ --into data
    """
    from whichcar.cli import render
    from whichcar.data.fetch.fetch import fetch as fetch_set

    try:
        _say(render.of_fetched(fetch_set(sources, into, sha256, redo)))
    except KeyboardInterrupt:
        raise Interrupted(f"{into}: stopped; what has come is kept\ngo on with the same command") from None


@whichcar.command()
@click.argument("data", type=FOLDER, required=False)
@click.argument("labels", type=FILE, required=False)
@click.option("--output", type=FOLDER, help="Folder for issues.csv and check.html (default: DATA).")
@click.option("--smallest", default=64, show_default=True, type=click.IntRange(1), help="Fewer pixels a side are tiny.")
@click.option("--fail-on", metavar="LIST", help="Exit with status 1 if there are any of these issues.")
@click.option("--quarantine", type=FOLDER, help="Move images there; nothing is deleted.")
@click.option(
    "--move", default="error", show_default=True, metavar="LIST", help="Issues whose images --quarantine moves."
)
@click.option("--undo", type=FOLDER, metavar="DIR", help="Put back what --quarantine moved to DIR.")
@click.option("--labels-with", type=FOLDER, metavar="EXPERIMENT", help="Look for wrong labels with a trained network.")
@click.option("--folds", type=int, help="For --labels-with: train so many networks, so that all images are judged.")
def check(
    data: Path | None,
    labels: Path | None,
    output: Path | None,
    smallest: int,
    fail_on: str | None,
    quarantine: Path | None,
    move: str,
    undo: Path | None,
    labels_with: Path | None,
    folds: int | None,
) -> int:
    """Look for what is wrong with images and labels: DATA/issues.csv and DATA/check.html.

    DATA holds a label file's images, train/ and test/, or a folder a class. Found are files that cannot be read,
    copies (also between train and test, or with different labels), rows without an image, odd images, slips in class
    names, and more. Images seen before are not read again. A LIST has names of issues, of severities (error, warning,
    note), or any, separated by commas.

    \b
    Examples:
      whichcar check data
      whichcar check data/car_ims_v1 --fail-on leak,unreadable
      whichcar check images labels.csv --quarantine aside --move unreadable,exact_duplicate
      whichcar check --undo aside
      whichcar check data/car_ims_v2 --labels-with experiments/exp_003
    """
    from whichcar.cli import render

    if undo is not None:
        from whichcar.data.check.quarantine import put_back

        say(f"{undo}: moved back {plural(put_back(undo), 'image')}")
        return 0
    if data is None:
        raise click.UsageError("name the folder to check: whichcar check DATA")
    if folds is not None and labels_with is None:
        raise click.UsageError("--folds needs --labels-with EXPERIMENT")
    from whichcar.data.check.check import check as check_images
    from whichcar.data.check.issues import matching
    from whichcar.data.check.page import write_report

    matching([], _listed(fail_on or ""), "--fail-on")  # what is wrong with options shows before the work
    matching([], _listed(move), "--move")
    if quarantine is not None:
        from whichcar.data.check.quarantine import check_place

        check_place(data, quarantine)
    try:
        checked = check_images(data, labels, smallest)
        if labels_with is not None:
            from whichcar.evaluation.label_errors import find_label_errors

            checked = checked.with_findings(find_label_errors(data, labels_with, folds))
    except KeyboardInterrupt:
        raise Interrupted(f"{data}: stopped; what was seen is remembered\ngo on with the same command") from None
    pages = write_report(checked, output or data)
    _say(render.of_checked(checked, pages))
    if quarantine is not None:
        from whichcar.data.check.quarantine import quarantine as move_to

        count = move_to(data, matching(checked.findings, _listed(move), "--move"), quarantine)
        back = shell_command(["whichcar", "check", "--undo", quarantine])
        say(f"moved  {plural(count, 'image')} to {quarantine}; back with: {back}")
    failing = matching(checked.findings, _listed(fail_on or ""), "--fail-on")
    if failing:
        say_error(f"found, as --fail-on names it: {render.counted(failing)}")
    return FOUND if failing else 0


@whichcar.command()
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
    help="Share of train set aside for validation, by class; 0 for none.",
)
@click.option(
    "--group-by",
    metavar="PATTERN",
    help="Keep images of one group on one side of the split. PATTERN is a regular expression searched in each image's "
    "path inside DATA; its first group, or the whole match, names the group.",
)
@click.option("--seed", default=123, show_default=True, help="Random seed of the splits that are drawn.")
@click.option(
    "--keep-copies",
    is_flag=True,
    help="Keep training images that duplicate a test or validation image, or are of its group.",
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
    a label file: LABELS, or car_dataset_labels.csv in DATA. A label file has the columns img_name,class,subset and
    optionally group; without a subset, test is drawn.

    Images are hard-linked, or copied to another disk. Running it again does only what is missing. Copies of one image,
    also near copies, and images of one group end on one side of train, validation and test. OUTPUT/split.json lists
    what was done, the validation images, and every row that could not be used.

    \b
    Examples:
      whichcar split photos data/cars --test-share 0.2
      whichcar split raw raw/car_dataset_labels.csv data/car_ims_v1
      whichcar split photos data/cars --group-by '^(.+)_[^/]*$'  # car12_a.jpg and car12_b.jpg are one group
    """
    from whichcar.cli import render
    from whichcar.data.split.split import split as split_images

    if labels is None and output is None:
        raise click.UsageError(f"no output folder; give one: {shell_command(['whichcar', 'split', data])} OUTPUT")
    done = split_images(data, labels, output, validation, seed, keep_copies, test_share, group_by)
    _say(render.of_split(done))


@whichcar.command()
@click.argument("data", type=FOLDER)
@click.argument("labels", type=FILE, required=False)
@click.option("--output", type=FILE, help="The page to write.  [default: explore.html in DATA]")
@click.option("--seed", default=0, show_default=True, help="Random seed for the sampled images.")
def explore(data: Path, labels: Path | None, output: Path | None, seed: int) -> None:
    """Show what DATA holds on one page: classes, makes, years, sizes, brightness, samples, copies, unreadable files.

    DATA has a label file (LABELS, or car_dataset_labels.csv in it), is split or cropped, holds one folder per class, or
    images only. The page needs no other file and no network. A second run reads new images only. `whichcar look` does
    the same.

    \b
    Examples:
      whichcar explore data/car_ims_v1
      whichcar explore data data/car_dataset_labels.csv --output cars.html
    """
    from whichcar.data.explore.explore import explore as explore_images

    try:
        say(f"page   {explore_images(data, labels, output, seed)}")
    except KeyboardInterrupt:
        raise Interrupted(f"{data}: interrupted; scanned images are remembered\nre-run to resume") from None


@whichcar.command(cls=CropCommand)
@click.argument("source", type=FOLDER, metavar="INPUT")
@click.argument("output", type=FOLDER)
@click.option("--batch-size", default=1, show_default=True, type=click.IntRange(1), help="Images the detector takes.")
@click.option("--workers", type=click.IntRange(1), help="Threads (default: the processors there are).")
@click.option("--redo", is_flag=True, help="Cut everything again, also with other settings than before.")
@click.option("--contact-sheet", is_flag=True, help="Also write a page of images with boxes drawn, least sure first.")
def crop(
    source: Path,
    output: Path,
    batch_size: int,
    workers: int | None,
    redo: bool,
    contact_sheet: bool,
    **settings: Any,  # noqa: ANN401  (of CropSettings)
) -> None:
    """Cut every image under INPUT to its vehicle, under the same path in OUTPUT.

    What was found and done stands in OUTPUT/boxes.csv, a row an image. Stopped at any moment, the same command does
    the rest.

    \b
    Examples:
      whichcar crop data/car_ims_v1 data/car_ims_v2
      whichcar crop data/car_ims_v1 data/car_ims_v2 --detector yolox_nano.onnx --contact-sheet
      whichcar crop photos cut --choice central --margin 0.05 --missing skip
    """
    from whichcar.cli import render
    from whichcar.detection.contact_sheet import write_contact_sheet
    from whichcar.detection.crop import count_images
    from whichcar.detection.crop import crop as crop_images
    from whichcar.progress import track
    from whichcar.text import plural

    told = render.Cropped(output)
    rows = crop_images(source, output, redo=redo, batch_size=batch_size, workers=workers, **settings)
    try:
        for row in track(rows, "cropping", count_images(source)):
            told.add(row)
    except KeyboardInterrupt:
        done = plural(told.count, "image")
        raise Interrupted(f"{output}: stopped after {done}\ngo on with the same command") from None
    _say(told.lines())
    if contact_sheet:
        say(f"page   {write_contact_sheet(source, output)}")


@whichcar.command()
def detectors() -> None:
    """List the detectors that have a name; `whichcar crop --detector NAME` fetches one the first time.

    \b
    Example:
      whichcar detectors
    """
    from whichcar.cli import render

    _say(render.of_detectors())


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
    from whichcar.cli import render

    if file is None:
        if overrides:
            raise click.UsageError("--set needs the FILE it is laid over")
        from whichcar.config.table import describe_settings

        _say(render.of_setting_table(describe_settings()))
        return
    from whichcar.config.load import settings_with_origin

    _say(render.of_settings(settings_with_origin(file, overrides)))


@whichcar.group(invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """List the decoded images that training keeps on disk, or clear them.

    \b
    Examples:
      whichcar cache
      whichcar cache clear
    """
    if context.invoked_subcommand is None:
        from whichcar.cli import render
        from whichcar.data.decoded_cache import list_caches
        from whichcar.environment import cache_root

        _say(render.of_caches(cache_root(), list_caches()))


@cache.command()
@click.argument("key", required=False)
def clear(key: str | None) -> None:
    """Remove the cache KEY, or all of them.

    \b
    Example:
      whichcar cache clear
    """
    from whichcar.data.decoded_cache import clear_caches

    say(f"{clear_caches(key)} removed")


@whichcar.command()
@click.argument("config", type=FILE)
@overrides_option
@click.option(
    "--resume", is_flag=True, help="Resume an interrupted training, or extend a finished one with --set fit.epochs=N."
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an earlier training and its evaluations, which are deleted once the new one has a checkpoint.",
)
@track_option
def train(config: Path, overrides: tuple[str, ...], resume: bool, overwrite: bool, track: str | None) -> None:
    """Train as CONFIG, an experiment's folder or a settings file, says; everything is written next to it.

    Ctrl-C saves first. A finished training is left as it is.

    \b
    Examples:
      whichcar train experiments/exp_003
      whichcar train experiments/exp_003/config.yml
      whichcar train experiments/exp_003/config.yml --set fit.epochs=3
      whichcar train experiments/exp_003/config.yml --resume
      whichcar train experiments/exp_003/config.yml --track mlflow
    """
    from whichcar.training.train import train as train_network

    logging.getLogger("whichcar").setLevel(logging.INFO)
    try:
        trained = train_network(config, overrides, resume=resume, overwrite=overwrite, track=track)
    except Interrupted as error:
        command = ["whichcar", "train", str(config), *(word for text in overrides for word in ("--set", text))]
        command += ["--resume" if error.saved else "--overwrite", *(["--track", track] if track else [])]
        again = "resume" if error.saved else "start it again with"
        raise Interrupted(f"{error}\n{again}: {shell_command(command)}") from None
    _say([f"checkpoint: {trained.checkpoint}", f"next: {shell_command(['whichcar', 'evaluate', trained.folder])}"])


@whichcar.command()
@click.argument("file", type=FILE)
@overrides_option
@click.option(
    "--storage", help="FILE.db, FILE.journal (shared disk) or postgresql://… (default: study.db next to the trials)."
)
@click.option(
    "--ray", metavar="ADDRESS", help="Run trials on a Ray cluster: auto (this machine's) or HOST:PORT of its head."
)
@click.option("--trials", type=click.IntRange(1), help="How many trials in all, instead of FILE's budget.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Of all trials together, likewise.")
@click.option("--parallel", type=click.IntRange(1), help="Trials at once, likewise.")
def sweep(
    file: Path,
    overrides: tuple[str, ...],
    storage: str | None,
    ray: str | None,
    trials: int | None,
    minutes: float | None,
    parallel: int | None,
) -> None:
    """Search for settings as FILE says: many trainings, each an experiment folder next to FILE.

    Stopped or killed at any moment, the same command goes on; after the end it does nothing until the budget is
    raised, in FILE or here. Started several times, also on other machines, with the same --storage, the processes share
    the trials. With --ray, trials run on the nodes of a Ray cluster, which must share the disk of FILE and the images
    under the same path. Such a search can be resumed without it, and the other way round.

    \b
    Examples:
      whichcar sweep experiments/sweeps/fast.yml
      whichcar sweep experiments/sweeps/fast.yml --set model.weights=data/resnet50_notop.h5
      whichcar sweep experiments/sweeps/fast.yml --trials 80 --parallel 2
      whichcar sweep experiments/sweeps/fast.yml --storage postgresql://user@host/studies
      whichcar sweep experiments/sweeps/fast.yml --ray 10.0.0.5:6379
    """
    from whichcar.cli import render
    from whichcar.search.driver import sweep as search
    from whichcar.search.ray_launcher import RayLauncher

    given = {"budget.trials": trials, "budget.minutes": minutes, "parallel": parallel}
    limits = {name: value for name, value in given.items() if value is not None}
    try:
        with RayLauncher(ray) if ray is not None else nullcontext() as launcher:
            swept = search(file, overrides, storage, launcher, limits=limits)
        _say(render.of_swept(swept))
    except (Interrupted, KeyboardInterrupt) as error:
        command: list[str | Path] = ["whichcar", "sweep", file]
        command += [word for text in overrides for word in ("--set", text)]
        command += ["--storage", storage] if storage else []
        command += ["--ray", ray] if ray else []
        command += [word for name, value in limits.items() for word in (f"--{name.rpartition('.')[2]}", f"{value:g}")]
        told = str(error) or f"{file}: stopped at once; trials resume from what they saved last"
        raise Interrupted(f"{told}\ngo on with: {shell_command(command)}") from None


@whichcar.command()
@click.argument("experiment", type=FILE)
@click.option("--data", type=FOLDER, help="Other images, one folder per class (default: the dataset's own test split).")
@crop_option
@detector_option
@track_option
def evaluate(experiment: Path, data: Path | None, crop: bool, detector: str | None, track: str | None) -> None:
    """Evaluate EXPERIMENT on the test set: result.json, predictions.csv, report.html and plots in its folder.

    Results for other images go to EXPERIMENT/evaluations/, in a folder for each. How often the same images have been
    used is counted in EXPERIMENT/test_uses.json.

    \b
    Examples:
      whichcar evaluate experiments/exp_003
      whichcar evaluate experiments/exp_003 --data other_images --crop
    """
    from whichcar.cli import render
    from whichcar.evaluation.evaluate import evaluate as evaluate_experiment

    result = evaluate_experiment(experiment, data, crop=crop, detector=detector, track=track)
    _say(render.of_result(result.as_json(), result.folder))


@whichcar.command()
@click.argument("experiment", type=FILE)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header.")
@click.option(
    "--top", default=3, show_default=True, type=click.IntRange(1), help="How many classes are listed per image."
)
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
) -> None:
    """Classify images: PATH is a file, a folder, an http(s) address, or - for a list of these on standard input.

    EXPERIMENT is an experiment's folder or a checkpoint file. An image that cannot be read, or a folder without images,
    becomes a row that says so; the exit status is 2 only if nothing could be classified. With --crop, rows tell the box
    of the vehicle in pixels, how confident the detector is, and how many vehicles there are, or that there is none and
    the whole image was used.

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

    classifier = Classifier(experiment, crop, detector)
    top = min(top, len(classifier.class_names))
    names = names_of(paths, None if sys.stdin is None else sys.stdin.buffer)
    rows = one_usable(classifier.stream(names, top, batch_size))
    form: Form = "json" if as_json else "csv" if as_csv else "table"
    _say(lines(rows, form, top, max(len(one_line(name)) for name in classifier.class_names), crop))


@whichcar.command()
@click.argument("experiments", nargs=-1, type=FOLDER)
@click.option(
    "--against", type=FOLDER, metavar="EXPERIMENT", help="Test every other one against it, on the same images."
)
@click.option("--write", type=FILE, help="Put the table into this Markdown file, between its markers.")
@click.option("--block", default="", help="Name of the markers, for a file with several tables.")
def compare(experiments: tuple[Path, ...], against: Path | None, write: Path | None, block: str) -> None:
    """Print one line an experiment or search, as a Markdown table (default: all under experiments/).

    Settings that differ are shown. With --against: the difference of each to that one in points, with its interval and
    McNemar's test.

    \b
    Examples:
      whichcar compare
      whichcar compare experiments/exp_002 experiments/exp_003
      whichcar compare experiments/* --against experiments/exp_003
      whichcar compare --write experiments/README.md
      whichcar compare --write experiments/README.md --block crops experiments/crops/*_?
      whichcar compare experiments/sweeps/show/grid experiments/sweeps/show/pruned
    """
    if block and not write:
        raise click.UsageError("--block needs --write FILE, which has the markers")
    from whichcar.evaluation.compare.experiments import compare as comparison
    from whichcar.evaluation.compare.experiments import write_table

    folders = experiments or sorted(Path("experiments").glob("*"))
    say(write_table(write, folders, block, against) if write else comparison(folders, against))


@whichcar.command()
@click.option("--into", type=FOLDER, default="demo", show_default=True, help="Folder for everything.")
@click.option("--real", type=FOLDER, help="Your images: one folder a class, or car_ims/ and car_dataset_labels.csv.")
@click.option("--quick", is_flag=True, help="Fewer images and epochs: shows the way, learns little.")
def demo(into: Path, real: Path | None, quick: bool) -> None:
    """Run the whole way on a small set: draw cars, split, train from random weights, evaluate.

    A second run does only what is missing.

    \b
    Examples:
      whichcar demo
      whichcar demo --real my_images --into demo_real
    """
    from whichcar.cli import demo as whole_way

    logging.getLogger("whichcar").setLevel(logging.INFO)
    try:
        whole_way.run(into, real=real, quick=quick, say=say)
    except Interrupted as error:
        raise Interrupted(f"{error}\ngo on with the same command") from None


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


if __name__ == "__main__":
    main()
