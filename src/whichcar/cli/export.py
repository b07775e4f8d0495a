"""`whichcar export`: a trained network as one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whichcar.cli.options import FILE, FOLDER
from whichcar.cli.render import columns
from whichcar.cli.streams import say_lines

if TYPE_CHECKING:
    from whichcar.exporting.comparison import Format
    from whichcar.exporting.export import Exported
    from whichcar.inference.bundle import Precision


@click.command()
@click.argument("experiment", type=FILE)
@click.option(
    "--to",
    type=FILE,
    metavar="NAME.whichcar",
    help="File to write.  [default: NAME.whichcar in EXPERIMENT's folder, refit/NAME-refit.whichcar for a refit]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="Numbers of the exported network; int8 is smaller and faster.",
)
@click.option(
    "--plain",
    type=FOLDER,
    help="Folder for a second export: the network alone, for other runtimes, such as the file model.onnx.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["onnx", "openvino", "litert"]),
    multiple=True,
    help="Form of the network in the folder of --plain; openvino is model.xml and model.bin, litert is model.tflite "
    "(repeatable).  [default: onnx]",
)
@click.option("--data", type=FOLDER, help="Folder of the training dataset.  [default: where it was for the training]")
@click.option("--licence", metavar="TEXT", help="Terms of use, for the model card.")
@click.option(
    "--note",
    "notes",
    metavar="TEXT",
    multiple=True,
    help="Sentence for the model card, such as on its data (repeatable).",
)
def export(
    experiment: Path,
    to: Path | None,
    precision: Precision,
    plain: Path | None,
    formats: tuple[Format, ...],
    data: Path | None,
    licence: str | None,
    notes: tuple[str, ...],
) -> None:
    """Write EXPERIMENT's network as one file that predicts without Keras.

    The file holds the network as ONNX, its class names, its settings and a model card. Before it is written, the
    exported network and the checkpoint classify the validation images, and their answers, accuracy, size and speed are
    compared.

    \b
    Examples:
      whichcar export experiments/exp_003
      whichcar export experiments/exp_003 --precision int8 --to cars.whichcar
      whichcar export experiments/exp_003 --plain build/network --format onnx --format litert
    """
    if formats and plain is None:
        raise click.UsageError("--format needs --plain DIR")
    from whichcar.exporting.export import LICENCE
    from whichcar.exporting.export import export as export_experiment

    exported = export_experiment(
        experiment, to, precision, plain, formats or ("onnx",), data, licence or LICENCE, notes
    )
    say_lines(render_exported(exported))


def render_exported(exported: Exported) -> Iterator[str]:
    """Yield the table of the forms of the network, and the files."""
    from whichcar.exporting.model_card import form_rows, verified_on

    yield verified_on(exported.verification)
    yield ""
    for line in columns(form_rows(exported.verification)):
        yield f"  {line}"
    yield ""
    for path in (exported.bundle, *exported.others):
        yield f"{path}: {path.stat().st_size / 1e6:.1f} MB"
