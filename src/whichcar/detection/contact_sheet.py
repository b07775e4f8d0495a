"""The crop stage as a page: images with their boxes drawn, the least sure first, for a person to check by eye."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from whichcar.data import page
from whichcar.data.boxes import FILE, read_boxes
from whichcar.errors import DataError, ImageError
from whichcar.images.read import decoded
from whichcar.records import Crop

PAGE = "contact_sheet.html"
NO_VEHICLE = "skipped: no vehicle"
SHOWN = 120  # of each kind
_RED = (230, 30, 40)


def write_contact_sheet(source: str | Path, output: str | Path) -> Path:
    """Write contact_sheet.html into `output`, one file that needs no other, and return its path.

    Args:
        source: the images that were cropped.
        output: where `crop` wrote; its boxes.csv says what is shown.

    Raises:
        DataError: there is no boxes.csv, or nothing in it.
    """
    source, output = Path(source), Path(output)
    counts = {"cropped": 0, "whole": 0, "skipped": 0}
    for row in read_boxes(output / FILE):
        counts[row.kind] += 1
    if not any(counts.values()):
        raise DataError(f"{output / FILE}: no row in it; run `whichcar crop` first")
    # heapq keeps only as many rows as are shown.
    unsure = heapq.nsmallest(SHOWN, _of_kind(output, "cropped"), key=lambda row: (row.score or 0, row.path))
    whole = _spread(_of_kind(output, "whole"), counts["whole"])
    left_out = [row for row in _of_kind(output, "skipped") if row.outcome == NO_VEHICLE]
    broken = [row for row in _of_kind(output, "skipped") if row.outcome != NO_VEHICLE]
    sections = [
        _images("Left whole", "no vehicle was found", whole, counts["whole"], source),
        _images("Cropped", "the least sure first", unsure, counts["cropped"], source),
        _images("Left out", "no vehicle was found", _spread(iter(left_out), len(left_out)), len(left_out), source),
        _list(broken[:SHOWN], len(broken)),
    ]
    told = f"{counts['cropped']} cropped, {counts['whole']} left whole, {counts['skipped']} skipped"
    summary = f"<p class=soft>{told}; all of them in {FILE}</p>"
    return page.write_page(output / PAGE, output.name, [summary, *sections])


def _of_kind(output: Path, kind: str) -> Iterator[Crop]:
    return (row for row in read_boxes(output / FILE) if row.kind == kind)


def _spread(rows: Iterator[Crop], count: int) -> list[Crop]:
    """Take as many as are shown, evenly from all of them, so from all classes."""
    return [row for place, row in enumerate(rows) if count <= SHOWN or place * SHOWN % count < SHOWN]


def _images(title: str, what: str, rows: Sequence[Crop], count: int, source: Path) -> str:
    if not rows:
        return ""
    told = f"{what}; {len(rows)} of {count} shown" if len(rows) < count else what
    shown = page.gallery(_figure(row, source) for row in rows)
    return f"<h2>{title}</h2><p class=soft>{told}</p>{shown}"


def _figure(row: Crop, source: Path) -> str:
    said = f"<b>{page.text(row.label)} {row.score:.2f}</b> " if row.score is not None else ""
    try:
        shown = page.picture(_with_box(row, source))
    except ImageError as error:  # it may have gone since
        shown = f"<p>{page.text(error)}</p>"
    return f"<figure>{shown}<figcaption>{said}<span class=soft>{page.text(row.path)}</span></figcaption></figure>"


def _with_box(row: Crop, source: Path) -> Image.Image:
    """Return the image in small, its box drawn."""
    with decoded(source / row.path, at_least=(page.SIDE, page.SIDE)) as image:
        small, width = page.small(image.reduced((page.SIDE, page.SIDE))[0]), image.header.width
    if row.box and row.kind == "cropped":
        box, scale = row.box, small.width / width
        edges = (box.left * scale, box.top * scale, box.right * scale - 1, box.bottom * scale - 1)
        ImageDraw.Draw(small).rectangle(edges, outline=_RED, width=2)
    return small


def _list(rows: Sequence[Crop], count: int) -> str:
    if not rows:
        return ""
    told = f"{len(rows)} of {count} listed" if len(rows) < count else "they have no output"
    lines = "".join(f"<li>{page.text(row.path)}: {page.text(row.outcome.partition(': ')[2])}</li>" for row in rows)
    return f"<h2>Skipped</h2><p class=soft>{told}</p><ul>{lines}</ul>"
