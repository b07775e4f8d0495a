from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.errors import CheckpointError
from whichcar.evaluation.evaluate import evaluate
from whichcar.evaluation.report import report_parts, write_report
from whichcar.evaluation.result import Result
from whichcar.inference.classifier import Classifier
from whichcar.inference.explain import Explainer
from whichcar.metrics import Proportion

from ..colours import make_experiment, make_tree

Painter = Callable[..., Path]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, colour_model: object) -> Result:
    folder = tmp_path_factory.mktemp("evaluated")
    return evaluate(make_experiment(folder / "exp_9", make_tree(folder), colour_model))


@pytest.fixture
def result(evaluated: Result, tmp_path: Path) -> Result:
    """A result in a folder of its own."""
    shutil.copytree(evaluated.folder, tmp_path / "result")
    return replace(evaluated, folder=tmp_path / "result")


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


def test_the_page_says_what_the_images_are_and_what_the_network_does_with_them(result: Result, tmp_path: Path) -> None:
    def origin_of(result: Result) -> str:
        page = (result.folder / "report.html").read_text(encoding="utf-8").partition("Where these numbers")[2]
        return re.sub(r"<[^>]+>", "", page)

    height, width = result.origin.image_size
    assert f"{height} x {width}; the network resizes each image to it without keeping" in origin_of(result)
    assert f"5 test images of {result.origin.data_root}, as they are in it fingerprint" in origin_of(result)
    shutil.copytree(result.origin.data_root, tmp_path / "crops")
    (tmp_path / "crops" / "crop.json").write_text("{}")
    crops = evaluate(result.folder, tmp_path / "crops")
    assert f"images of {tmp_path}/crops, cropped to the vehicle by whichcar crop fingerprint" in origin_of(crops)


def test_the_parts_of_the_page_are_there_for_a_notebook(result: Result) -> None:
    parts = report_parts(result)
    assert list(parts) == [
        *("", "Answers as specific as they are certain", "Certainty", "Most confident errors", "Most confused"),
        *("Confusion matrix", "By class, lowest recall first", "Not readable, not counted: 1"),
        "Where these numbers come from",
    ]
    assert "correct on 4 of 5 test images" in parts[""] and "<td>Red Sedan 2011</td>" in parts[list(parts)[6]]
    for content in parts.values():
        tags = _Tags()
        tags.feed(content)
        assert tags.open == [] and "@scope" in content


def test_names_cannot_break_the_page(result: Result) -> None:
    evil = '<script>alert(1)</script> & "Co" \'13'
    misclassified = tuple(replace(error, predicted=evil, label=evil) for error in result.misclassified)
    examples = tuple(replace(one, pair=replace(one.pair, predicted=evil)) for one in result.examples)
    classes = tuple(replace(score, name=evil) for score in result.classes)
    levels = tuple(replace(score, name=evil, per_group=classes) for score in result.levels)
    page = write_report(replace(result, misclassified=misclassified, examples=examples, levels=levels))
    tags = read(page)
    assert tags.open == []
    assert "script" not in tags.names


def test_an_image_that_is_gone_is_replaced_by_the_reason(result: Result) -> None:
    misclassified = (replace(result.misclassified[0], path=Path("gone.jpg"), map=None),)
    page = write_report(replace(result, misclassified=misclassified, examples=())).read_text(encoding="utf-8")
    assert 'alt="Red Sedan 2011"' not in page
    assert "<p class=gone>no such file" in page


def images_between(page: str, first: str, last: str) -> list[np.ndarray]:
    part = page.partition(first)[2].partition(last)[0]
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)", part)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_a_confused_image_is_shown_next_to_a_training_image_of_the_other_class(result: Result) -> None:
    assert [(one.image.name, one.reference_split) for one in result.examples] == [("20.jpg", "train")]
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    wrong, other = images_between(page, "Most confused", "Confusion matrix")
    assert result.examples[0].reference == Path(result.origin.data_root) / "train" / "Green Coupe 2010" / "13.jpg"
    assert wrong.shape == other.shape and wrong[..., 1].mean() > 150 and other[..., 1].mean() > 150
    assert "Right: a training image of the class it was taken for." in page
    assert "1 of 2 images of the label</p>" in page


