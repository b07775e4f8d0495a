"""Labels of plots: any text, with the fonts that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from whichcar.figures import lettering, save_figure


def drawn(label: str, **options: object) -> str:
    """Return what matplotlib shows for a label: the text itself, where it is no formula."""
    figure = Figure()
    text = figure.text(0, 0, label, **options)
    shown, is_formula = text._preprocess_math(label)
    assert not is_formula
    return str(shown)


@pytest.mark.parametrize("name", ["Ba$$in", "$x$", "one $", "a\\$b", "\\$x\\$", "plain", "50 % #1 {a}_b^c"])
def test_a_label_shows_the_name_itself(name: str) -> None:
    assert drawn(lettering([name]).label(name)) == name


def test_a_character_that_no_font_has_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    only = [entry for entry in font_manager.fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", only)
    letters = lettering(["🚗 \u957f!"])  # in no other test: the answer is remembered
    assert letters.label("🚗 \u957f!") == "[automobile] [957F]!"
    assert letters.families == ("DejaVu Sans",)


def test_a_font_that_has_the_characters_is_taken(tmp_path: Path) -> None:
    name = "\ue0ff \U0001d49c cars"  # only in fonts of formulas
    letters = lettering([name])
    others = {entry.name for entry in font_manager.fontManager.ttflist} - {"DejaVu Sans"}
    assert len(letters.families) > 1 and set(letters.families[1:]) <= others
    figure = Figure()
    figure.text(0, 0, letters.label(name), fontfamily=letters.families)
    save_figure(figure, tmp_path / "figure.png", dpi=50)  # a missing glyph would be a warning, which is an error here


def test_a_long_name_is_cut_in_its_middle() -> None:
    assert lettering([]).label("a" * 100 + "z" * 100) == "a" * 30 + "…" + "z" * 29


def test_wide_letters_get_more_room() -> None:
    letters = lettering(["abc"])
    assert letters.width(["abc", "a"], 10) == pytest.approx(3 * 0.6 * 10 / 72)
