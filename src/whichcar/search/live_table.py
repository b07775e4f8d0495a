"""Progress of a search on stderr: a live table on a terminal, elsewhere one line per trial; WHICHCAR_QUIET=1: off."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from whichcar.config.section import shown
from whichcar.environment import is_set
from whichcar.progress import clock, say_error
from whichcar.search.space import SweepSpec

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from whichcar.search.trial import Ended

REDRAW_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """A trial after `epoch` of at most `epochs`, with this value of the objective's metric (None: no epoch yet)."""

    number: int
    epoch: int
    epochs: int
    value: float | None
    seconds: float
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """The whole search: counts by outcome, best value, running trials, mean seconds of ended trials (None: no such)."""

    counts: Counter[str]
    trials: int
    best: int | None
    value: float | None
    rows: tuple[Row, ...]
    mean_seconds: float | None

    def seconds_left(self, parallel: int) -> float | None:
        """Estimate the time left from the mean run time of the ended trials."""
        if self.mean_seconds is None:
            return None
        ended = self.counts.total() - self.counts["running"]
        elapsed = sum(min(row.seconds, self.mean_seconds) for row in self.rows)
        return max(0.0, (self.trials - ended) * self.mean_seconds - elapsed) / parallel


class LiveTable:
    """Shows the progress of a search, as a context manager; draws in the thread that calls `show`."""

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._quiet = is_set("WHICHCAR_QUIET")
        self._live: Live | None = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        """Start the live table if stderr is a terminal."""
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; the last table stays visible."""
        if self._live is not None:
            with contextlib.suppress(OSError):  # the terminal is gone
                self._live.stop()

    def show(self, status: Status, last: bool = False) -> None:
        """Redraw the live table, at most twice a second unless it is the last time."""
        now = time.monotonic()
        if self._live is not None and (last or now - self._drawn >= REDRAW_SECONDS):
            self._drawn = now
            with contextlib.suppress(OSError):
                self._live.update(self._table(status), refresh=True)

    def ended(self, ended: Ended, row: Row, status: Status) -> None:
        """Report how a trial ended."""
        metric = self._spec.sweep.objective.metric
        if ended.outcome == "complete":
            outcome = f"{metric} {ended.value:.4f}"
        elif ended.outcome == "pruned":
            outcome = "pruned" if row.value is None else f"pruned after epoch {row.epoch}, {metric} {row.value:.4f}"
        else:
            outcome = f"failed: {ended.reason.strip().splitlines()[-1]}"
        values = ", ".join(f"{_short(name)} {_value(value)}" for name, value in row.values.items())
        self.say(f"trial {ended.number}: {outcome}, {clock(row.seconds)} ({values}); {self._summary(status)}")

    def say(self, line: str) -> None:
        """Write a line, above the live table if there is one."""
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.console.print(line, markup=False, highlight=False)
        elif not self._quiet:
            say_error(line)

    def _summary(self, status: Status) -> str:
        counts = status.counts
        parts = [f"{counts.total() - counts['running']}/{status.trials} done"]
        parts += [f"{counts[name]} {name}" for name in ("pruned", "failed") if counts[name]]
        if status.value is not None:
            parts.append(f"best {status.value:.4f} (trial {status.best})")
        left = status.seconds_left(self._spec.sweep.parallel)
        if left is not None:
            parts.append(f"{clock(left)} left")
        return ", ".join(parts)

    def _table(self, status: Status) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self._spec.name), caption=Text(self._summary(status)), title_justify="left")
        for name in ("trial", "epoch", self._spec.sweep.objective.metric, "time", "values"):
            table.add_column(name, justify="left" if name == "values" else "right")
        for row in status.rows:
            value = "" if row.value is None else f"{row.value:.4f}"
            values = ", ".join(f"{_short(name)} {_value(one)}" for name, one in row.values.items())
            table.add_row(str(row.number), f"{row.epoch}/{row.epochs}", value, clock(row.seconds), Text(values))
        if not status.rows and status.counts["running"]:
            table.add_row("", "", "", "", "waiting for trials of other processes")
        return table


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _value(value: Any) -> str:  # noqa: ANN401
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else shown(value)
