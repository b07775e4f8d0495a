"""`whichcar crop` and `whichcar detectors`: crop images to their vehicle."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from whichcar.cli.interrupts import resumable
from whichcar.cli.options import CropCommand, ray_option
from whichcar.cli.render import SHOWN, columns
from whichcar.cli.streams import say, say_lines
from whichcar.errors import Interrupted
from whichcar.records import TINY
from whichcar.text import one_line, plural

if TYPE_CHECKING:
    from whichcar.records import Crop

_WORST_SHOWN = 5


@click.command(cls=CropCommand)
@click.argument("source", metavar="INPUT")
@click.argument("output")
@click.option("--batch-size", default=1, show_default=True, type=click.IntRange(1), help="Detector batch size.")
@click.option("--workers", type=click.IntRange(1), help="Number of threads.  [default: one per CPU core]")
@click.option("--redo", is_flag=True, help="Crop every image again, for instance with other settings than before.")
@click.option(
    "--contact-sheet",
    is_flag=True,
    help="Also write a page of the images with their boxes, tiny and least confident ones first.",
)
@ray_option
def crop(
    source: str,
    output: str,
    batch_size: int,
    workers: int | None,
    redo: bool,
    contact_sheet: bool,
    ray: str | None,
    **settings: Any,  # noqa: ANN401  (of CropSettings)
) -> None:
    """Crop every image under INPUT to its vehicle and write it under the same path in OUTPUT.

    OUTPUT/boxes.csv has one row per image: box, detection score, and why an image was left whole. An interrupted run
    resumes when the command is run again.

    \b
    Examples:
      whichcar crop data/car_ims_v1 data/car_ims_v2
      whichcar crop data/car_ims_v1 data/car_ims_v2 --detector dfine-n --contact-sheet
      whichcar crop photos cropped --choice central --margin 0.05 --missing skip
      whichcar crop --ray auto s3://bucket/shards s3://bucket/cropped
    """
    if ray is not None:
        chosen = {
            "--batch-size": batch_size > 1,
            "--workers": workers,
            "--redo": redo,
            "--contact-sheet": contact_sheet,
        }
        if refused := [name for name, given in chosen.items() if given]:
            raise click.UsageError(f"--ray: one worker crops on each processor; leave {' and '.join(refused)} out")
        _on_cluster(ray, source, output, settings)
        return
    from whichcar.detection import zoo
    from whichcar.detection.contact_sheet import write_contact_sheet
    from whichcar.detection.crop import count_images
    from whichcar.detection.crop import crop as crop_images
    from whichcar.progress import track

    summary = CropSummary(Path(output))
    rows = crop_images(source, output, redo=redo, batch_size=batch_size, workers=workers, **settings)
    try:
        for row in track(rows, "cropping", count_images(source)):
            summary.add(row)
    except KeyboardInterrupt:
        done = plural(summary.count, "image")
        raise Interrupted(f"{output}: interrupted after {done}\nrun the same command again to resume") from None
    say_lines(summary.lines())
    if not settings["detector"] and not os.environ.get(zoo.FILE_VARIABLE):
        say(f"detector: {zoo.DEFAULT}; `--detector {zoo.MORE_ACCURATE}` is more accurate (`whichcar detectors`)")
    if contact_sheet:
        say(f"page   {write_contact_sheet(source, output)}")


def _on_cluster(address: str, source: str, output: str, settings: dict[str, Any]) -> None:
    from whichcar.data.boxes import FILE, read_boxes
    from whichcar.data.fetch.download import is_remote
    from whichcar.scale.crop import crop_on_cluster

    output = output.removeprefix("file://")
    with resumable(f"{output}: interrupted; finished parts are kept"):
        done = crop_on_cluster(address, source, output, **settings)
    if not is_remote(output):
        summary = CropSummary(Path(output))
        for row in read_boxes(Path(output) / FILE):
            summary.add(row)
        say_lines(summary.lines())
        return
    before = f", {done.earlier:,} of them from an earlier run" if done.earlier else ""
    left_out = f", {done.unusable:,} of them left out" if done.unusable else ""
    say(f"{output}: {plural(done.images, 'image')}{left_out}, in {plural(done.parts, 'part')}{before}")


@click.command()
def detectors() -> None:
    """List the detectors that can be named; `whichcar crop --detector NAME` downloads one on first use.

    \b
    Example:
      whichcar detectors
    """
    say_lines(render_detectors())


class CropSummary:
    """Counts the rows of the crop stage and describes them."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.outcomes: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.tiny = 0
        self.scores = array("f")  # a list would take eight times the memory
        self.folders: dict[str, Counter[str]] = {}

    @property
    def count(self) -> int:
        """The number of images so far."""
        return self.outcomes.total()

    def add(self, row: Crop) -> None:
        """Count one more image."""
        self.outcomes[row.outcome] += 1
        if row.score is not None:
            self.labels[row.label] += 1
            self.scores.append(row.score)
            self.tiny += row.box is not None and row.box.is_tiny
        self.folders.setdefault(PurePath(row.path).parent.name, Counter())[row.kind] += 1

    def lines(self) -> Iterator[str]:
        """Yield how many were cropped, left whole and skipped, and in which classes most were not cropped."""
        cropped = len(self.scores)
        yield f"{self.output}: {plural(self.count, 'image')}"
        if cropped:
            import statistics  # it takes the other commands a while to load

            labels = ", ".join(f"{one_line(label)} {count}" for label, count in self.labels.most_common())
            median = statistics.median(self.scores)
            yield f"  {cropped:6d}  {cropped / self.count:6.1%}  cropped ({labels}; median score {median:.2f})"
        if self.tiny:
            yield (
                f"{'':18}{self.tiny} of them with a shorter side below {TINY} pixels: look at the contact sheet "
                "(--contact-sheet), or use --min-size"
            )
        others = [(outcome, count) for outcome, count in self.outcomes.most_common() if outcome != "cropped"]
        for outcome, count in others[:SHOWN]:
            yield f"  {count:6d}  {count / self.count:6.1%}  {outcome}"
        if len(others) > SHOWN:
            yield f"  ... {plural(len(others) - SHOWN, 'more reason')} in {self.output / 'boxes.csv'}"
        shares = {name: 1 - counts["cropped"] / counts.total() for name, counts in self.folders.items()}
        worst = sorted((-share, name) for name, share in shares.items() if share)[:_WORST_SHOWN]
        if worst and len(self.folders) > 1:
            yield "  least often cropped:"
            for share, name in worst:
                total, cropped = self.folders[name].total(), self.folders[name]["cropped"]
                yield f"    {-share:4.0%} not ({total - cropped} of {total})  {one_line(name)}"
        yield f"table  {self.output / 'boxes.csv'}"


def render_detectors() -> Iterator[str]:
    """Yield a table of the detectors that can be named."""
    from whichcar.detection import zoo
    from whichcar.detection.families import projects

    rows = [("name", "family", "input", "COCO AP", "licence", "file")]
    for entry in zoo.ENTRIES:
        numbers = (f"{entry.side}", f"{entry.average_precision}")
        rows.append(
            (entry.name, entry.family, *numbers, entry.licence, "downloaded on first use" if entry.url else "included")
        )
    yield from columns(rows)
    yield ""
    yield f"{zoo.DEFAULT} is the default (unless {zoo.FILE_VARIABLE} is set): small, fast and the least accurate."
    yield f"{zoo.MORE_ACCURATE} finds more vehicles and takes longer. Each file's checksum is verified at every use."
    yield f"Also: detectron2 (Faster R-CNN R101-FPN, AP 42.0) where it is installed, and PATH.onnx of {projects()}."
