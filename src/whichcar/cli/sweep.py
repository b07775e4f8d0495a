"""`whichcar sweep`: search for hyperparameters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whichcar.cli.options import FILE, overrides_option
from whichcar.cli.streams import say_lines
from whichcar.errors import Interrupted
from whichcar.files import TRIALS
from whichcar.text import shell_command

if TYPE_CHECKING:
    from whichcar.search.driver import Swept


@click.command()
@click.argument("file", type=FILE)
@overrides_option
@click.option(
    "--storage",
    help="Study to share: FILE.db, FILE.journal (on a shared disk) or postgresql://….  "
    "[default: study.db next to the trials]",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Run trials on a Ray cluster: auto (that of this machine) or HOST:PORT of its head.",
)
@click.option("--trials", type=click.IntRange(1), help="Total number of trials (overrides FILE).")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), help="Total minutes of all trials (overrides FILE)."
)
@click.option("--parallel", type=click.IntRange(1), help="Number of parallel trials (overrides FILE).")
def sweep(
    file: Path,
    overrides: tuple[str, ...],
    storage: str | None,
    ray: str | None,
    trials: int | None,
    minutes: float | None,
    parallel: int | None,
) -> None:
    """Search the space that FILE describes for the best hyperparameters; trials are written to NAME/ for NAME.yml.

    Interrupted or killed at any moment, the search resumes when the command is run again; once the budget is spent, it
    does nothing until the budget is raised, in FILE or here. Several processes, also on other machines, share the
    trials of one --storage. With --ray, trials run on the nodes of a Ray cluster, which must share the disk of FILE and
    the images under the same path. A search started with --ray can be resumed without it, and vice versa.

    \b
    Examples:
      whichcar sweep experiments/sweeps/fast.yml
      whichcar sweep experiments/sweeps/fast.yml --set model.weights=data/resnet50_notop.h5
      whichcar sweep experiments/sweeps/fast.yml --trials 80 --parallel 2
      whichcar sweep experiments/sweeps/fast.yml --storage postgresql://user@host/studies
      whichcar sweep experiments/sweeps/fast.yml --ray 10.0.0.5:6379 --storage /shared/fast.journal
    """
    from whichcar.search.driver import command_words
    from whichcar.search.driver import sweep as search

    given = {"budget.trials": trials, "budget.minutes": minutes, "parallel": parallel}
    limits = {name: value for name, value in given.items() if value is not None}
    try:
        swept = search(file, overrides, storage, limits=limits, ray=ray)
        say_lines(render_swept(swept))
    except (Interrupted, KeyboardInterrupt) as error:
        command = ["whichcar", *command_words(file, overrides, storage, limits), *(["--ray", ray] if ray else [])]
        reason = str(error) or f"{file}: stopped at once; trials resume from what they saved last"
        raise Interrupted(f"{reason}\nresume with: {shell_command(command)}") from None


def render_swept(swept: Swept) -> Iterator[str]:
    """Yield the best trial of a search and the next command."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in swept.counts.items())
    yield f"{swept.folder}: {counts or 'no trial'}"
    if not swept.new:
        spent = "the budget is spent; raise it in the file, or with --trials or --minutes, to continue"
        yield f"  nothing to do: {'every combination of the grid has been tried' if swept.exhausted else spent}"
    if swept.best is not None:
        yield f"  best: trial {swept.best}, {swept.metric} {swept.value:.4f}"
    yield f"table   {swept.folder / TRIALS}"
    if swept.report:
        yield f"report  {swept.report}"
    if swept.config:
        yield f"next: {shell_command(['whichcar', 'train', swept.config])}"
