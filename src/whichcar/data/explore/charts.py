"""What an overview counted, as charts one can hover over: the same for the page and for notebooks.

Backgrounds are transparent and lettering is grey, so that they can be read on white and on black. Names stand in
plotly's own markup, where `<b>` would be taken for bold: they are escaped.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from whichcar.data.explore.overview import Overview
from whichcar.data.split_names import SPLITS, VALIDATION
from whichcar.errors import MissingExtraError
from whichcar.text import one_line, plural

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

STYLE = Path(__file__).with_name("charts.css")
MOST_POINTS = 2000  # in a chart of sizes
_LONGEST = 60  # characters of a name
_ROW = 18  # pixels a bar of a long chart
_COLOURS = {
    "train": "#4c8bd6",
    VALIDATION: "#3fa796",
    "test": "#e08a3c",
    "": "#8c8c8c",
}  # distinguished by the colour-blind
_PARTS = (*SPLITS, "")
_GREY, _LINE = "#808080", "rgba(128,128,128,.25)"
_AXIS = {"gridcolor": _LINE, "linecolor": _LINE, "zeroline": False, "automargin": True, "tickfont": {"size": 12}}
# The browser itself refuses whatever is not in the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_ASPECTS = np.round(np.arange(0.25, 4, 0.1), 2)  # square images in the middle of a bar
_STRIP = 1 << 20  # pixels
_RGB = (("red", "#e05252"), ("green", "#3fa35b"), ("blue", "#4c8bd6"))


def class_chart(overview: Overview) -> Figure:
    """Return the images of every class, by part, the largest class on top."""
    order = sorted(overview.classes, key=lambda name: (-overview.classes[name].total(), name))
    return _bars_by_part({name: overview.classes[name] for name in order})


def make_chart(overview: Overview) -> Figure:
    """Return the images of every make, by part, the largest on top; hovering tells how many classes it has."""
    makes: dict[str, Counter[str]] = defaultdict(Counter)
    classes: Counter[str] = Counter()
    for name, parts in overview.names.items():
        makes[parts.make] += overview.classes[name]
        classes[parts.make] += 1
    order = sorted(makes, key=lambda make: (-makes[make].total(), make))
    return _bars_by_part({make: makes[make] for make in order}, [plural(classes[make], "class") for make in order])


def year_chart(overview: Overview) -> Figure:
    """Return the images of every year of manufacture; years without any are gaps."""
    pictures: Counter[int] = Counter()
    classes: Counter[int] = Counter()
    for name, parts in overview.names.items():
        if parts.year is not None:
            pictures[parts.year] += overview.classes[name].total()
            classes[parts.year] += 1
    years = sorted(pictures)
    told = [f"{year}: {plural(pictures[year], 'image')}, {plural(classes[year], 'class')}" for year in years]
    figure = _columns(years, [pictures[year] for year in years], told, "year")
    figure.update_xaxes(tickformat="d")
    return figure


def size_chart(overview: Overview) -> Figure:
    """Return width against height, a point for images of one size, its area growing with their number.

    Where there are too many sizes, those near each other are one point.
    """
    wide, high = _sizes(overview)
    step = 1
    points = Counter(zip(wide.tolist(), high.tolist(), strict=True))
    while len(points) > MOST_POINTS:
        step *= 2
        cells = zip((wide // step * step).tolist(), (high // step * step).tolist(), strict=True)
        points = Counter(cells)
    places = sorted(points, key=lambda place: -points[place])  # small points lie on large ones
    counts = np.array([points[place] for place in places])
    told = [f"{_span(w, step)} x {_span(h, step)}: {plural(points[w, h], 'image')}" for w, h in places]
    marker = {
        "size": 5 + 35 * np.sqrt(counts / counts.max(initial=1)),
        "sizemode": "diameter",
        "color": _COLOURS["train"],
        "opacity": 0.45,
        "line": {"width": 0},
    }
    xs, ys = ([place[way] + (step - 1) / 2 for place in places] for way in (0, 1))
    trace = {"type": "scatter", "mode": "markers", "x": xs, "y": ys, "marker": marker}
    figure = _figure([{**trace, "hovertext": told, "hoverinfo": "text"}], "width in pixels", "height in pixels")
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(rangemode="tozero")
    return figure


def aspect_chart(overview: Overview) -> Figure:
    """Return how many images there are of each aspect, width by height; the outer bars hold all that is beyond."""
    wide, high = _sizes(overview)
    edges = _ASPECTS
    aspects = np.clip(wide / np.maximum(high, 1), edges[0], edges[-1] - 1e-6)
    counts = np.histogram(aspects, edges)[0]
    spans = [f"{low:.2f} to {high:.2f}" for low, high in itertools.pairwise(edges)]
    spans[0], spans[-1] = f"below {edges[1]:.2f}", f"{edges[-2]:.2f} and more"
    told = [f"{span}: {plural(count, 'image')}" for span, count in zip(spans, counts, strict=True)]
    figure = _columns(((edges[1:] + edges[:-1]) / 2).round(2).tolist(), counts.tolist(), told, "width by height")
    there = np.flatnonzero(counts)
    if len(there):  # no empty sides
        figure.update_xaxes(range=[float(edges[max(0, there[0] - 2)]), float(edges[min(len(counts), there[-1] + 3)])])
    return figure


def brightness_chart(overview: Overview) -> Figure:
    """Return how many images are how bright, 0 black to 1 white."""
    light = np.frombuffer(overview.brightness, np.float32)[overview.readable]
    counts, edges = np.histogram(light, 50, (0, 1))
    spans = zip(itertools.pairwise(edges), counts, strict=True)
    told = [f"{low:.2f} to {high:.2f}: {plural(count, 'image')}" for (low, high), count in spans]
    return _columns(((edges[1:] + edges[:-1]) / 2).round(3).tolist(), counts.tolist(), told, "mean brightness")


def channel_chart(image: npt.NDArray[np.uint8]) -> Figure:
    """Return how often each value occurs in the three channels of an image, (height, width, 3) uint8, RGB."""
    traces = []
    pixels = image.reshape(-1, 3)
    places = range(_STRIP, len(pixels), _STRIP)
    for channel, (name, colour) in enumerate(_RGB):
        # In strips: numpy counts eight bytes a pixel.
        parts = [np.bincount(rows[:, channel], minlength=256) for rows in np.split(pixels, places)]
        counts = np.sum(parts, axis=0)
        line = {"color": colour, "width": 1.5, "shape": "hvh"}
        traces.append({"type": "scatter", "mode": "lines", "name": name, "y": counts.tolist(), "line": line})
    figure = _figure(traces, "value", "pixels", legend=dict(_RGB))
    figure.update_layout(hovermode="x unified")
    return figure


def page_head() -> str:
    """Return what the head of a page with charts holds: plotly.js itself, 5 MB, and the look of charts.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise _missing() from error
    style = STYLE.read_text(encoding="utf-8")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    return f"{policy}<style>\n{style}</style><script>{get_plotlyjs()}</script>"


