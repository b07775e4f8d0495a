"""Pages that need no other file and no network: their frame, their look, and images in small inside them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from whichcar.errors import ImageError
from whichcar.files import readable, write_text
from whichcar.images.read import read_image

SIDE = 240  # the longer one of a thumbnail, in pixels
STYLE = Path(__file__).with_name("page.css")


def write_page(path: Path, title: str, parts: Iterable[str], head: str = "") -> Path:
    """Write a page of these parts (HTML) below its title and return its path; `head` goes into its head as it is."""
    style = STYLE.read_text(encoding="utf-8")
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>\n{style}</style>{head}</head>\n"
        f"<body><h1>{text(title)}</h1>\n" + "\n".join(filter(None, parts)) + "\n</body></html>\n",
    )
    return path


def embedded(content: str) -> str:
    """Return a piece of a page with the page's look, for a notebook; the look stays inside the piece (CSS @scope)."""
    style = STYLE.read_text(encoding="utf-8").replace(":root", ":scope").replace("body {", ":scope {")
    return f"<div><style>@scope {{\n{style}}}</style>{content}</div>"


def text(told: object) -> str:
    """Return a text for a page: what HTML would take for itself is escaped, and so are bytes that are no text."""
    return escape(readable(str(told)))


def gallery(figures: Iterable[str]) -> str:
    """Return figures side by side, as many in a row as there is room for."""
    return "<main>\n" + "\n".join(figures) + "\n</main>"


def figure(path: Path, caption: str) -> str:
    """Return an image in small over its caption (HTML)."""
    return f"<figure>{image(path)}<figcaption>{caption}</figcaption></figure>"


def image(path: Path) -> str:
    """Return an image in small as an element; where it cannot be read, why not."""
    try:
        return picture(small(read_image(path, at_least=(SIDE, SIDE))))
    except ImageError as error:
        return f"<p class=gone>{text(error.reason)}</p>"


def small(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return an image, (height, width, 3) uint8, with its longer side at most 240 pixels."""
    thumbnail = Image.fromarray(pixels)
    scale = min(1.0, SIDE / max(thumbnail.size))
    return thumbnail.resize((max(1, round(thumbnail.width * scale)), max(1, round(thumbnail.height * scale))))


def picture(shown: Image.Image) -> str:
    """Return an image as an element that holds it, as JPEG; it is decoded when it comes into view."""
    encoded = io.BytesIO()
    shown.save(encoded, "JPEG", quality=80)
    content = base64.b64encode(encoded.getvalue()).decode("ascii")
    return f'<img loading=lazy decoding=async alt="" src="data:image/jpeg;base64,{content}">'