def test_without_training_images_an_evaluated_one_of_the_other_class_is_shown(experiment: Path, tree: Path) -> None:
    held = (tree / "test").rename(tree.parent / "held")
    shutil.rmtree(tree)
    examples = evaluate(experiment, held).examples
    assert [(one.reference, one.reference_split) for one in examples] == [
        (held / "Green Coupe 2010" / "10.jpg", "images")
    ]
    (held / "Green Coupe 2010" / "10.jpg").unlink()
    (held / "Green Coupe 2010" / "11.jpg").unlink()
    result = evaluate(experiment, held)
    assert [one.reference for one in result.examples] == [None]
    assert "<p class=gone>no image</p>" in (result.folder / "report.html").read_text(encoding="utf-8")


def test_charts_are_drawn_in_the_page(result: Result) -> None:
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    charts = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert [re.search(r'aria-label="([^"]+)"', chart)[1] for chart in charts] == [  # type: ignore[index]
        "accuracy, by share of images answered",
        "accuracy, by probability of the predicted class",
    ]
    assert "<span class=line1>calibrated</span> <span class=line2>as the network gives it</span>" in page


def test_an_error_is_shown_with_what_speaks_for_the_answer_and_against_the_label(
    experiment: Path, tmp_path: Path
) -> None:
    halves = np.full((36, 48, 3), (210, 40, 30), np.uint8)
    halves[:, 24:] = (0, 250, 0)  # so it is taken for a green one
    path = tmp_path / "mine" / "Red Sedan 2011" / "a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(halves).save(path)
    result = evaluate(experiment, tmp_path / "mine")
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    image, coloured = images_between(page, "Most confident errors", "Most confused")
    assert image.shape == (36, 48, 3) and coloured.shape == (24, 32, 3)  # as the network sees it
    red, green = coloured[:, :12].mean(axis=(0, 1)), coloured[:, 20:].mean(axis=(0, 1))
    assert np.abs(red - halves[0, 0]).max() < 25 and np.abs(green - halves[0, -1]).max() > 100


@pytest.mark.parametrize(("owner", "name"), [(Classifier, "explainer"), (Explainer, "explain")])
def test_a_network_that_cannot_be_explained_has_errors_without_maps(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    def refuse(*_: object, **__: object) -> None:  # at once, or at the first image
        raise CheckpointError("cannot be explained")

    monkeypatch.setattr(owner, name, refuse)
    result = evaluate(experiment)
    assert [error.map for error in result.misclassified] == [None]
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert len(images_between(page, "Most confident errors", "Most confused")) == 1
    assert "Coloured is" not in page


def test_the_bar_of_a_class_is_as_long_as_its_recall(result: Result) -> None:
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"--share:([^\"]+)\"", page) == ["50.0%", "100.0%", "100.0%"]  # without a space, as CSS has it


def test_of_many_classes_the_easier_ones_are_folded(result: Result) -> None:
    many = tuple(replace(result.classes[0], name=f"class {number}") for number in range(50))
    levels = (replace(result.levels[0], per_group=many),)
    page = write_report(replace(result, levels=levels)).read_text(encoding="utf-8")
    assert "<summary>30 classes of higher recall</summary>" in page and read(result.folder / "report.html").open == []


def test_training_curves_are_shown_where_there_are_any(result: Result, painter: Painter) -> None:
    assert "Training</h2>" not in (result.folder / "report.html").read_text(encoding="utf-8")
    painter(result.folder / "curves.png", (9, 9, 9))
    assert "Training</h2>" in write_report(result).read_text(encoding="utf-8")


def test_a_perfect_result_has_no_list_of_errors(result: Result) -> None:
    page = write_report(replace(result, misclassified=(), confused=(), examples=(), unreadable=())).read_text(
        encoding="utf-8"
    )
    assert "Most confident errors" not in page
    assert "Most confused" not in page
    assert "Not readable" not in page


@pytest.mark.slow
def test_no_number_runs_over_the_edge_of_its_box(result: Result) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here; install the package chromium")
    total = result.levels[0].top_1.total
    levels = (replace(result.levels[0], top_1=Proportion(total, total)), *result.levels[1:])
    page = write_report(replace(result, levels=levels, before_refit=Proportion(total - 1, total)))
    assert re.search(r"\d\d\.\d–100\.0", page.read_text())
    too_wide = "[...document.querySelectorAll('.facts b')].filter(one => one.scrollWidth > one.clientWidth).length"
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.goto(page.as_uri())
        for width in (1280, 390):
            opened.set_viewport_size({"width": width, "height": 600})
            assert opened.evaluate(too_wide) == 0
            assert opened.evaluate("document.documentElement.scrollWidth") == width
        browser.close()
