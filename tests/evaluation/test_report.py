from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from whichcar.evaluation.evaluate import evaluate
from whichcar.evaluation.report import write_report
from whichcar.evaluation.result import Result

Painter = Callable[..., Path]


@pytest.fixture
def result(experiment: Path) -> Result:
    return evaluate(experiment)


class _Tags(HTMLParser):
    """Collects what a page refers to, and that its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "br", "input", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: Path) -> _Tags:
    tags = _Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    return tags


def test_the_page_is_well_formed_and_needs_nothing_from_outside(result: Result) -> None:
    tags = read(result.folder / "report.html")
    assert tags.open == []
    assert tags.sources and all(source.startswith("data:image/") for source in tags.sources)
    assert not {"script", "link", "iframe"} & set(tags.names)
    assert "url(" not in (result.folder / "report.html").read_text(encoding="utf-8")


def test_the_page_shows_the_numbers_the_error_and_where_they_come_from(result: Result) -> None:
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"<style>.*</style>|<[^>]+>", "", page, flags=re.DOTALL)
    assert "80.0\u00a0%\ncorrect on 4 of 5 test images" in text
    assert "1 more could not be read" in text
    assert "evaluated on them once" in text
    assert "whichcar evaluate" in text
    assert "20.jpg" in text
    assert 'alt="Red Sedan 2011"' in page


def test_names_cannot_break_the_page(result: Result) -> None:
    evil = '<script>alert(1)</script> & "Co" \'13'
    classes = tuple(replace(score, name=evil) for score in result.classes)
    misclassified = tuple(replace(error, predicted=evil, label=evil) for error in result.misclassified)
    confused = tuple(replace(pair, predicted=evil) for pair in result.confused)
    page = write_report(replace(result, classes=classes, misclassified=misclassified, confused=confused))
    tags = read(page)
    assert tags.open == []
    assert "script" not in tags.names


def test_an_image_that_is_gone_is_replaced_by_the_reason(result: Result) -> None:
    result.misclassified[0].path.unlink()
    page = write_report(result).read_text(encoding="utf-8")
    assert 'alt="Red Sedan 2011"' not in page
    assert "<p class=gone>no such file" in page


def test_training_curves_are_shown_where_there_are_any(result: Result, painter: Painter) -> None:
    assert "Training</h2>" not in (result.folder / "report.html").read_text(encoding="utf-8")
    painter(result.folder / "curves.png", (9, 9, 9))
    assert "Training</h2>" in write_report(result).read_text(encoding="utf-8")


def test_a_perfect_result_has_no_list_of_errors(result: Result) -> None:
    page = write_report(replace(result, misclassified=(), confused=(), unreadable=())).read_text(encoding="utf-8")
    assert "Most confident errors" not in page
    assert "Most confused" not in page
    assert "Not readable" not in page
