"""Images of an overview side by side, as pieces of a page: samples, extremes, copies, channels, a crop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from whichcar.data import page
from whichcar.data.duplicates.find import Pair
from whichcar.data.explore.overview import Overview

Picture = npt.NDArray[np.uint8]
Extreme = Literal["brightest", "darkest", "largest", "smallest"]

_RED = (230, 30, 40)


def samples(overview: Overview, count: int = 20, seed: int = 0) -> str:
    """Return images drawn at random, titled with their classes; the same seed draws the same."""
    return page.gallery(_figure(overview, number) for number in overview.sample(count, seed))


def extremes(overview: Overview, which: Extreme, count: int = 8) -> str:
    """Return the brightest, darkest, largest or smallest images, the most extreme first."""
    there = overview.readable
    wide, high = (np.frombuffer(side, np.uint32).astype(np.int64)[there] for side in (overview.width, overview.height))
    light = np.frombuffer(overview.brightness, np.float32)[there]
    measured = wide * high if which in ("largest", "smallest") else light
    order = np.argsort(-measured if which in ("largest", "brightest") else measured, kind="stable")[:count]
    told = [f"{wide[at]} x {high[at]}" if measured is not light else f"{light[at]:.2f}" for at in order]
    numbers = there[order].tolist()
    return page.gallery(_figure(overview, number, note) for number, note in zip(numbers, told, strict=True))


def copies(overview: Overview, most: int = 30) -> str:
    """Return copies in pairs, those first whose classes or parts differ; of the same bytes, each with the first."""
    pairs = sorted(_pairs(overview), key=lambda pair: (_kind(overview, pair), pair.first, pair.second))
    told = []
    for pair in pairs[:most]:
        alike = "the same bytes" if pair.similarity == 1 else f"alike {pair.similarity:.2f}"
        note = "".join((alike, ", mirrored" if pair.mirrored else "", _WARNINGS[_kind(overview, pair)]))
        shown = "".join(_figure(overview, number) for number in (pair.first, pair.second))
        told.append(f"<div class=pair><div>{shown}</div><p>{note}</p></div>")
    return f"<div class=pairs>{''.join(told)}</div>" if told else ""


def count_copies(overview: Overview) -> int:
    """Return how many pairs `copies` would show if it showed all."""
    return sum(1 for _ in _pairs(overview))


def channel_orders(image: Picture) -> str:
    """Return an image, (height, width, 3) uint8 RGB, as it is and as it looks when taken for BGR."""
    told = (
        "read as RGB, as whichcar does",
        "the same array taken for BGR, as OpenCV has it: red and blue change places",
    )
    small = np.asarray(page.small(image))
    return page.gallery(_shown(one, note) for one, note in zip((small, small[:, :, ::-1]), told, strict=True))


def array_table(image: Picture) -> str:
    """Return what an image is to a program, (height, width, 3) uint8 RGB: shape, type, range, means, a pixel."""
    means = ", ".join(
        f"{name} {mean:.1f}" for name, mean in zip(("red", "green", "blue"), image.mean((0, 1)), strict=True)
    )
    middle = image[image.shape[0] // 2, image.shape[1] // 2]
    return table(
        [
            ("shape", f"{image.shape} (height, width, channels)"),
            ("type", f"{image.dtype}, {image.nbytes:,} bytes"),
            ("range", f"{image.min()} to {image.max()}"),
            ("means", means),
            ("the pixel in the middle", f"{middle.tolist()} as RGB, {middle[::-1].tolist()} as BGR"),
        ]
    )


def cut(image: Picture, box: tuple[int, int, int, int]) -> str:
    """Return an image with a box drawn and what is inside it.

    Args:
        image: (height, width, 3) uint8, RGB.
        box: (left, top, right, bottom), right and bottom exclusive, as `get_vehicle_coordinates` gives it.
    """
    left, top, right, bottom = box
    drawn = Image.fromarray(image)
    thick = max(2, round(max(drawn.size) / page.SIDE * 2))
    ImageDraw.Draw(drawn).rectangle((left, top, right - 1, bottom - 1), outline=_RED, width=thick)
    inside = np.ascontiguousarray(image[top:bottom, left:right])
    told = (f"{image.shape[1]} x {image.shape[0]}", f"the crop, {right - left} x {bottom - top}")
    return page.gallery(_shown(one, note) for one, note in zip((np.asarray(drawn), inside), told, strict=True))


def table(rows: list[tuple[str, str]]) -> str:
    """Return names and values as a table; they are escaped."""
    told = "".join(f"<tr><th>{page.text(name)}</th><td>{page.text(value)}</td></tr>" for name, value in rows)
    return f"<div class=scroll><table>{told}</table></div>"


_WARNINGS = (
    "; <b class=error>their classes differ</b>",
    "; <b class=warning>one is in test, the other is not</b>",
    "; one is in validation, the other in train",
    "",
)


def _kind(overview: Overview, pair: Pair) -> int:
    """Return a number, lower for what does more harm: its place in `_WARNINGS`."""
    one, other = (overview.collection.entries[number] for number in (pair.first, pair.second))
    if one.class_name != other.class_name:
        return 0
    parts = {one.part, other.part}
    return 3 if len(parts) == 1 else 1 if "test" in parts else 2


def _pairs(overview: Overview) -> Iterator[Pair]:
    for group in overview.duplicates.exact:
        yield from (Pair(group[0], other, 1, False) for other in group[1:])
    yield from overview.duplicates.near


def _figure(overview: Overview, number: int, note: str = "") -> str:
    entry = overview.collection.entries[number]
    title = f"<b>{page.text(entry.class_name)}</b><br>" if entry.class_name else ""
    told = ", ".join(filter(None, (note, entry.part)))
    caption = f"{title}{told + ' · ' if told else ''}<span class=soft>{page.text(entry.path)}</span>"
    return page.figure(overview.collection.path_of(number), caption)


def _shown(image: Picture, caption: str) -> str:
    shown = page.picture(page.small(np.ascontiguousarray(image)))
    return f"<figure>{shown}<figcaption>{page.text(caption)}</figcaption></figure>"