def restyle(figure: Figure, height: int = 320) -> Figure:
    """Give a figure that another package made the look of these charts, and return it."""
    figure.update_layout(**_look(height), title=None, legend_title=None)
    figure.update_xaxes(**_AXIS, exponentformat="none")
    figure.update_yaxes(**_AXIS, exponentformat="none")
    return figure


def as_html(figure: Figure, name: str) -> str:
    """Return a chart as an element for a page that holds `plotly_script`, as wide as there is room.

    `name` is the element's, once in a page.
    """
    told: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"chart-{name}",
        default_height=f"{figure.layout.height}px",
        config={"responsive": True, "displayModeBar": False},
    )
    return f"<div class=chart>{told}</div>"


def _bars_by_part(rows: dict[str, Counter[str]], notes: Sequence[str] = ()) -> Figure:
    """Return lying bars, the first on top, each of stacked parts."""
    there = [part for part in _PARTS if any(counts[part] for counts in rows.values())]
    names = [_markup(name) for name in rows]
    traces = []
    for part in there:
        told = [
            f"{name}<br>{counts[part]:,} {part or 'images'} of {counts.total():,}{', ' + note if note else ''}"
            for name, counts, note in zip(names, rows.values(), notes or [""] * len(names), strict=True)
        ]
        values = [counts[part] for counts in rows.values()]
        trace = {"type": "bar", "orientation": "h", "x": values, "y": list(range(len(names))), "hovertext": told}
        # Where there are no parts, bars are as in the other charts; grey are images in no part next to others.
        colour = _COLOURS[part if len(there) > 1 or part else "train"]
        traces.append({**trace, "name": part or "images", "marker": {"color": colour}, "hoverinfo": "text"})
    legend = {part or "images": _COLOURS[part] for part in there} if len(there) > 1 else None
    figure = _figure(traces, "", "", legend, height=_ROW * len(names) + 90)
    figure.update_layout(barmode="stack", bargap=0.25, hovermode="closest")
    most = max((counts.total() for counts in rows.values()), default=0)
    figure.update_xaxes(side="top", tickangle=0, nticks=6, tickformat=",d", **({"dtick": 1} if most < 5 else {}))
    # Numbers, with names for ticks: as categories, names equal in markup would be one bar, and "2012" a number.
    ticks: dict[str, Any] = {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": names,
        "tickfont": {"size": 11},
    }
    figure.update_yaxes(**ticks, range=[len(names) - 0.4, -0.6], showgrid=False, automargin=True)
    return figure


