"""Interactive charts of an overview, the same for the page and for notebooks.

Plotly interprets names as markup, in which `<b>` is bold, so they are escaped.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from whichcar.data.explore.overview import Overview
from whichcar.data.split_names import SPLITS, VALIDATION
from whichcar.errors import extra
from whichcar.images.pixels import Pixels
from whichcar.pages.charts import BLUE, GREEN, GREY, HEIGHT, ORANGE, THEME
from whichcar.text import one_line, plural, shortened

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_POINTS = 2000  # in a chart of sizes
_FEW_YEARS = 8  # if the years span less, each has a label, and none lies between two years
_ROW = 18  # pixels per bar of a long chart
_COLOURS = {"train": BLUE, VALIDATION: GREEN, "test": ORANGE, "": GREY}
_ASPECTS = np.round(np.arange(0.25, 4, 0.1), 2)  # square images in the middle of a bar
_STRIP = 1 << 20  # pixels
_RGB = (("red", "#e05252"), ("green", "#3fa35b"), ("blue", BLUE))


def class_chart(overview: Overview) -> Figure:
    """Return a chart of the images of every class, by split, the largest class on top."""
    order = sorted(overview.classes, key=lambda name: (-overview.classes[name].total(), name))
    return _bars_by_split({name: overview.classes[name] for name in order})


def make_chart(overview: Overview) -> Figure:
    """Return a chart of the images of every make, by split, the largest on top; hovering shows the class count."""
    makes: dict[str, Counter[str]] = defaultdict(Counter)
    classes: Counter[str] = Counter()
    for name, parts in overview.names.items():
        makes[parts.make] += overview.classes[name]
        classes[parts.make] += 1
    order = sorted(makes, key=lambda make: (-makes[make].total(), make))
    return _bars_by_split({make: makes[make] for make in order}, [plural(classes[make], "class") for make in order])


def year_chart(overview: Overview) -> Figure:
    """Return a chart of the images of every year of manufacture; years without images are gaps."""
    images: Counter[int] = Counter()
    classes: Counter[int] = Counter()
    for name, parts in overview.names.items():
        if parts.year is not None:
            images[parts.year] += overview.classes[name].total()
            classes[parts.year] += 1
    years = sorted(images)
    texts = [f"{year}: {plural(images[year], 'image')}, {plural(classes[year], 'class')}" for year in years]
    figure = _columns(years, [images[year] for year in years], texts, "year")
    figure.update_traces(width=0.9)  # in years; by default, Plotly would fill the gap to the next year
    figure.update_xaxes(tickformat="d", **({"dtick": 1} if years and years[-1] - years[0] < _FEW_YEARS else {}))
    return figure


def size_chart(overview: Overview) -> Figure:
    """Return a chart of width against height, with a point per size, whose area grows with the number of images.

    If there are too many sizes, similar ones share a point.
    """
    width, height = overview.sizes
    step = 1
    points = Counter(zip(width.tolist(), height.tolist(), strict=True))
    while len(points) > MOST_POINTS:
        step *= 2
        points = Counter(zip((width // step * step).tolist(), (height // step * step).tolist(), strict=True))
    places = sorted(points, key=lambda place: -points[place])  # small points lie on large ones
    counts = np.array([points[place] for place in places])
    texts = [f"{_span(w, step)} x {_span(h, step)}: {plural(points[w, h], 'image')}" for w, h in places]
    marker = {
        "size": 5 + 35 * np.sqrt(counts / counts.max(initial=1)),
        "sizemode": "diameter",
        "color": BLUE,
        "opacity": 0.45,
        "line": {"width": 0},
    }
    xs, ys = ([place[way] + (step - 1) / 2 for place in places] for way in (0, 1))
    trace = {"type": "scatter", "mode": "markers", "x": xs, "y": ys, "marker": marker}
    figure = _figure([{**trace, "hovertext": texts, "hoverinfo": "text"}], "width in pixels", "height in pixels")
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(rangemode="tozero")
    return figure


def aspect_chart(overview: Overview) -> Figure:
    """Return a histogram of the images' aspect ratios, width / height; the outer bars are open-ended."""
    width, height = overview.sizes
    edges = _ASPECTS
    aspects = np.clip(width / np.maximum(height, 1), edges[0], edges[-1] - 1e-6)
    counts = np.histogram(aspects, edges)[0]
    spans = [f"{low:.2f} to {high:.2f}" for low, high in itertools.pairwise(edges)]
    spans[0], spans[-1] = f"below {edges[1]:.2f}", f"{edges[-2]:.2f} and more"
    texts = [f"{span}: {plural(count, 'image')}" for span, count in zip(spans, counts, strict=True)]
    figure = _columns(((edges[1:] + edges[:-1]) / 2).round(2).tolist(), counts.tolist(), texts, "width / height")
    filled = np.flatnonzero(counts)
    if len(filled):  # no empty sides
        figure.update_xaxes(range=[float(edges[max(0, filled[0] - 2)]), float(edges[min(len(counts), filled[-1] + 3)])])
    return figure


