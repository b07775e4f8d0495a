"""`whichcar fetch`: get images and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whichcar.cli.interrupts import resumable
from whichcar.cli.options import FOLDER
from whichcar.cli.render import SHOWN
from whichcar.cli.streams import say_lines
from whichcar.text import listed, plural, shell_command

if TYPE_CHECKING:
    from whichcar.data.fetch.fetch import Fetched


@click.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--into", type=FOLDER, default="data", show_default=True, help="Folder for images and labels.")
@click.option("--sha256", metavar="HEX", help="Expected SHA-256 checksum of the first source.")
@click.option("--redo", is_flag=True, help="Overwrite existing files; download what has changed at its source.")
def fetch(sources: tuple[str, ...], into: Path, sha256: str | None, redo: bool) -> None:
    """Get images and labels: INTO/car_ims/ and INTO/car_dataset_labels.csv, ready to be split.

    SOURCE is an address (s3://, https://, hf://datasets/OWNER/NAME), an archive, a table, a folder, or stanford-cars
    (third-party copies on the Hugging Face hub, for non-commercial research, untested); several archives and tables
    make one dataset. Without SOURCE, the sources in WHICHCAR_SOURCE are used. Credentials come from the environment,
    for S3 as usual with AWS (AWS_ENDPOINT_URL for other servers, WHICHCAR_ANONYMOUS=1 for public buckets).

    A label file, the Stanford devkit and one folder per class, also inside train/, valid/ and test/, are recognised. A
    given validation split is used; where neither validation nor test is given, `whichcar split` draws them. An
    interrupted download resumes when the command is run again; a second run downloads nothing.

    \b
    Examples:
      whichcar fetch s3://my-bucket/car_ims.tgz s3://my-bucket/car_dataset_labels.csv
      whichcar fetch https://example.org/cars.zip --into data
      whichcar fetch hf://datasets/someone/cars
      whichcar fetch stanford-cars
      whichcar fetch my_images/ --into data
    """
    from whichcar.data.fetch.fetch import fetch as fetch_dataset

    with resumable(f"{into}: interrupted; downloaded files are kept"):
        fetched = fetch_dataset(sources, into, sha256, redo)
    say_lines(render_fetched(fetched, sources))


def render_fetched(fetched: Fetched, sources: Sequence[str]) -> Iterator[str]:
    """Yield what is there now and the next command."""
    into, labels = fetched.into, fetched.into / "car_dataset_labels.csv"
    yield f"{into}: {plural(fetched.images, 'image')}, {plural(fetched.labels, 'label')} ({fetched.kind})"
    for file in fetched.files:
        if file.sha256:
            yield f"  {file.source}: {file.size / 1e6:.1f} MB, SHA-256 {file.sha256}"
    counts = ", ".join(f"{split} {count:,}" for split, count in fetched.splits.items())
    yield f"  {plural(len(fetched.classes), 'class')}: {listed(fetched.classes, SHOWN)}; {counts or 'not divided yet'}"
    if not fetched.fresh:
        again = shell_command(["whichcar", "fetch", *sources, "--into", into, "--redo"])
        yield f"  fetched before and kept, also where the source has changed since; to fetch it again: {again}"
    command: list[str | Path] = ["whichcar", "split", into, labels, into / "car_ims_v1"]
    yield f"next: {shell_command(command)}"
