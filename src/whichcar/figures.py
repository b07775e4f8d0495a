"""Plots that stages draw with matplotlib: no display, no global state, and any name as a label."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from whichcar.errors import MissingExtraError
from whichcar.files import atomic_write
from whichcar.text import one_line, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BASE = "DejaVu Sans"  # comes with matplotlib


@dataclass(frozen=True, slots=True)
class Lettering:
    """How texts become labels of a plot.

    `families` are fonts of this machine that together have the characters, for matplotlib's `fontfamily`; those in
    `missing` are in none of them.
    """

    families: tuple[str, ...]
    missing: frozenset[str]

    def label(self, text: str) -> str:
        """Return a text as a label: one line, not too long, never read as a formula, without empty boxes."""
        text = shortened(one_line(text))
        return "".join(_spelled(c) if c in self.missing else c for c in text).replace("$", r"\$")

    def labels(self, texts: Iterable[str]) -> list[str]:
        """Return `label` of each text."""
        return [self.label(text) for text in texts]

    def width(self, texts: Iterable[str], size: float) -> float:
        """Return about how many inches the longest of these labels is, in letters of `size` points."""
        return max((sum(map(_ems, self.label(text))) for text in texts), default=0.0) * size / 72


def new_figure(**options: Any) -> Figure:  # noqa: ANN401  (of matplotlib's Figure)
    """Return an empty figure.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "cpu") from error
    return Figure(**options)


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure as PNG of 64 colours, a quarter as large as with all, whole or not at all."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, format="png")
    with atomic_write(path) as tmp, Image.open(drawn) as image:
        few = image.convert("RGB").quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(tmp, "PNG", optimize=True)


def lettering(texts: Iterable[str]) -> Lettering:
    """Return how these texts are labelled with the fonts of this machine."""
    return _lettering(frozenset("".join(shortened(one_line(text)) for text in texts)))


@lru_cache(maxsize=16)
def _lettering(letters: frozenset[str]) -> Lettering:
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    missing = set(letters) - _covered(findfont(FontProperties(_BASE)))
    families = [_BASE]
    for entry in fontManager.ttflist if missing else ():
        # The last resort has a box for every character.
        usable = entry.style == "normal" and entry.name not in families and not entry.name.startswith("Last Resort")
        if usable and (covered := _covered(entry.fname) & missing):
            families.append(entry.name)
            missing -= covered
    return Lettering(tuple(families), frozenset(missing))


@lru_cache(maxsize=512)
def _covered(file: str) -> frozenset[str]:
    """Return the characters of a font file; none where it cannot be drawn with, as with emoji made of images."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(file)
    except (OSError, RuntimeError):  # gone since matplotlib listed it, or of a kind that it cannot read
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def _spelled(character: str) -> str:
    """Return a character that no font has in words, or as its number: `[automobile]`, `[9577]`."""
    name = unicodedata.name(character, "")
    return f"[{name.lower()}]" if name and not any(c.isdigit() for c in name) else f"[{ord(character):X}]"


def _ems(character: str) -> float:
    # By eye: DejaVu's letters are 0.6 of their size wide, East Asian ones all of it.
    return 1.0 if unicodedata.east_asian_width(character) in "WF" else 0.6
