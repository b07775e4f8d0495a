"""The crop stage as an HTML page: images with their boxes drawn, the most doubtful first, to be checked by eye."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from whichcar.data.boxes import FILE, read_boxes
from whichcar.errors import DataError, ImageError
from whichcar.images.read import decoded
from whichcar.pages.render import write_page
from whichcar.pages.thumbnails import SIDE, Figure, evenly, thumbnail
from whichcar.records import TINY, Crop

PAGE = "contact_sheet.html"
_NO_VEHICLE = re.compile(r"skipped: (no vehicle|[\d,]+ vehicles? smaller than \d+ pixels)")
_NOTE = "no vehicle detected, or none large enough"
SHOWN = 120  # of each kind
_RED = (230, 30, 40)


def write_contact_sheet(source: str | Path, output: str | Path) -> Path:
    """Write contact_sheet.html, one self-contained file, into `output` and return its path.

    Args:
        source: the folder of the images that were cropped.
        output: the folder that `crop` wrote; its boxes.csv determines what is shown.

    Raises:
        DataError: boxes.csv is missing or has no rows.
    """
    source, output = Path(source), Path(output)
    counts = {"cropped": 0, "whole": 0, "skipped": 0}
    for row in read_boxes(output / FILE):
        counts[row.kind] += 1
    if not any(counts.values()):
        raise DataError(f"{output / FILE}: no row in it; run `whichcar crop` first")
    # heapq keeps only the rows that are shown.
    doubtful = heapq.nsmallest(SHOWN, _of_kind(output, "cropped"), key=_doubt)
    whole = evenly(_of_kind(output, "whole"), counts["whole"], SHOWN)
    skipped = list(_of_kind(output, "skipped"))
    empty = [row for row in skipped if _NO_VEHICLE.fullmatch(row.outcome)]
    galleries = (
        ("Left whole", _NOTE, whole, counts["whole"]),
        ("Cropped", f"shorter side below {TINY} pixels first, then least confident first", doubtful, counts["cropped"]),
        ("Left out", _NOTE, evenly(empty, len(empty), SHOWN), len(empty)),
    )
    return write_page(
        output / PAGE,
        "contact_sheet",
        output.name,
        counts=counts,
        galleries=galleries,
        figures=lambda rows: _figures(rows, source),
        unreadable=[row for row in skipped if not _NO_VEHICLE.fullmatch(row.outcome)],
        listed=SHOWN,
        table=FILE,
    )


def _doubt(row: Crop) -> tuple[bool, float, str]:
    """Return what crops are sorted by: a tiny box is often that of a car in the background."""
    return row.box is None or not row.box.is_tiny, row.score or 0, row.path


def _of_kind(output: Path, kind: str) -> Iterator[Crop]:
    return (row for row in read_boxes(output / FILE) if row.kind == kind)


def _figures(rows: Iterable[Crop], source: Path) -> Iterator[Figure]:
    for row in rows:
        title = f"{row.label} {row.score:.2f}" if row.score is not None else row.outcome.partition(": ")[2]
        yield Figure(_with_box(row, source), title, path=row.path)


def _with_box(row: Crop, source: Path) -> Image.Image | Path:
    """Return a thumbnail with its box drawn, or the path if the image can no longer be read."""
    try:
        with decoded(source / row.path, at_least=(SIDE, SIDE)) as image:
            small, width = thumbnail(image.reduced((SIDE, SIDE))[0]), image.header.width
    except ImageError:
        return source / row.path
    if row.box and row.kind == "cropped":
        box, scale = row.box, small.width / width
        left, top = box.left * scale, box.top * scale
        edges = (left, top, max(left, box.right * scale - 1), max(top, box.bottom * scale - 1))
        ImageDraw.Draw(small).rectangle(edges, outline=_RED, width=2)
    return small
