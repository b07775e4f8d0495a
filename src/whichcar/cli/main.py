"""The command `whichcar`: its sub-commands in the order of the work, its exit status, and how errors are printed.

Each sub-command has a module of its own. What a stage needs is imported inside its handler, so that `whichcar --help`
loads nothing heavy.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

import click

from whichcar.cli import (
    cache,
    check,
    compare,
    config,
    crop,
    demo,
    evaluate,
    explore,
    export,
    fetch,
    models,
    new,
    predict,
    serve,
    split,
    sweep,
    train,
)
from whichcar.cli.streams import described, prepare_streams
from whichcar.environment import VARIABLES
from whichcar.errors import Interrupted, WhichcarError
from whichcar.progress import say_error
from whichcar.version import VERSION

INTERRUPTED = 130
MISTAKE = 2


def run(arguments: Sequence[str]) -> int:
    """Run the command with these arguments and return its exit status."""
    try:
        prepare_streams()
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_LogHandler()])
        status = whichcar.main(list(arguments), prog_name="whichcar", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        say_error("\n".join(_refusal(error)))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say_error("interrupted")
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
    """Yield the usage of the command and what is wrong with the arguments, in the form of all other errors."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        yield error.ctx.get_usage()
        yield f"Try '{error.ctx.command_path} --help' for help.\n"
    yield f"error: {error.format_message()}"


class _LogHandler(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at the time, which puts lines above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Group(click.Group):
    """Knows aliases, and lists the commands in the order of the work, not of the alphabet."""

    aliases = {"look": "explore"}  # noqa: RUF012  (never changed)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        whole = 1000  # click would truncate each summary at the end of its line
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(whole)) for name, command in self.commands.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Environment variables"):
            formatter.write_dl(list(VARIABLES.items()))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="whichcar")
def whichcar() -> None:
    """Identify make, model and year of the vehicles in an image.

    \b
    Try it on synthetic cars, in a few minutes:
      whichcar demo
    Classify a photo:
      whichcar predict photo.jpg
    With your own images, one stage after the other:
      whichcar split data data/car_dataset_labels.csv data/car_ims_v1
      whichcar crop data/car_ims_v1 data/car_ims_v2
      whichcar new experiments/mine --data data/car_ims_v2
      whichcar train experiments/mine
      whichcar evaluate experiments/mine
      whichcar predict experiments/mine image.jpg
      whichcar export experiments/mine
      whichcar serve experiments/mine/mine.whichcar
    """


for _command in (
    fetch.fetch,
    check.check,
    split.split,
    explore.explore,
    crop.crop,
    crop.detectors,
    config.config,
    cache.cache,
    new.new,
    train.train,
    sweep.sweep,
    evaluate.evaluate,
    predict.predict,
    models.models,
    compare.compare,
    export.export,
    serve.serve,
    demo.demo,
):
    whichcar.add_command(_command)
