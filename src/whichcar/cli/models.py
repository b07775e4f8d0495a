"""`whichcar models`: the models that images can be classified with at once."""

from __future__ import annotations

import json
from typing import Any

import click

from whichcar.cli.render import columns
from whichcar.cli.streams import say, say_lines
from whichcar.errors import CheckpointError
from whichcar.text import one_line


@click.command()
@click.option("--card", metavar="NAME", help="Print the model card of this model: its data, accuracy, limits and use.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def models(card: str | None, as_json: bool) -> None:
    """List the models that come with whichcar, for `predict --model NAME`.

    \b
    Examples:
      whichcar models
      whichcar models --card cars196
    """
    if card is not None and as_json:
        raise click.UsageError("--card and --json exclude each other; choose one")
    from whichcar.inference.bundle import SUFFIX, read_bundle
    from whichcar.inference.released import find_model, released

    if card is not None:
        text = read_bundle(released().get(card) or find_model(card)).card
        if not text:
            raise CheckpointError(f"{card}: holds no model card; give the {SUFFIX} file of the same export")
        say(text.rstrip("\n"))
        return
    found: list[dict[str, Any]] = []
    for name, path in released().items():
        bundle = read_bundle(path)
        about = {"name": name, "classes": len(bundle.class_names), "image_size": bundle.image_size}
        found.append(about | {"precision": bundle.precision, "bytes": path.stat().st_size, "licence": bundle.licence})
    if as_json:
        say_lines(json.dumps(model, ensure_ascii=False) for model in found)
    elif found:
        rows = [("name", "classes", "image size", "precision", "MB", "licence")]
        for model in found:
            name, classes, (height, width), precision, size, licence = model.values()
            rows.append((name, str(classes), f"{height}x{width}", precision, f"{size / 1e6:.1f}", one_line(licence)))
        say_lines(columns(rows))
    else:
        say("no model comes with this installation; name an experiment or a bundle with --model")
