"""The frame of every page: escaping, long names, no network, and templates that come with the package."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from whichcar.pages.render import breakable, fragment, percent, prose, write_page
from whichcar.pages.thumbnails import SIDE, Figure, evenly, image_tag, thumbnail
from whichcar.version import VERSION

EMPTY = {"summary": "none", "counts": {}, "sections": []}


def test_a_page_has_its_heading_the_command_and_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/lib/whichcar/__main__.py", "check", "my cars", "password=abc"])
    page = write_page(tmp_path / "a" / "page.html", "check", "my_cars", **EMPTY).read_text(encoding="utf-8")
    assert "<h1>my_<wbr>cars</h1>" in page
    assert "<code>whichcar check &#39;my cars&#39; &#39;password=***&#39;</code>" in page
    assert f"<footer>whichcar {VERSION}</footer>" in page


def test_a_page_may_load_nothing_and_runs_no_script(tmp_path: Path) -> None:
    page = write_page(tmp_path / "page.html", "check", "cars", **EMPTY).read_text(encoding="utf-8")
    assert "default-src 'none'" in page and "script-src" not in page
    assert not re.search(r"url\(|@import|<link|<script|https?://", page)


def test_text_is_escaped_and_bytes_that_are_not_text_are_readable(tmp_path: Path) -> None:
    title = os.fsdecode(b"<b>\xff & \n'c'")
    page = write_page(tmp_path / "page.html", "check", title, **EMPTY).read_text(encoding="utf-8")
    assert "<h1>&lt;b&gt;\\udcff &amp; \\n&#39;c&#39;</h1>" in page


def test_a_missing_variable_is_an_error_and_leaves_no_page(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="summary"):
        write_page(tmp_path / "page.html", "check", "cars", counts={}, sections=[])
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("car_ims/000001.jpg", "car_|ims/|000001.jpg"),
        ("a-b__c.tar.gz", "a-|b__|c.tar.gz"),
        ("0123456789abcdef.jpg", "0123456789abcdef|.jpg"),
        ("Audi A4 2012", "Audi A4 2012"),
        ("./x", "./|x"),
        ("<b>/c", "&lt;b&gt;/|c"),
    ],
)
def test_long_names_wrap_at_separators_and_not_inside_the_suffix(name: str, expected: str) -> None:
    assert breakable(name) == expected.replace("|", "<wbr>")


def test_code_in_a_sentence_is_shown_as_code_and_all_is_escaped() -> None:
    assert prose("run `whichcar <x>` & see") == "run <code>whichcar &lt;x&gt;</code> &amp; see"
    assert prose("one ` alone & more") == "one ` alone &amp; more"


def test_proportions_are_percentages() -> None:
    assert (percent(0.8312), percent(1, 0)) == ("83.1\u00a0%", "100\u00a0%")


def test_a_fragment_for_a_notebook_carries_its_style_and_escapes() -> None:
    html = fragment("facts", [("<b>", "1 & 2")])
    assert "<th>&lt;b&gt;</th><td>1 &amp; 2</td>" in html
    assert html.count("@scope") == 1 and ":root" not in html


def test_a_thumbnail_is_no_larger_than_its_side_and_never_enlarged() -> None:
    assert thumbnail(np.zeros((1000, 2000, 3), np.uint8)).size == (SIDE, SIDE // 2)
    assert thumbnail(Image.new("RGB", (20, 10))).size == (20, 10)
    assert thumbnail(np.zeros((1, 5000, 3), np.uint8)).size == (SIDE, 1)


def test_an_image_that_cannot_be_read_is_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no <i>mage")
    assert str(image_tag(tmp_path / "a.jpg")).startswith("<p class=gone>")
    assert "&lt;i&gt;" in image_tag(tmp_path / "a.jpg")
    assert 'alt="&#34;\\udcff"' in image_tag(np.zeros((2, 2, 3), np.uint8), '"\udcff')


def test_figures_have_title_note_and_path() -> None:
    html = fragment("gallery", [Figure(np.zeros((2, 2, 3), np.uint8), "A & B", "train", "a/b.jpg")])
    assert "<figcaption><b>A &amp; B</b> train <span class=soft>a/<wbr>b.jpg</span></figcaption>" in html


def test_few_of_many_are_spread_over_all() -> None:
    assert evenly(range(8), 8, 4) == [0, 2, 4, 6]
    assert evenly(range(3), 3, 4) == [0, 1, 2]
