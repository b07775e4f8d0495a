"""Progress bars in one style, on stderr: items done, rate, time left and a few values.

On a terminal a bar moves; elsewhere (a log file, CI) one line appears about every ten seconds and one at the end.
`WHICHCAR_QUIET=1` switches both off.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Self, TypeVar

from whichcar.environment import is_set

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0
SECONDS_OF_RATE = 30.0  # the rate covers the last half minute, so that a slow start is soon forgotten


def track(items: Iterable[Item], label: str, total: int | None = None, unit: str = "images") -> Iterator[Item]:
    """Yield the items and show progress; `total` is the number of items if they have no length."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Bar(label, total, unit) as bar:
        for item in items:
            yield item
            bar.update()


class Bar:
    """A progress bar that is updated by hand: `with Bar("training", total) as bar: bar.update(32, loss=0.5)`.

    `update` may be called from several threads.
    """

    def __init__(
        self, label: str, total: int | None = None, unit: str = "images", stays: bool = True, done: int = 0
    ) -> None:
        """Describe the work.

        Args:
            label: name of the work.
            total: amount of work; None if unknown.
            unit: what is counted.
            stays: whether to leave a line when the work ends; false if the work itself writes one.
            done: how much of `total` was done before; it does not count towards the rate or the time left.
        """
        self.label = label
        self.total = total
        self.unit = unit
        self.stays = stays
        self.done = self._before = done
        self._marks: deque[tuple[float, int]] = deque()  # (time, done), at most one per second
        self._shown: dict[str, float | str] = {}
        self._lock = threading.Lock()
        self._quiet = is_set("WHICHCAR_QUIET") or total == 0  # an empty bar is not shown
        self._rich: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        """Start the clock and show the bar."""
        self._start = self._last_line = time.monotonic()
        self._marks.append((self._start, self.done))
        if not self._quiet and sys.stderr.isatty():
            self._rich = _rich_bar(self.label, self.total, self.stays, self.done)
        return self

    def update(self, n: int = 1, **shown: float | str) -> None:
        """Count `n` more as done and show these values, such as `loss=0.5`, from now on."""
        with self._lock:
            self.done += n
            self._shown.update(shown)
            now = time.monotonic()
            self._mark(now)
            if self._rich is not None:
                progress, task = self._rich
                progress.update(task, completed=self.done, text=self._text(now))
            elif not self._quiet and now - self._last_line >= SECONDS_BETWEEN_LINES:
                self._last_line = now
                say_error(f"{self.label}: {self._text(now)}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Show the total, also after an error, unless the error came before anything was done."""
        text = self._text(time.monotonic(), ended=True)
        if self._rich is not None:
            progress, task = self._rich
            progress.update(task, completed=self.done, text=text)
            with contextlib.suppress(OSError):  # the terminal is gone
                progress.stop()
        elif self.stays and not self._quiet and (self.done != self._before or kind is None):
            say_error(f"{self.label}: {text}")

    def _text(self, now: float, ended: bool = False) -> str:
        """Return a text such as `640/6515 images, 34 images/s, 2:53 left, loss 1.234`."""
        since, before = (self._start, self._before) if ended else self._marks[0]
        rate = (self.done - before) / max(now - since, 1e-6)
        parts = [f"{self.done}" if self.total is None else f"{self.done}/{self.total}"]
        is_one = (self.total or self.done) == 1
        parts[0] += f" {re.sub('(?<=ch)es$|s$', '', self.unit) if is_one else self.unit}"
        if rate > 0:
            parts.append(f"{_number(rate)} {self.unit}/s")
        if ended:
            parts.append(f"{clock(now - self._start)} in all")
        elif rate > 0 and self.total is not None:
            parts.append(f"{clock(max(0, self.total - self.done) / rate)} left")
        parts += [
            f"{name} {shown if isinstance(shown, str) else _number(shown)}" for name, shown in self._shown.items()
        ]
        return ", ".join(parts)

    def _mark(self, now: float) -> None:
        if now - self._marks[-1][0] >= 1:
            self._marks.append((now, self.done))
        while len(self._marks) > 1 and now - self._marks[1][0] >= SECONDS_OF_RATE:
            self._marks.popleft()


def _rich_bar(label: str, total: int | None, stays: bool, done: int) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(stderr=True),
        transient=not stays,
        redirect_stdout=False,  # rows for a file would be printed on standard error
    )
    progress.start()
    return progress, progress.add_task(escape(label), total=total, completed=done, text="")


def say_error(line: str) -> None:
    """Print a line on standard error, as far as that can be written: a full disk below a log ends no work."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """Return a duration such as `2:53` or `1:02:53`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.4g}"
