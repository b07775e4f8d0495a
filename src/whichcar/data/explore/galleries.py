"""Images of an overview side by side: samples, extremes, copies, channels, a crop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from whichcar.data.duplicates.find import Pair
from whichcar.data.explore.overview import Overview
from whichcar.images.pixels import Pixels
from whichcar.pages.thumbnails import SIDE, Figure, thumbnail

Extreme = Literal["brightest", "darkest", "largest", "smallest"]

_RED = (230, 30, 40)


@dataclass(frozen=True, slots=True)
class Copies:
    """Two copies of one image, their similarity, and what is wrong with them, with its severity."""

    figures: tuple[Figure, Figure]
    similarity: str
    warning: str
    severity: str


def samples(overview: Overview, count: int = 20, seed: int = 0) -> list[Figure]:
    """Return randomly sampled images, titled with their classes; the same seed samples the same images."""
    return [_figure(overview, number) for number in overview.sample(count, seed)]


def extremes(overview: Overview, which: Extreme, count: int = 8) -> list[Figure]:
    """Return the brightest, darkest, largest or smallest images, the most extreme first."""
    numbers = overview.readable
    width, height = overview.sizes
    brightness = np.frombuffer(overview.brightness, np.float32)[numbers]
    by_size = which in ("largest", "smallest")
    measure = width * height if by_size else brightness
    order = np.argsort(-measure if which in ("largest", "brightest") else measure, kind="stable")[:count]
    notes = (f"{width[row]} x {height[row]}" if by_size else f"{brightness[row]:.2f}" for row in order)
    return [_figure(overview, number, note) for number, note in zip(numbers[order].tolist(), notes, strict=True)]


def copies(overview: Overview, most: int = 30) -> list[Copies]:
    """Return pairs of copies, those with different classes or splits first; equal files are paired with the first."""
    pairs = sorted(_pairs(overview), key=lambda pair: (_harm(overview, pair), pair.first, pair.second))
    exact = {(group[0], other) for group in overview.duplicates.exact for other in group[1:]}
    return [
        Copies(
            (_figure(overview, pair.first), _figure(overview, pair.second)),
            ("the same bytes" if (pair.first, pair.second) in exact else f"similarity {pair.similarity:.2f}")
            + (", mirrored" if pair.mirrored else ""),
            *_WARNINGS[_harm(overview, pair)],
        )
        for pair in pairs[:most]
    ]


def count_copies(overview: Overview) -> int:
    """Return the number of pairs that `copies` returns without a limit."""
    return sum(1 for _ in _pairs(overview))


def channel_orders(image: Pixels) -> list[Figure]:
    """Return an image, (height, width, 3) uint8 RGB, as it is and as it looks when read as BGR."""
    small = np.asarray(thumbnail(image))
    return [
        Figure(small, note="read as RGB, as whichcar does"),
        Figure(
            small[:, :, ::-1],
            note="the same array taken for BGR, the channel order of OpenCV: red and blue are swapped",
        ),
    ]


def array_facts(image: Pixels) -> list[tuple[str, str]]:
    """Return shape, type, range, means and a pixel of an image, (height, width, 3) uint8 RGB, as names and values."""
    means = zip(("red", "green", "blue"), image.mean((0, 1)), strict=True)
    center = image[image.shape[0] // 2, image.shape[1] // 2]
    return [
        ("shape", f"{image.shape} (height, width, channels)"),
        ("type", f"{image.dtype}, {image.nbytes / 1e6:.2f} MB"),
        ("range", f"{image.min()} to {image.max()}"),
        ("means", ", ".join(f"{name} {mean:.1f}" for name, mean in means)),
        ("center pixel", f"{center.tolist()} as RGB, {center[::-1].tolist()} as BGR"),
    ]


def crop_figures(image: Pixels, box: tuple[int, int, int, int]) -> list[Figure]:
    """Return an image with a box drawn, and the crop.

    Args:
        image: (height, width, 3) uint8, RGB.
        box: (left, top, right, bottom), right and bottom exclusive, as `get_vehicle_coordinates` returns it.
    """
    left, top, right, bottom = box
    drawn = Image.fromarray(image)
    width = max(2, round(max(drawn.size) / SIDE * 2))
    ImageDraw.Draw(drawn).rectangle((left, top, right - 1, bottom - 1), outline=_RED, width=width)
    return [
        Figure(drawn, note=f"{image.shape[1]} x {image.shape[0]}"),
        Figure(image[top:bottom, left:right], note=f"the crop, {right - left} x {bottom - top}"),
    ]


_WARNINGS = (
    ("their classes differ", "error"),
    ("one is in test, the other is not", "warning"),
    ("one is in validation, the other in train", "note"),
    ("", "note"),
)


def _harm(overview: Overview, pair: Pair) -> int:
    """Return the index of a pair in `_WARNINGS`; a lower index is more harmful."""
    first, second = (overview.collection.entries[number] for number in (pair.first, pair.second))
    if not (first.class_name and second.class_name):  # an image without a label contradicts nothing
        return 3
    if first.class_name != second.class_name:
        return 0
    splits = {first.split, second.split}
    return 3 if len(splits) == 1 else 1 if "test" in splits else 2


def _pairs(overview: Overview) -> Iterator[Pair]:
    for group in overview.duplicates.exact:
        yield from (Pair(group[0], other, 1, False) for other in group[1:])
    yield from overview.duplicates.near


def _figure(overview: Overview, number: int, note: str = "") -> Figure:
    entry = overview.collection.entries[number]
    path = overview.collection.path_of(number)
    return Figure(path, entry.class_name, ", ".join(filter(None, (note, entry.split))), entry.path)
