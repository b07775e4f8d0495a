"""Answers as specific as they are certain, from probabilities that are worked out by hand."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from whichcar.errors import CheckpointError, ConfigError, DataError
from whichcar.files import write_json
from whichcar.inference.answer import (
    Calibration,
    Thresholds,
    answers,
    entropy,
    find_calibration,
    read_calibration,
    tempered,
)
from whichcar.records import Crop, Metadata
from whichcar.taxonomy import taxonomy_of

NAMES = ("Audi S4 Sedan 2007", "Audi S4 Sedan 2012", "Audi S5 Coupe 2012", "Volvo 240 Sedan 1993", "Volvo C30 2012")
LEVELS = taxonomy_of(NAMES).levels
ROWS = np.array(
    [[0.95, 0.02, 0.01, 0.01, 0.01], [0.5, 0.42, 0.03, 0.03, 0.02], [0.4, 0.2, 0.32, 0.03, 0.05], [0.2] * 5], np.float32
)


def test_the_answer_is_at_the_finest_level_that_is_certain_enough() -> None:
    given = answers(ROWS, LEVELS, Thresholds(0.9, {"class": 0.9, "model": 0.9, "make": 0.9}))
    assert [(one.level, one.name) for one in given] == [
        ("class", "Audi S4 Sedan 2007"),
        ("model", "Audi S4"),
        ("make", "Audi"),
        ("", "unknown"),
    ]
    assert [one.probability for one in given] == pytest.approx([0.95, 0.92, 0.92, 0.6])


def test_each_level_has_its_own_threshold_and_one_without_is_never_answered() -> None:
    given = answers(ROWS, LEVELS, Thresholds(0.9, {"model": 0.91, "make": 0.65}))
    assert [one.level for one in given] == ["model", "model", "make", ""]
    assert [one.level for one in answers(ROWS, LEVELS, Thresholds(0.99, {}))] == [""] * 4
    assert answers(ROWS[:0], LEVELS, Thresholds(0.9, {"class": 0.9})) == []


def test_a_single_level_is_enough() -> None:
    levels = taxonomy_of(("black cat", "white cat")).levels
    given = answers(np.array([[0.9, 0.1], [0.6, 0.4]], np.float32), levels, Thresholds(0.9, {"class": 0.8}))
    assert [one.name for one in given] == ["black cat", "unknown"]


def test_an_image_that_is_like_none_of_the_classes_is_unknown_however_probable_its_make() -> None:
    least = {"class": 0.9, "model": 0.9, "make": 0.5}
    assert entropy(ROWS) == pytest.approx([0.265, 1.0, 1.308, np.log(5)], abs=1e-3)
    given = answers(ROWS, LEVELS, Thresholds(0.9, least, most_entropy=1.0))
    assert [one.level for one in given] == ["class", "model", "", ""]
    assert given[2].name == "unknown" and given[2].probability == pytest.approx(0.92)
    assert [one.level for one in answers(ROWS, LEVELS, Thresholds(0.9, least))] == ["class", "model", "make", "make"]


def test_an_image_left_whole_for_want_of_a_vehicle_is_unknown() -> None:
    crops = [Crop("a", None, "", None, 0, outcome) for outcome in ("whole: no vehicle", "cropped")]
    given = answers(ROWS, LEVELS, Thresholds(0.9, {"make": 0.5}), [*crops, None, None])
    assert [one.level for one in given] == ["", "make", "make", "make"]


def test_a_temperature_of_one_changes_nothing_and_others_divide_the_logits() -> None:
    assert tempered(ROWS, 1.0) == pytest.approx(ROWS, abs=1e-6)
    logits = np.array([[2.0, 0.5, -1.0]])
    softmax = np.exp(logits) / np.exp(logits).sum()
    expected = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum()
    assert tempered(softmax, 2.5) == pytest.approx(expected, abs=1e-6)
    assert tempered(np.array([[1.0, 0.0]], np.float32), 0.25).tolist() == [[1.0, 0.0]]


CALIBRATION = Calibration(
    1.25, 1301, "abc", (0.5, 0.45), {"class": (0.1, 0.02)}, (Thresholds(0.9, {"class": 0.7}), Thresholds(0.99, {}, 299))
)


def test_a_calibration_is_the_same_after_a_way_through_a_file(tmp_path: Path) -> None:
    write_json(tmp_path / "calibration.json", dataclasses.asdict(CALIBRATION))
    assert read_calibration(tmp_path / "calibration.json") == CALIBRATION


def test_a_calibration_of_an_earlier_version_has_no_limit_of_entropy(tmp_path: Path) -> None:
    content = dataclasses.asdict(CALIBRATION)
    for thresholds in content["thresholds"]:
        del thresholds["most_entropy"]
    write_json(tmp_path / "calibration.json", content)
    assert read_calibration(tmp_path / "calibration.json") == CALIBRATION


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "{}"),
        *(
            json.dumps(dataclasses.asdict(CALIBRATION) | {name: value})
            for name, value in (("images", "many"), ("images", 0), ("temperature", 0), ("temperature", float("nan")))
        ),
        json.dumps(dataclasses.asdict(CALIBRATION) | {"thresholds": []}),
    ],
)
def test_a_damaged_calibration_is_an_error_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(
        DataError, match=r"calibration.json: damaged, .*; make it again with: whichcar evaluate "
    ) as error:
        read_calibration(tmp_path / "calibration.json")
    assert "\n" not in str(error.value)


def test_a_bundle_that_was_moved_since_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a.whichcar: cannot be read as a bundle \(No such file"):
        find_calibration(tmp_path / "a.whichcar", Metadata((), (), (1, 1), {}, {}, "", None, {}))


def test_an_accuracy_without_thresholds_has_those_of_the_next_higher_one() -> None:
    assert CALIBRATION.thresholds_for(0.9).wanted == 0.9
    assert CALIBRATION.thresholds_for(0.93).wanted == 0.99
    with pytest.raises(ConfigError, match=r"thresholds are chosen for an accuracy of 0.9, 0.99; got 0.999"):
        CALIBRATION.thresholds_for(0.999)
