"""Small line charts as SVG in a page: in the page's colours, light or dark, sharp at any size, without a script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _HEIGHT = 360, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 338, 10, 228  # of the area with the lines
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)
_GRID_LINES = 6  # at most, in one direction


@dataclass(frozen=True, slots=True)
class Line:
    """A line through shares (x, y), 0..1; with `weights`, 0..1, each point has a dot of that area."""

    name: str
    points: Sequence[tuple[float, float]]
    weights: Sequence[float] = ()


def line_chart(lines: Sequence[Line], x: str, y: str, diagonal: bool = False) -> Markup:
    """Return up to four lines as a chart with a legend.

    Args:
        lines: the lines.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        diagonal: also draw the line where x and y are equal.
    """
    chart = _Chart([point for line in lines for point in line.points] + ([(0.0, 0.0)] if diagonal else []))
    parts = [chart.grid(), _text((_LEFT + _RIGHT) / 2, _HEIGHT - 6, x)]
    middle = (_TOP + _BOTTOM) / 2
    parts.append(Markup('<g transform="rotate(-90 12 {})">{}</g>').format(middle, _text(12, middle, y)))
    parts += [chart.path("ideal", [(0, 0), (1, 1)])] if diagonal else []
    parts += [chart.line(f"line{number}", line) for number, line in enumerate(lines, 1)]
    names = [
        Markup("<span class=line{}>{}</span>").format(number, line.name)
        for number, line in enumerate(lines, 1)
        if len(lines) > 1
    ]
    return Markup(
        '<figure class=lines><svg viewBox="0 0 {} {}" role=img aria-label="{}, by {}">{}</svg>'
        "<figcaption>{}</figcaption></figure>"
    ).format(_WIDTH, _HEIGHT, y, x, Markup("").join(parts), Markup(" ").join(names))


class _Chart:
    """A plot area from round numbers below all points to 1."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self._ticks = _ticks([point[0] for point in points]), _ticks([point[1] for point in points])

    def place(self, x: float, y: float) -> tuple[float, float]:
        across, up = ((value - ticks[0]) / (1 - ticks[0]) for value, ticks in zip((x, y), self._ticks, strict=True))
        return round(_LEFT + across * (_RIGHT - _LEFT), 1), round(_BOTTOM - up * (_BOTTOM - _TOP), 1)

    def grid(self) -> Markup:
        across, up = self._ticks
        lines = [self.path("grid", [(x, up[0]), (x, 1)]) for x in across]
        lines += [self.path("grid", [(across[0], y), (1, y)]) for y in up]
        lines += [_text(self.place(x, 0)[0], _BOTTOM + 18, f"{x:.0%}") for x in across]
        lines += [_text(_LEFT - 6, self.place(0, y)[1] + 4, f"{y:.0%}", "end") for y in up]
        return Markup("").join(lines)

    def line(self, name: str, line: Line) -> Markup:
        dots = [
            Markup('<circle class={} cx="{}" cy="{}" r="{}"/>').format(name, *self.place(*point), 2 + 7 * weight**0.5)
            for point, weight in zip(line.points, line.weights, strict=bool(line.weights))
        ]
        return Markup("").join([self.path(name, line.points), *dots])

    def path(self, name: str, points: Iterable[tuple[float, float]]) -> Markup:
        places = " ".join(f"{x:g},{y:g}" for x, y in (self.place(*point) for point in points))
        return Markup('<polyline class={} points="{}"/>').format(name, places)


def _ticks(values: Sequence[float]) -> list[float]:
    """Return round numbers, from one that is at most the least value to 1."""
    least = max(0.0, min(values, default=0.0))
    for step in _STEPS:
        first = int(least / step + 1e-9)
        count = round(1 / step) - first
        if 1 <= count < _GRID_LINES:
            return [round(step * number, 4) for number in range(first, first + count + 1)]
    return [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] if least < 1 else [0.99, 1.0]


def _text(x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor={}>{}</text>').format(round(x, 1), round(y, 1), anchor, text)