def brightness_chart(overview: Overview) -> Figure:
    """Return a histogram of the images' brightness, 0 (black) to 1 (white)."""
    brightness = np.frombuffer(overview.brightness, np.float32)[overview.readable]
    counts, edges = np.histogram(brightness, 50, (0, 1))
    spans = zip(itertools.pairwise(edges), counts, strict=True)
    texts = [f"{low:.2f} to {high:.2f}: {plural(count, 'image')}" for (low, high), count in spans]
    return _columns(((edges[1:] + edges[:-1]) / 2).round(3).tolist(), counts.tolist(), texts, "mean brightness")


def channel_chart(image: Pixels) -> Figure:
    """Return a chart of how often each value occurs in each channel of an image, (height, width, 3) uint8, RGB."""
    traces = []
    pixels = image.reshape(-1, 3)
    places = range(_STRIP, len(pixels), _STRIP)
    for channel, (name, colour) in enumerate(_RGB):
        # In strips, since NumPy needs eight bytes per pixel for counting.
        counts = np.sum([np.bincount(rows[:, channel], minlength=256) for rows in np.split(pixels, places)], axis=0)
        line = {"color": colour, "width": 1.5, "shape": "hvh"}
        traces.append({"type": "scatter", "mode": "lines", "name": name, "y": counts.tolist(), "line": line})
    figure = _figure(traces, "value", "pixels", legend=dict(_RGB))
    figure.update_layout(hovermode="x unified")
    return figure


def _bars_by_split(rows: dict[str, Counter[str]], notes: Sequence[str] = ()) -> Figure:
    """Return a chart of horizontal bars, the first on top, each stacked by split."""
    splits = [split for split in (*SPLITS, "") if any(counts[split] for counts in rows.values())]
    names = [_markup(name) for name in rows]
    traces = []
    for split in splits:
        texts = [
            f"{name}<br>{counts[split]:,} {split or 'images'} of {counts.total():,}{', ' + note if note else ''}"
            for name, counts, note in zip(names, rows.values(), notes or [""] * len(names), strict=True)
        ]
        values = [counts[split] for counts in rows.values()]
        trace = {"type": "bar", "orientation": "h", "x": values, "y": list(range(len(names))), "hovertext": texts}
        # Without splits, bars have the colour of the other charts; otherwise, images in no split are grey.
        colour = _COLOURS[split] if len(splits) > 1 or split else BLUE
        traces.append({**trace, "name": split or "images", "marker": {"color": colour}, "hoverinfo": "text"})
    legend = {split or "images": _COLOURS[split] for split in splits} if len(splits) > 1 else None
    figure = _figure(traces, "", "", legend, height=_ROW * len(names) + 90)
    figure.update_layout(barmode="stack", bargap=0.25, hovermode="closest")
    most = max((counts.total() for counts in rows.values()), default=0)
    figure.update_xaxes(side="top", tickangle=0, nticks=6, tickformat=",d", **({"dtick": 1} if most < 5 else {}))
    # Numbers, with names for ticks: as categories, names with the same markup would be one bar, and "2012" a number.
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(names))), ticktext=names, tickfont_size=11)
    figure.update_yaxes(range=[len(names) - 0.4, -0.6], showgrid=False)
    return figure


def _columns(places: Sequence[float], counts: Sequence[int], texts: Sequence[str], title: str) -> Figure:
    trace = {"type": "bar", "x": list(places), "y": list(counts), "marker": {"color": BLUE}}
    figure = _figure([{**trace, "hovertext": list(texts), "hoverinfo": "text"}], title, "images")
    if max(counts, default=0) < 5:  # no fractions of images
        figure.update_yaxes(dtick=1)
    return figure


def _figure(
    traces: Sequence[dict[str, Any]],
    x_title: str,
    y_title: str,
    legend: Mapping[str, str] | None = None,
    height: int = HEIGHT,
) -> Figure:
    """Return a figure; `legend` maps each name in it to its colour."""
    with extra("plotly, which draws the charts,", "check"):
        from plotly import graph_objects
    layout: dict[str, Any] = {"template": THEME, "height": height, "showlegend": False}
    layout |= {"xaxis": {"title": {"text": x_title}}, "yaxis": {"title": {"text": y_title}}}
    if legend:
        # On a narrow screen, Plotly's own legend takes several lines, which reduces the height of the bars.
        names = (f'<span style="color:{colour}">■</span> {name}' for name, colour in legend.items())
        place = {"x": 0, "xref": "container", "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top"}
        title = {"text": "&#160;&#160; ".join(names), "font": {"size": 13}, "pad": {"t": 8, "l": 10}}
        layout |= {"margin": {"l": 10, "r": 10, "t": 60, "b": 10}, "title": title | place}
    return graph_objects.Figure(list(traces), layout)


def _span(start: int, step: int) -> str:
    return f"{start}" if step == 1 else f"{start}–{start + step - 1}"


def _markup(name: str) -> str:
    # In a notebook with MathJax, Plotly would treat text between two dollar signs as a formula.
    return escape(shortened(one_line(name)), quote=False).replace("$", "&#36;")
