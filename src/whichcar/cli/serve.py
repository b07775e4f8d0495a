"""`whichcar serve`: a server that classifies uploaded images."""

from __future__ import annotations

from pathlib import Path

import click

from whichcar.cli.options import FILE, DetectorCommand, detector_option
from whichcar.cli.streams import say


@click.command(cls=DetectorCommand)
@click.argument("model", required=False, metavar="[MODEL]")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all interfaces."
)
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Processes that classify. Each loads the model, and together they use all cores.",
)
@click.option(
    "--queue",
    default=128,
    show_default=True,
    type=click.IntRange(1),
    help="Maximum number of waiting images; further ones get a 503.",
)
@click.option(
    "--batch-size", default=1, show_default=True, type=click.IntRange(1), help="Images per forward pass at most."
)
@click.option(
    "--batch-wait",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Milliseconds that a smaller batch waits for more images.",
)
@click.option(
    "--timeout",
    default=20.0,
    show_default=True,
    type=click.FloatRange(0.1),
    help="Time limit for a request, in seconds.",
)
@click.option(
    "--max-megabytes", default=32.0, show_default=True, type=click.FloatRange(0.01), help="Largest request in MB."
)
@click.option(
    "--tokens",
    type=FILE,
    metavar="FILE",
    help="File with one bearer token per line, read again when it changes. WHICHCAR_TOKENS adds further ones.",
)
@click.option(
    "--rate",
    type=click.IntRange(1),
    help="Maximum number of images per minute for each token (without tokens: for each address).",
)
@click.option("--reload-model", is_flag=True, help="Load the bundle again when its file changes, as SIGHUP does.")
@click.option(
    "--crop/--no-crop",
    default=None,
    help="Crop each image to its vehicle first, or take it as it is.  [default: crop if the model was trained on "
    "cropped images]",
)
@detector_option
def serve(
    model: str | None,
    host: str,
    port: int,
    workers: int,
    queue: int,
    batch_size: int,
    batch_wait: float,
    timeout: float,
    max_megabytes: float,
    tokens: Path | None,
    rate: int | None,
    reload_model: bool,
    crop: bool | None,
    detector: str | None,
    family: str | None,
) -> None:
    """Classify images that are sent over HTTP, from programs or from the page at /.

    MODEL is an experiment's folder, a checkpoint, a bundle, or a name that `whichcar models` lists; the default is the
    model that comes with whichcar. SIGTERM and Ctrl-C end the server once the requests it has accepted are answered.

    \b
    Examples:
      whichcar serve cars.whichcar
      whichcar serve cars.whichcar --host 0.0.0.0 --tokens tokens.txt --rate 600
      curl -F image=@street.jpg http://127.0.0.1:8000/predict
    """
    from whichcar.serving.serve import serve as serve_model
    from whichcar.serving.settings import MEGABYTE, ServerSettings

    settings = ServerSettings(
        host=host,
        port=port,
        workers=workers,
        batch_size=batch_size,
        batch_wait=batch_wait / 1000,
        queue=queue,
        timeout=timeout,
        max_bytes=int(max_megabytes * MEGABYTE),
        tokens=tokens,
        rate=rate,
        reload_model=reload_model,
    )
    serve_model(
        model, settings, crop, detector, family, lambda address, name: say(f"{name}: {address} (Ctrl-C stops it)")
    )
