"""Describe a folder of images on one self-contained page that needs no network: explore.html."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from whichcar.data.boxes import read_boxes, table_of
from whichcar.data.dataset import collect
from whichcar.data.explore import charts, galleries
from whichcar.data.explore.overview import Overview, overview_of
from whichcar.data.split_names import SPLITS
from whichcar.errors import ImageError
from whichcar.files import check_writable, system_errors
from whichcar.images.read import read_image
from whichcar.pages.charts import plotly_script
from whichcar.pages.render import write_page
from whichcar.pages.thumbnails import Figure
from whichcar.records import Crop
from whichcar.taxonomy import are_vehicles
from whichcar.text import plural

FILE = "explore.html"

_UNWRITABLE = ("cannot be written", "name another place with --output FILE")
_LISTED = 100  # files in a list, at most
_PAIRS = 30
_CROPS = 8


def explore(
    data: str | Path, labels: str | Path | None = None, output: str | Path | None = None, seed: int = 0
) -> Path:
    """Write a page about a folder of images and return its path.

    It shows numbers, classes, makes and years if the classes are vehicles, sizes, aspect ratios, brightness, a sample,
    one image as an array, crops of a folder written by `crop`, the brightest, darkest, largest and smallest images,
    copies, and unreadable files.

    Args:
        data: a folder with a label file, a split, one folder per class, or images only.
        labels: the label file (default: car_dataset_labels.csv in `data`, unless its splits contain class folders).
        output: the page (default: explore.html in `data`).
        seed: random seed for the sampled images.

    Raises:
        DataError: there are no images, the labels cannot be read, or the page cannot be written.
        MissingExtraError: plotly is not installed.
    """
    data, path = Path(data), Path(output) if output else Path(data) / FILE
    plotly = plotly_script()  # raises before the work begins, as does the next line
    with system_errors(path, *_UNWRITABLE):
        check_writable(path)
    overview = overview_of(collect(data, Path(labels) if labels else None))
    with system_errors(path, *_UNWRITABLE):
        return write_page(path, "explore", data.resolve().name, plotly=plotly, **_content(overview, seed))


look = explore  # its earlier name


def _content(overview: Overview, seed: int) -> dict[str, Any]:
    years = sum(1 for name in overview.names.values() if name.year is not None)
    entries = overview.collection.entries
    return {
        "numbers": numbers(overview),
        "charts": {
            "class": charts.class_chart(overview) if overview.classes else None,
            "make": charts.make_chart(overview) if are_vehicles(list(overview.classes)) else None,
            "year": charts.year_chart(overview) if years else None,
            "width": charts.size_chart(overview),
            "aspect": charts.aspect_chart(overview),
            "brightness": charts.brightness_chart(overview),
        },
        "without_year": len(overview.classes) - years,
        "readable": len(overview.readable),
        "seed": seed,
        "samples": galleries.samples(overview, seed=seed),
        "array": _array(overview, seed),
        "crops": _crops(overview, seed),
        "extremes": _extremes(overview),
        "copies": galleries.copies(overview, _PAIRS),
        "pair_count": galleries.count_copies(overview),
        "unreadable": [(entries[number].path, reason) for number, reason in overview.unreadable.items()],
        "listed": _LISTED,
    }


def numbers(overview: Overview) -> Iterator[tuple[str, str]]:
    """Yield the counts and sizes of an overview as names and values."""
    collection = overview.collection
    yield "folder", str(collection.root)
    yield "layout", f"{collection.kind}, {collection.labels}" if collection.labels else collection.kind
    yield "images", f"{len(collection.entries):,}"
    if set(overview.splits) != {""}:
        order = (*SPLITS, "")
        yield "splits", _counts({name or "in no split": overview.splits[name] for name in order})
    if overview.classes:
        sizes = sorted(counts.total() for counts in overview.classes.values())
        per_class = f"{sizes[0]:,} to {plural(sizes[-1], 'image')} each, median {_median(sizes)}"
        if sizes[0] == sizes[-1]:
            per_class = f"{plural(sizes[0], 'image')} each"
        yield "classes", f"{len(sizes):,} with {per_class}"
    if outside := sum(1 for entry in collection.entries if not entry.class_name):
        yield "images without a class", f"{outside:,}"
    if len(overview.readable):
        for name, pixels in zip(("width", "height"), overview.sizes, strict=True):
            span = f"{pixels.min()} to {pixels.max()} pixels, median {_median(pixels)}"
            yield name, span if np.ptp(pixels) else f"{pixels[0]} pixels"
        yield "formats", _counts(dict(overview.formats.most_common()))
        yield "colours", _counts(dict(overview.modes.most_common()))
        if rotated := overview.orientations.total() - overview.orientations[1]:
            yield "rotated by EXIF", f"{rotated:,}"
    yield "on disk", f"{sum(overview.size) / 1e6:,.1f} MB"
    exact, near = overview.duplicates.exact, overview.duplicates.near
    yield "copies", f"{plural(len(exact), 'group')} of the same bytes, {plural(len(near), 'pair')} of near-duplicates"
    yield "unreadable", f"{len(overview.unreadable):,}"
    missing = sum(problem.kind == "missing" for _, problem in collection.problems)
    further = {
        "rows without an image": missing,
        "rows that cannot be used": len(collection.problems) - missing,
        "images whose rows disagree": len(collection.disagreeing),
        "images without a row": len(collection.without_row),
        "files that are not images": len(collection.others),
    }
    yield from ((name, f"{count:,}") for name, count in further.items() if count)


def _array(overview: Overview, seed: int) -> dict[str, Any] | None:
    """Describe one image as an array; return None if it cannot be read."""
    for number in overview.sample(1, seed):
        try:
            image = read_image(overview.collection.path_of(number))
        except ImageError:  # gone since it was scanned
            continue
        return {
            "path": overview.collection.entries[number].path,
            "facts": galleries.array_facts(image),
            "channel_orders": galleries.channel_orders(image),
            "chart": charts.channel_chart(image),
        }
    return None


def _crops(overview: Overview, seed: int) -> dict[str, Any] | None:
    """Return crops and how many there are of each kind, for a folder that `whichcar crop` wrote."""
    collection = overview.collection
    path = table_of(collection.root)
    if path is None:
        return None
    sampled = {collection.entries[number].path: number for number in overview.sample(_CROPS, seed)}
    kinds: Counter[str] = Counter()
    rows: dict[int, Crop] = {}
    for row in read_boxes(path):
        kinds[row.kind] += 1
        if row.path in sampled:
            rows[sampled[row.path]] = row
    return {
        "counts": _counts(kinds),
        "figures": [_crop_figure(collection.path_of(number), row) for number, row in sorted(rows.items())],
    }


def _crop_figure(path: Path, row: Crop) -> Figure:
    if row.score is None or not row.box:
        return Figure(path, note=row.outcome, path=row.path)
    left, top, right, bottom = row.box.left, row.box.top, row.box.right, row.box.bottom
    return Figure(path, f"{row.label} {row.score:.2f}", f"from {left}, {top} to {right}, {bottom}", row.path)


def _extremes(overview: Overview) -> dict[str, list[Figure]]:
    count = len(overview.readable)
    if count < 2:
        return {}
    names: list[galleries.Extreme] = ["brightest", "darkest"]
    if len(set(zip(*overview.sizes, strict=True))) > 1:
        names += ["largest", "smallest"]
    return {name: galleries.extremes(overview, name, min(8, count // 2)) for name in names}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _median(values: object) -> str:
    return f"{np.median(np.asarray(values)):g}"
