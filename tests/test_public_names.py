"""Everything in `whichcar.__all__` takes a path as text as well as a `Path`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whichcar
from whichcar.errors import WhichcarError


def routines() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every public function, and every public method of a public class."""
    for name in whichcar.__all__:
        found = getattr(whichcar, name)
        if not inspect.isclass(found):
            yield name, found
            continue
        yield name, found.__init__
        for inner, method in inspect.getmembers(found, inspect.isfunction):
            if not inner.startswith("_"):
                yield f"{name}.{inner}", method


@pytest.mark.parametrize(("name", "routine"), [pytest.param(*pair, id=pair[0]) for pair in routines()])
def test_a_parameter_that_is_a_path_may_be_text(name: str, routine: Callable[..., Any]) -> None:
    for parameter, kind in inspect.get_annotations(routine).items():
        words = set(re.findall(r"\w+", str(kind)))
        if parameter != "return" and "Path" in words:
            assert "str" in words, f"{name}({parameter}: {kind})"


def test_the_stages_and_the_classifier_are_public() -> None:
    stages = {"fetch", "check", "split", "look", "explore", "crop", "new", "train", "sweep", "evaluate", "predict"}
    assert stages | {"compare", "export", "Classifier", "predict_from_folder"} <= set(whichcar.__all__)


def test_text_and_path_do_the_same_in_the_stages_before_training(drawn: Path, tmp_path: Path) -> None:
    labels = drawn / "car_dataset_labels.csv"
    assert whichcar.split(str(drawn), str(labels), str(tmp_path / "text")) is not None
    whichcar.split(drawn, labels, tmp_path / "path")
    assert [p.relative_to(tmp_path / "text") for p in sorted((tmp_path / "text").rglob("*"))] == [
        p.relative_to(tmp_path / "path") for p in sorted((tmp_path / "path").rglob("*"))
    ]
    assert len(whichcar.check(str(tmp_path / "text")).collection.entries) == 32
    page = whichcar.look(str(tmp_path / "text"), output=str(tmp_path / "page.html"))
    assert Path(page).is_file()
    fetched = whichcar.fetch(str(drawn), str(tmp_path / "fetched"))
    assert fetched is not None and (tmp_path / "fetched" / "car_dataset_labels.csv").is_file()


def test_crop_takes_text(drawn: Path, tmp_path: Path, red_car_file: Path) -> None:
    rows = list(whichcar.crop(str(drawn / "car_ims"), str(tmp_path / "crops"), detector=str(red_car_file)))
    assert len(rows) == 32
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 20:40] = (230, 20, 20)
    left, top, right, bottom = whichcar.get_vehicle_coordinates(image, detector=str(red_car_file))
    assert (left, top, right, bottom) == pytest.approx((20, 10, 40, 20), abs=3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: whichcar.Classifier("gone"),
        lambda: whichcar.check("gone"),
        lambda: whichcar.compare("gone"),
        lambda: whichcar.compare(["gone"], against="lost"),
        lambda: whichcar.create_model("gone.h5"),
        lambda: list(whichcar.crop("gone", "output")),
        lambda: whichcar.evaluate("gone"),
        lambda: whichcar.evaluate("gone", "data", detector="d.onnx", crop=True),
        lambda: whichcar.export("gone"),
        lambda: whichcar.fetch("gone.zip"),
        lambda: whichcar.load_config("gone.yml"),
        lambda: whichcar.look("gone"),
        lambda: whichcar.new("mine", "gone"),
        lambda: whichcar.predict("gone", "a.jpg"),
        lambda: whichcar.predict_from_folder("gone", None, 32, ["a", "b"]),
        lambda: whichcar.split("gone", "gone.csv", "output"),
        lambda: whichcar.sweep("gone.yml"),
        lambda: whichcar.train("gone.yml"),
    ],
)
def test_text_that_names_nothing_is_an_error_of_ours_that_names_it(
    call: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WhichcarError, match=r"gone|lost"):
        call()
