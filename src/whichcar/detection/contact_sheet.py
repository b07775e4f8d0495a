"""The crop stage as a page: pictures with their boxes drawn, the least sure first, for a person to check by eye."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw

from whichcar.data.images import read_image
from whichcar.data.plan import readable
from whichcar.detection.boxes import FILE, read_boxes
from whichcar.errors import DataError, ImageError
from whichcar.files import write_text
from whichcar.records import Crop

PAGE = "contact_sheet.html"
NO_VEHICLE = "skipped: no vehicle"
SHOWN = 120  # of each kind
_SIDE = 240  # the longer one of a thumbnail, in pixels
_RED = (230, 30, 40)

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1500px; padding: 1rem; color: #222 }
h1 { margin: 0 } h2 { margin: 2rem 0 .5rem } .soft { color: #666 }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 12px }
figure { margin: 0; background: #f4f4f4; border-radius: 6px; overflow: hidden }
img { display: block; width: 100%; height: 150px; object-fit: contain; background: #e4e4e4 }
figcaption { padding: 4px 8px 6px; font-size: 13px; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd } figure { background: #262626 }
  img { background: #303030 } .soft { color: #999 }
}
"""


def write_contact_sheet(source: Path, output: Path) -> Path:
    """Write contact_sheet.html into `output`, one file that needs no other, and return its path.

    Args:
        source: the pictures that were cropped.
        output: where `crop` wrote; its boxes.csv says what is shown.

    Raises:
        DataError: there is no boxes.csv, or nothing in it.
    """
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
        _pictures("Left whole", "no vehicle was found", whole, counts["whole"], source),
        _pictures("Cropped", "the least sure first", unsure, counts["cropped"], source),
        _pictures("Left out", "no vehicle was found", _spread(iter(left_out), len(left_out)), len(left_out), source),
        _list(broken[:SHOWN], len(broken)),
    ]
    told = f"{counts['cropped']} cropped, {counts['whole']} left whole, {counts['skipped']} skipped"
    write_text(
        output / PAGE,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(readable(output.name))}: boxes</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(readable(output.name))}</h1><p class=soft>{told}; all of them in {FILE}</p>\n"
        + "\n".join(filter(None, sections))
        + "\n</body></html>\n",
    )
    return output / PAGE


def _of_kind(output: Path, kind: str) -> Iterator[Crop]:
    return (row for row in read_boxes(output / FILE) if row.kind == kind)


def _spread(rows: Iterator[Crop], count: int) -> list[Crop]:
    """Take as many as are shown, evenly from all of them, so from all classes."""
    return [row for place, row in enumerate(rows) if count <= SHOWN or place * SHOWN % count < SHOWN]


def _pictures(title: str, what: str, rows: Sequence[Crop], count: int, source: Path) -> str:
    if not rows:
        return ""
    told = f"{what}; {len(rows)} of {count} shown" if len(rows) < count else what
    figures = "\n".join(_figure(row, source) for row in rows)
    return f"<h2>{title}</h2><p class=soft>{told}</p><main>\n{figures}\n</main>"


def _figure(row: Crop, source: Path) -> str:
    said = f"<b>{escape(row.label)} {row.score:.2f}</b> " if row.score is not None else ""
    try:
        shown = f'<img loading=lazy alt="" src="data:image/jpeg;base64,{_thumbnail(row, source)}">'
    except ImageError as error:  # it may have gone since
        shown = f"<p>{escape(readable(str(error)))}</p>"
    return (
        f"<figure>{shown}<figcaption>{said}<span class=soft>{escape(readable(row.path))}</span></figcaption></figure>"
    )


def _thumbnail(row: Crop, source: Path) -> str:
    """Return the picture in small, its box drawn, as base64 of a JPEG."""
    image = Image.fromarray(read_image(source / row.path))
    scale = min(1.0, _SIDE / max(image.size))
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    if row.box and row.kind == "cropped":
        box = row.box
        edges = (box.left * scale, box.top * scale, box.right * scale - 1, box.bottom * scale - 1)
        ImageDraw.Draw(small).rectangle(edges, outline=_RED, width=2)
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=80)
    return base64.b64encode(encoded.getvalue()).decode("ascii")


def _list(rows: Sequence[Crop], count: int) -> str:
    if not rows:
        return ""
    told = f"{len(rows)} of {count} listed" if len(rows) < count else "they have no output"
    lines = "".join(
        f"<li>{escape(readable(row.path))}: {escape(readable(row.outcome.partition(': ')[2]))}</li>" for row in rows
    )
    return f"<h2>Skipped</h2><p class=soft>{told}</p><ul>{lines}</ul>"
