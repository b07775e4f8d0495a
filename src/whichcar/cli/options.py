"""Options that several commands share, and those made from settings, so that a setting is written once."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)

overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting (repeatable)."
)
crop_option = click.option(
    "--crop", is_flag=True, help="Crop each image to its vehicle first, with the crop settings of the training images."
)
detector_option = click.option(
    "--detector",
    metavar="NAME|PATH.onnx",
    help="Detector to crop images with.  [default: the detector used for the training images]",
)
model_option = click.option(
    "--model",
    metavar="EXPERIMENT|BUNDLE|NAME",
    help="Experiment, checkpoint, bundle (.whichcar or .onnx), or a name that `whichcar models` lists.",
)
ray_option = click.option(
    "--ray",
    metavar="ADDRESS",
    help="Work on this Ray cluster: auto, or HOST:PORT of its head. Source and target may then be s3:// addresses, and "
    "tar files in the source are shards of images.",
)
track_option = click.option(
    "--track",
    metavar="SERVICE",
    help="Also log to a tracking service: mlflow (MLFLOW_TRACKING_URI is its address).",
)


class CropCommand(click.Command):
    """Has an option for each setting of the crop stage, made when the options are first asked for."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the two arguments, the settings, then the other options."""
        own = super().get_params(ctx)
        return [*own[:2], *_crop_options(), *own[2:]]


class DetectorCommand(click.Command):
    """Has the crop stage's --family after --detector."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own options, and that one."""
        own = super().get_params(ctx)
        place = [option.name for option in own].index("detector") + 1
        return [*own[:place], *(option for option in _crop_options() if option.name == "family"), *own[place:]]


@functools.cache
def _crop_options() -> list[click.Parameter]:
    from whichcar.config.crop import CropSettings

    def listed(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
        return tuple(names(value))

    options: list[click.Parameter] = []
    kinds = get_type_hints(CropSettings)
    for field in dataclasses.fields(CropSettings):
        name, default = field.name, field.default
        shown: dict[str, Any] = {
            "help": _sentence(field.metadata["description"]),
            "show_default": default is not None,
        }
        if isinstance(default, tuple):
            text = f"{field.metadata['description']}, separated by commas"
            shown |= {"help": _sentence(text), "default": ",".join(default), "callback": listed}
        else:
            forms = (kinds[name], *get_args(kinds[name]))  # `Literal[...]`, or `Literal[...] | None`
            words = [word for form in forms for word in get_args(form) if isinstance(word, str)]
            kind = click.Choice(words) if words else str if default is None else type(default)
            shown |= {"default": default, "type": kind}
        options.append(click.Option([f"--{name.replace('_', '-')}"], **shown))
    return options


def names(text: str) -> list[str]:
    """Return the names in a list that is separated by commas."""
    return [name for name in map(str.strip, text.split(",")) if name]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
