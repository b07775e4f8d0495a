"""`whichcar config`: check a settings file, or list all settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whichcar.cli.options import FILE, overrides_option
from whichcar.cli.render import columns
from whichcar.cli.streams import say_lines

if TYPE_CHECKING:
    from whichcar.config.table import Setting


@click.command()
@click.argument("file", type=FILE, required=False)
@overrides_option
def config(file: Path | None, overrides: tuple[str, ...]) -> None:
    """Check a settings file and print every setting with its value and where the value comes from.

    FILE is a settings file or an experiment's folder. Without FILE, all settings are listed with type, default, limits
    and meaning, as a Markdown table.

    \b
    Examples:
      whichcar config
      whichcar config experiments/exp_003
      whichcar config experiments/exp_003/config.yml
      whichcar config experiments/exp_003/config.yml --set fit.epochs=3 --set data.batch_size=16
    """
    if file is None:
        if overrides:
            raise click.UsageError("--set needs the FILE whose settings it overrides")
        from whichcar.config.table import describe_settings

        say_lines(render_setting_table(describe_settings()))
        return
    from whichcar.config.load import settings_with_origin

    say_lines(render_settings(settings_with_origin(file, overrides)))


def render_settings(settings: Iterable[tuple[str, object, str]]) -> Iterator[str]:
    """Yield every setting with its value, as a file would have it, and before it where it comes from."""
    from whichcar.config.section import as_yaml

    yield from columns([(key, origin, as_yaml(value)) for key, value, origin in settings])


def render_setting_table(settings: Iterable[Setting]) -> Iterator[str]:
    """Yield all settings as a Markdown table."""
    yield "| setting | kind | default | limits | meaning |"
    yield "|---|---|---|---|---|"
    for setting in settings:
        name = f"`{setting.name}`"
        yield f"| {' | '.join([name, *(cell.replace('|', chr(92) + '|') for cell in setting[1:])])} |"
