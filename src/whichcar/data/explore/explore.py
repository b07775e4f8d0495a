"""What a folder of images holds, as one page that needs no other file and no network: explore.html."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from whichcar.data import page
from whichcar.data.boxes import read_boxes, table_of
from whichcar.data.dataset import collect
from whichcar.data.explore import charts, galleries
from whichcar.data.explore.overview import Overview, overview_of
from whichcar.data.split_names import SPLITS
from whichcar.errors import DataError, ImageError
from whichcar.images.read import read_image
from whichcar.records import Crop
from whichcar.text import plural

FILE = "explore.html"

_LISTED = 100  # files in a list, at most
_PAIRS = 30
_CROPS = 8


def explore(
    data: str | Path, labels: str | Path | None = None, output: str | Path | None = None, seed: int = 0
) -> Path:
    """Write a page about a folder of images and return its path.

    It shows numbers, classes, makes and years, sizes, aspects, brightness, a sample, one image as an array, crops
    where the folder was cut, the brightest, darkest, largest and smallest, copies, and what cannot be read.

    Args:
        data: a folder with a label file, a split, one folder a class, or images only.
        labels: the label file (default: car_dataset_labels.csv in `data`, where that is not split).
        output: the page (default: explore.html in `data`).
        seed: random seed for the sampled images.

    Raises:
        DataError: no images, labels that cannot be read, or the page cannot be written.
        MissingExtraError: plotly is not installed.
    """
    data, path = Path(data), Path(output) if output else Path(data) / FILE
    head = charts.page_head()  # what is missing shows before the work begins
    overview = overview_of(collect(data, Path(labels) if labels else None))
    try:
        return page.write_page(path, data.resolve().name, _sections(overview, seed), head)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); name another place with --output FILE"
        ) from error


look = explore  # its earlier name


def _sections(overview: Overview, seed: int) -> Iterator[str]:
    sections = {
        "numbers": galleries.table(numbers(overview)),
        "classes": _classes(overview),
        "makes and years": _makes(overview),
        "sizes and light": _sizes(overview),
        "samples": _samples(overview, seed),
        "an image as an array": _array(overview, seed),
        "crops": _crops(overview, seed),
        "extremes": _extremes(overview),
        "copies": _copies(overview),
        "unreadable": _unreadable(overview),
    }
    told = [(name.replace(" ", "-"), name.capitalize(), content) for name, content in sections.items() if content]
    links = "".join(f'<a href="#{place}">{title}</a>' for place, title, _ in told)
    yield f"<nav>{links}</nav>"
    for place, title, content in told:
        yield f'<h2 id="{place}">{title}</h2>\n{content}'


def numbers(overview: Overview) -> list[tuple[str, str]]:
    """Return what there is, each number with its name."""
    return list(_numbers(overview))


def _numbers(overview: Overview) -> Iterator[tuple[str, str]]:
    found = overview.collection
    yield "folder", str(found.root)
    yield "laid out as", f"{found.kind}, {found.labels}" if found.labels else found.kind
    yield "images", f"{len(found.entries):,}"
    if set(overview.parts) != {""}:
        order = (*SPLITS, "")
        yield "parts", _counts({name or "in no part": overview.parts[name] for name in order})
    if overview.classes:
        each = sorted(parts.total() for parts in overview.classes.values())
        span = "" if each[0] == each[-1] else f"{each[0]:,} to "
        yield "classes", f"{len(each):,} of {span}{plural(each[-1], 'image')}, median {_median(each)}"
    if outside := sum(1 for entry in found.entries if not entry.class_name):
        yield "images without a class", f"{outside:,}"
    there = overview.readable
    if len(there):
        for name, sides in (("width", overview.width), ("height", overview.height)):
            pixels = np.frombuffer(sides, np.uint32)[there]
            span = f"{pixels.min()} to {pixels.max()} pixels, in the middle {_median(pixels)}"
            yield name, span if np.ptp(pixels) else f"{pixels[0]} pixels, all of them"
        yield "formats", _counts(dict(overview.formats.most_common()))
        yield "colours", _counts(dict(overview.modes.most_common()))
        if turned := overview.orientations.total() - overview.orientations[1]:
            yield "turned by EXIF", f"{turned:,}"
    yield "on disk", f"{sum(overview.size) / 1e6:,.1f} MB"
    copied = overview.duplicates
    yield (
        "copies",
        f"{plural(len(copied.exact), 'group')} of the same bytes, {plural(len(copied.near), 'pair')} nearly the same",
    )
    yield "unreadable", f"{len(overview.unreadable):,}"
    further = {
        "rows without an image": len(found.problems),
        "images whose rows disagree": len(found.disagreeing),
        "images without a row": len(found.without_row),
        "files that are no images": len(found.others),
    }
    yield from ((name, f"{count:,}") for name, count in further.items() if count)


def _classes(overview: Overview) -> str:
    if not overview.classes:
        return "<p class=soft>None: the images lie in no folders, and no label file names them.</p>"
    return f"<div class=long>{charts.as_html(charts.class_chart(overview), 'class')}</div>"


def _makes(overview: Overview) -> str:
    if not overview.classes:
        return ""
    told = f"<h3>Makes</h3><div class=long>{charts.as_html(charts.make_chart(overview), 'make')}</div>"
    years = [name for name, parts in overview.names.items() if parts.year is not None]
    if years:
        told += f"<h3>Years</h3>{charts.as_html(charts.year_chart(overview), 'year')}"
    without = len(overview.classes) - len(years)
    return told + (f"<p class=soft>{plural(without, 'class')} without a year in the name.</p>" if without else "")


def _sizes(overview: Overview) -> str:
    if not len(overview.readable):
        return ""
    told = {
        "Width and height": charts.size_chart(overview),
        "Aspect": charts.aspect_chart(overview),
        "Brightness": charts.brightness_chart(overview),
    }
    shown = "".join(
        f"<div><h3>{title}</h3>{charts.as_html(chart, title.split()[0].lower())}</div>" for title, chart in told.items()
    )
    return f"<div class=charts>{shown}</div>"


def _samples(overview: Overview, seed: int) -> str:
    if not len(overview.readable):
        return ""
    return f"<p class=soft>Drawn at random, seed {seed}.</p>{galleries.samples(overview, seed=seed)}"


def _array(overview: Overview, seed: int) -> str:
    for number in overview.sample(1, seed):
        try:
            image = read_image(overview.collection.path_of(number))
        except ImageError as error:  # gone since it was looked at
            return f"<p class=soft>{page.text(error)}</p>"
        name = f"<p class=soft>{page.text(overview.collection.entries[number].path)}</p>"
        chart = charts.as_html(charts.channel_chart(image), "channel")
        return "".join((name, galleries.array_table(image), galleries.channel_orders(image), chart))
    return ""


def _crops(overview: Overview, seed: int) -> str:
    """Show what was cut, where the folder is one that `whichcar crop` wrote."""
    found = overview.collection
    path = table_of(found.root)
    if path is None:
        return ""
    shown = {found.entries[number].path: number for number in overview.sample(_CROPS, seed)}
    kinds: Counter[str] = Counter()
    rows: dict[int, Crop] = {}
    for row in read_boxes(path):
        kinds[row.kind] += 1
        if row.path in shown:
            rows[shown[row.path]] = row
    figures = (page.figure(found.path_of(number), _cut(row)) for number, row in sorted(rows.items()))
    return f"<p class=soft>{_counts(kinds)}</p>{page.gallery(figures)}"


def _cut(row: Crop) -> str:
    told = page.text(row.outcome)
    if row.score is not None and row.box:
        box = row.box
        told = f"<b>{page.text(row.label)} {row.score:.2f}</b> from {box.left}, {box.top} to {box.right}, {box.bottom}"
    return f"{told} <span class=soft>{page.text(row.path)}</span>"


def _extremes(overview: Overview) -> str:
    there = overview.readable
    if len(there) < 2:
        return ""
    sizes = {(overview.width[number], overview.height[number]) for number in there.tolist()}
    which: list[galleries.Extreme] = ["brightest", "darkest"]
    which += ["largest", "smallest"] if len(sizes) > 1 else []
    count = min(8, len(there) // 2)
    return "".join(f"<h3>{name.capitalize()}</h3>{galleries.extremes(overview, name, count)}" for name in which)


def _copies(overview: Overview) -> str:
    count = galleries.count_copies(overview)
    if not count:
        return ""
    told = f"{_PAIRS} of {count:,} shown, those first that do most harm" if count > _PAIRS else plural(count, "pair")
    return f"<p class=soft>{told}</p>{galleries.copies(overview, _PAIRS)}"


def _unreadable(overview: Overview) -> str:
    broken = list(overview.unreadable.items())
    if not broken:
        return ""
    entries = overview.collection.entries
    lines = "".join(
        f"<li>{page.text(entries[number].path)}: {page.text(reason)}</li>" for number, reason in broken[:_LISTED]
    )
    more = f"<p class=soft>and {len(broken) - _LISTED:,} more</p>" if len(broken) > _LISTED else ""
    return f"<ul>{lines}</ul>{more}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _median(values: object) -> str:
    return f"{np.median(np.asarray(values)):g}"
