"""Results that earlier versions wrote are still read; `earlier/` has files of one."""

import json
import shutil
from pathlib import Path

import pytest

from whichcar.evaluation.compare.experiments import compare
from whichcar.evaluation.compare.paired import paired
from whichcar.evaluation.evaluate import evaluate
from whichcar.evaluation.mcnemar import Paired
from whichcar.evaluation.result_file import as_json, read_result
from whichcar.evaluation.upgrade import read_predictions, upgrade_result
from whichcar.training.run.test_uses import count_use, read_uses

EARLIER = Path(__file__).parent / "earlier"
IMAGES = "f6e0c864d23ca3653979217e597eeebe"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """An experiment's folder that an earlier version wrote."""
    shutil.copytree(EARLIER, tmp_path / "exp_9")
    return tmp_path / "exp_9"


def test_an_earlier_result_has_the_field_names_of_today(earlier: Path) -> None:
    result = read_result(earlier)
    assert result["top_1"] == {"value": 0.8, "correct": 4, "total": 5, "interval_95": [0.375535, 0.963776]}
    assert (result["data"]["split"], result["data"]["images"], result["images_per_second"]) == ("test", 5, 14.84)
    assert result["most_confused"] == [
        {"label": "Red Sedan 2011", "predicted": "Green Coupe 2010", "count": 1, "total": 2}
    ]
    assert [(row["images"], row["correct"], row["predicted"]) for row in result["classes"]] == [
        *((1, 1, 1), (2, 2, 3), (2, 1, 1))
    ]


def test_an_earlier_result_of_images_of_no_split_is_of_images() -> None:
    assert upgrade_result({"data": {"part": "pictures"}}) == {"data": {"split": "images"}}


def test_a_result_of_today_and_a_damaged_one_stay_as_they_are(experiment: Path) -> None:
    result = as_json(evaluate(experiment))
    assert upgrade_result(result) == result
    damaged = {"top_1": [], "data": None, "classes": [None, 3]}
    assert upgrade_result(damaged) == damaged


def test_an_earlier_result_is_compared_with_one_of_today(earlier: Path, tmp_path: Path) -> None:
    today = tmp_path / "today"
    today.mkdir()
    (today / "result.json").write_text(json.dumps(read_result(earlier)))
    header, *rows = (earlier / "predictions.csv").read_text().splitlines()
    names = header.replace("truth", "label").replace("prediction", "predicted")
    table = "\n".join([names.replace("right", "correct").replace("problem", "error"), *rows])
    (today / "predictions.csv").write_text(table + "\n")
    assert paired(earlier, today) == paired(today, earlier) == Paired(5, 0, 0)
    assert "| exp_9 | **0.800** | 0.376–0.964 | 5 test |" in compare([earlier])


def test_an_earlier_table_of_cropped_images_has_both_its_columns_called_right() -> None:
    rows = read_predictions(EARLIER / "predictions_with_crop.csv")
    assert [row["correct"] for row in rows] == ["1", "1", "1", "0", "1"]
    assert {(row["left"], row["right"]) for row in rows} == {("0", "48")}


def test_a_table_of_today_keeps_the_side_of_the_box(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("path,label,correct,right,error\na.jpg,A,1,48,\n")
    assert read_predictions(tmp_path / "predictions.csv") == [
        {"path": "a.jpg", "label": "A", "correct": "1", "right": "48", "error": ""}
    ]


def test_an_earlier_count_of_uses_goes_on(earlier: Path) -> None:
    assert count_use(earlier, IMAGES, {"split": "test"}) == 2
    assert [use["split"] for use in read_uses(earlier)[IMAGES]["uses"]] == ["test", "test"]
    assert "part" not in (earlier / "test_uses.json").read_text()
