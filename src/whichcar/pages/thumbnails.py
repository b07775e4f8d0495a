"""Thumbnails that are embedded in a page, as data in its <img> elements."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from markupsafe import Markup
from PIL import Image

from whichcar.errors import ImageError
from whichcar.images.pixels import Pixels
from whichcar.images.read import read_image
from whichcar.text import one_line

SIDE = 320  # longer side of a thumbnail in pixels: twice the width of a column, for high-density screens
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """An image with its caption: a title in bold, a note, and the path.

    `image` is a file, a (height, width, 3) uint8 RGB array, or an RGB image of Pillow's.
    """

    image: Path | Pixels | Image.Image
    title: str = ""
    note: str = ""
    path: str = ""


def image_tag(source: Path | Pixels | Image.Image, alt: str = "") -> Markup:
    """Return an <img> with a thumbnail of the image as JPEG, or the reason if a file cannot be read."""
    if isinstance(source, Path):
        try:
            source = read_image(source, at_least=(SIDE, SIDE))
        except ImageError as error:
            return Markup("<p class=gone>{}</p>").format(one_line(error.reason))
    encoded = io.BytesIO()
    thumbnail(source).save(encoded, "JPEG", quality=80)
    return embedded(encoded.getvalue(), "image/jpeg", alt)


def thumbnail(source: Pixels | Image.Image) -> Image.Image:
    """Return a copy whose longer side is at most 320 pixels."""
    image = Image.fromarray(np.ascontiguousarray(source)) if isinstance(source, np.ndarray) else source.copy()
    image.thumbnail((SIDE, SIDE))
    return image


def embedded(content: bytes, kind: str, alt: str = "") -> Markup:
    """Return an <img> with an embedded image file of this MIME type, which is decoded when it comes into view."""
    data = base64.b64encode(content).decode("ascii")
    return Markup('<img loading=lazy decoding=async alt="{}" src="data:{};base64,{}">').format(
        one_line(alt), kind, data
    )


def evenly(rows: Iterable[T], count: int, most: int) -> list[T]:
    """Return at most `most` of `count` rows, evenly spaced, so that all classes are represented."""
    return [row for place, row in enumerate(rows) if count <= most or place * most % count < most]