def _columns(places: Sequence[float], counts: Sequence[int], told: Sequence[str], title: str) -> Figure:
    trace = {"type": "bar", "x": list(places), "y": list(counts), "marker": {"color": _COLOURS["train"]}}
    figure = _figure([{**trace, "hovertext": list(told), "hoverinfo": "text"}], title, "images")
    if max(counts, default=0) < 5:  # no halves of images
        figure.update_yaxes(dtick=1)
    return figure


def _figure(
    traces: Sequence[dict[str, Any]], across: str, up: str, legend: Mapping[str, str] | None = None, height: int = 320
) -> Figure:
    """Return a figure; `legend` has the colour of each name in it."""
    try:
        from plotly import graph_objects
    except ImportError as error:
        raise _missing() from error
    # plotly's own legend is several lines on a telephone, and takes them from the bars.
    told = "&#160;&#160; ".join(
        f'<span style="color:{colour}">■</span> {name}' for name, colour in (legend or {}).items()
    )
    place = {"x": 0, "xref": "container", "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top"}
    return graph_objects.Figure(
        list(traces),
        {
            **_look(height),
            "margin": {"l": 10, "r": 10, "t": 60 if legend else 20, "b": 10},
            "showlegend": False,
            "title": {"text": told, "font": {"size": 13}, "pad": {"t": 8, "l": 10}, **place},
            "xaxis": {**_AXIS, "title": {"text": across}},
            "yaxis": {**_AXIS, "title": {"text": up}},
        },
    )


def _look(height: int) -> dict[str, Any]:
    return {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": _GREY, "family": "system-ui, sans-serif"},
        "margin": {"l": 10, "r": 10, "t": 20, "b": 10},
        "height": height,
        "bargap": 0.08,
        "dragmode": False,
    }


def _sizes(overview: Overview) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    there = overview.readable
    wide, high = (np.frombuffer(side, np.uint32).astype(np.int64) for side in (overview.width, overview.height))
    return wide[there], high[there]


def _span(start: int, step: int) -> str:
    return f"{start}" if step == 1 else f"{start}–{start + step - 1}"


def _markup(name: str) -> str:
    # A notebook may have MathJax, for which plotly would take what stands between two dollars.
    return escape(_shortened(one_line(name)), quote=False).replace("$", "&#36;")


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _missing() -> MissingExtraError:
    return MissingExtraError("plotly, which draws the charts,", "check")
