"""Plots that stages draw with matplotlib: no display, no global state, and any name as a label."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from whichcar.files import atomic_write
from whichcar.text import one_line, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BASE = "DejaVu Sans"  # comes with matplotlib


@dataclass(frozen=True, slots=True)
class Lettering:
    """How text is turned into labels of a plot.

    `families` are installed fonts that together cover the characters, for matplotlib's `fontfamily`. `missing` are the
    characters that none of them has.
    """

    families: tuple[str, ...]
    missing: frozenset[str]

    def label(self, text: str) -> str:
        """Return a text as a label: shortened to one line, never read as a formula, and without empty boxes."""
        text = shortened(one_line(text))
        return "".join(_spelled(c) if c in self.missing else c for c in text).replace("$", r"\$")

    def labels(self, texts: Iterable[str]) -> list[str]:
        """Return the label of each text."""
        return [self.label(text) for text in texts]

    def width(self, texts: Iterable[str], size: float) -> float:
        """Return the approximate width in inches of the longest of these labels at a font size of `size` points."""
        return max((sum(map(_ems, self.label(text))) for text in texts), default=0.0) * size / 72


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure atomically as a PNG of 64 colours, a quarter of the size with all colours."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, format="png")
    with atomic_write(path) as tmp, Image.open(drawn) as image:
        few = image.convert("RGB").quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(tmp, "PNG", optimize=True)


def lettering(texts: Iterable[str]) -> Lettering:
    """Return the `Lettering` for these texts with the fonts of this machine."""
    return _lettering(frozenset("".join(shortened(one_line(text)) for text in texts)))


@lru_cache(maxsize=16)
def _lettering(letters: frozenset[str]) -> Lettering:
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    missing = set(letters) - _covered(findfont(FontProperties(_BASE)))
    families = [_BASE]
    for entry in fontManager.ttflist if missing else ():
        # The Last Resort font has a box for every character.
        usable = entry.style == "normal" and entry.name not in families and not entry.name.startswith("Last Resort")
        if usable and (covered := _covered(entry.fname) & missing):
            families.append(entry.name)
            missing -= covered
    return Lettering(tuple(families), frozenset(missing))


@lru_cache(maxsize=512)
def _covered(file: str) -> frozenset[str]:
    """Return the characters of a font file; none if the font cannot be used, as with bitmap emoji fonts."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(file)
    except (OSError, RuntimeError):  # deleted since matplotlib listed it, or in a format that it cannot read
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def _spelled(character: str) -> str:
    """Return the Unicode name or code point of a character that no font has: `[automobile]`, `[9577]`."""
    name = unicodedata.name(character, "")
    return f"[{name.lower()}]" if name and not any(c.isdigit() for c in name) else f"[{ord(character):X}]"


def _ems(character: str) -> float:
    # Estimated by eye: DejaVu's letters are 0.6 em wide, East Asian ones 1 em.
    return 1.0 if unicodedata.east_asian_width(character) in "WF" else 0.6
