from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from whichcar.cli.evaluate import render_result
from whichcar.cli.main import run
from whichcar.errors import CheckpointError, DataError
from whichcar.evaluation.compare.experiments import compare
from whichcar.evaluation.compare.paired import paired
from whichcar.evaluation.eval_set import held_out, tree_of
from whichcar.evaluation.evaluate import evaluate
from whichcar.files import checksum, write_json
from whichcar.inference.classifier import Classifier
from whichcar.text import shell_command
from whichcar.training.run.checkpoint import read_metadata
from whichcar.training.run.history import Epoch, write_history
from whichcar.training.tracking import tracking_of

from ..colours import CLASSES, FOLDERS, add_refit, draw, make_experiment
from ..permissions import only

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Painter = Callable[..., Path]
RED, GREEN, BLUE = (210, 40, 30), (30, 190, 40), (30, 40, 200)


@pytest.fixture
def plots() -> None:
    """Have the plots drawn: other tests leave them out, since they take as long as all the rest."""


@pytest.fixture(autouse=True)
def _few_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "plots" not in request.fixturenames:
        monkeypatch.setattr("whichcar.evaluation.evaluate._plot", lambda *_: None)


def result_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return content


def test_the_result_counts_correct_predictions_and_leaves_unreadable_images_out(experiment: Path) -> None:
    result = evaluate(experiment)
    assert (result.top_1.correct, result.top_1.total) == (4, 5)  # six images: one wrong, one unreadable
    assert (result.top_5.correct, result.top_5.total) == (5, 5)
    assert [row.path.name for row in result.unreadable] == ["01.jpg"]
    assert [(pair.label, pair.predicted, pair.count) for pair in result.confused] == [
        ("Red Sedan 2011", "Green Coupe 2010", 1)
    ]
    assert [(score.name, score.correct, score.total, score.predicted) for score in result.classes] == [
        ("Blue C/V Van 2012", 1, 1, 1),
        ("Green Coupe 2010", 2, 2, 3),
        ("Red Sedan 2011", 1, 2, 1),
    ]
    assert result.mean_recall == pytest.approx((1 + 1 + 0.5) / 3)


def test_result_json_holds_every_number_with_what_made_it(experiment: Path, tree: Path) -> None:
    evaluate(experiment)
    result = result_of(experiment)
    assert result["top_1"] == {"value": 0.8, "correct": 4, "total": 5, "interval_95": [0.283582, 0.994949]}
    assert result["command"] == f"whichcar evaluate {experiment}"
    assert result["checkpoint"]["file"] == "model.02-0.1234.keras"
    assert len(result["checkpoint"]["blake2b"]) == 32
    assert result["data"]["root"] == str(tree)
    assert (result["data"]["split"], result["data"]["images"], result["data"]["unreadable"]) == ("test", 5, 1)
    assert result["image_size"] == [24, 32]
    assert {"python", "whichcar", "keras", "numpy", "pillow"} <= result["versions"].keys()
    assert {"backend", "device", "cores", "precision"} <= result["hardware"].keys()
    assert [row["name"] for row in result["classes"]] == ["Blue C/V Van 2012", "Green Coupe 2010", "Red Sedan 2011"]
    assert result["time"].endswith("+00:00")
    assert result["images_per_second"] > 0


def test_the_result_has_the_accuracy_at_every_level_and_of_certain_answers(
    tmp_path: Path, tree: Path, colour_model: object, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("Audi A4 Wagon 2012", "Ford Focus Wagon 2010", "Ford Focus Sedan 2011")  # blue, green and red
    experiment = make_experiment(tmp_path / "experiments" / "levels", tree, colour_model, class_names=names)
    assert run(["evaluate", str(experiment)]) == 0
    result = result_of(experiment)
    levels = {row["name"]: row for row in result["levels"]}
    # The one error is a green image labelled red: of the right make and model, of the wrong body type.
    assert {name: (row["groups"], row["top_1"]["correct"]) for name, row in levels.items()} == {
        "class": (3, 4),
        "model": (2, 5),
        "body type": (2, 4),
    }
    assert levels["body type"]["macro"]["f1"]["value"] == pytest.approx((6 / 7 + 2 / 3) / 2, abs=1e-6)
    assert levels["body type"]["macro"]["recall"]["value"] == pytest.approx((1 + 1 / 2) / 2)
    assert levels["body type"]["macro"]["precision"]["interval_95"][1] == 1
    assert levels["model"]["macro"]["f1"] == {"value": 1, "interval_95": [1, 1]}
    assert result["groups"]["body type"] == [
        {"name": "Wagon", "images": 3, "correct": 3, "predicted": 4, "recall": 1, "precision": 0.75, "f1": 0.857143},
        {"name": "Sedan", "images": 2, "correct": 1, "predicted": 1, "recall": 0.5, "precision": 1, "f1": 0.666667},
    ]
    assert levels["model"]["calibration_error"]["after"] == levels["model"]["calibration_error"]["before"]
    assert result["calibration"] == {"temperature": 1.0, "validation_images": 3}
    assert [row["wanted"] for row in result["answers"]] == [0.8, 0.9, 0.95, 0.99]
    assert result["answers"][2] == {
        "wanted": 0.95,
        "share": 0.0,
        "accuracy": {"value": 0.0, "correct": 0, "total": 0, "interval_95": [0.0, 1.0]},
        "levels": [
            {"name": name, "share": 0.0, "value": 0.0, "correct": 0, "total": 0, "interval_95": [0.0, 1.0]}
            for name in ("class", "model")
        ],
        "validation_images_needed": 62,
    }
    output = capsys.readouterr().out
    assert re.search(r"body type +2 +80.0% +28.4% to 99.5% +- +0.762 ", output)
    assert "95%: needs 62 validation images or more" in output
    page = (experiment / "report.html").read_text()
    assert "<summary>by body type</summary>" in page
    assert "<td>body type</td>" in page and "(needs 62 validation images)" in page


def test_class_names_that_tell_no_levels_are_named_once(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(experiment)]) == 0
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("the class is the only level") == 1
    assert "By level" not in (experiment / "report.html").read_text()


def test_without_validation_images_a_result_says_that_it_is_not_calibrated(
    experiment: Path, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = shutil.move(tree / "test", tree.parent / "held")
    shutil.rmtree(tree)
    result = evaluate(experiment, data=held)
    assert (result.calibration, result.answered, result.levels[0].after) == (None, (), None)
    assert "not calibrated:" in caplog.text and "is not there" in caplog.text


def test_every_evaluation_of_the_same_images_is_counted(experiment: Path, tree: Path) -> None:
    assert [evaluate(experiment).origin.evaluations for _ in range(2)] == [1, 2]
    assert evaluate(experiment, data=tree).origin.evaluations == 3
    assert evaluate(experiment / "model.02-0.1234.keras").origin.evaluations == 4
    assert "evaluated on them 2 times" not in (experiment / "report.html").read_text()
    assert "evaluated on them 3 times" in (experiment / "report.html").read_text()


def test_a_refit_is_evaluated_instead_and_shown_with_the_accuracy_before_it(
    experiment: Path,
    tree: Path,
    colour_model: object,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    evaluate(experiment)
    before = (experiment / "result.json").read_bytes()
    refit = add_refit(experiment, tree, colour_model)
    assert run(["evaluate", str(experiment)]) == 0
    output = capsys.readouterr().out
    assert "before the refit 80.0% (trained without the validation images)" in output
    assert f"{experiment}: its refit is used" in caplog.text
    assert "before refit" in (refit / "report.html").read_text()
    result = result_of(refit)
    assert (result["experiment"], result["before_refit"]["correct"]) == (f"{experiment.name}/refit", 4)
    assert result["data"]["evaluations"] == 2, "the experiment and its refit share one count"
    assert result["command"] == f"whichcar evaluate {refit}"
    assert (experiment / "result.json").read_bytes() == before
    write_json(experiment / "best.json", {"checkpoint": "model.02-0.1234.keras", "blake2b": "another"})
    assert evaluate(experiment / "model.02-0.1234.keras").before_refit is None


def test_an_unfinished_training_is_evaluated_with_a_warning(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(experiment / "resolved.json", {"finished": False, "settings": {}})
    warning = f"{experiment}: its training is not finished; the best checkpoint so far is evaluated"
    assert run(["evaluate", str(experiment)]) == 0
    assert f"  warning: {warning}\n" in capsys.readouterr().out
    assert result_of(experiment)["warnings"] == [warning]
    assert evaluate(experiment / "model.02-0.1234.keras").warnings == ()


def test_a_checkpoint_is_evaluated_with_a_warning_if_its_refit_is_unfinished(
    experiment: Path, tree: Path, colour_model: object
) -> None:
    refit = add_refit(experiment, tree, colour_model)
    write_json(refit / "resolved.json", {"finished": False, "settings": {}})
    warning = f"{experiment}: its refit is not finished; the checkpoint before it is evaluated"
    assert evaluate(experiment).warnings == (warning,)


def test_the_accuracy_before_a_refit_may_be_measured_after_it(
    experiment: Path, tree: Path, colour_model: object
) -> None:
    add_refit(experiment, tree, colour_model)
    assert evaluate(experiment).before_refit is None
    evaluate(experiment / "model.02-0.1234.keras")
    before = evaluate(experiment).before_refit
    assert before is not None
    assert (before.correct, before.total) == (4, 5)


def test_the_accuracy_before_a_refit_is_that_on_the_same_images(
    experiment: Path, tree: Path, tmp_path: Path, painter: Painter, colour_model: object
) -> None:
    painter(tmp_path / "mine" / "Blue C-V Van 2012" / "a.jpg", BLUE)
    evaluate(experiment, tmp_path / "mine")
    add_refit(experiment, tree, colour_model)
    before = evaluate(experiment, tmp_path / "mine").before_refit
    assert before is not None
    assert (before.correct, before.total) == (1, 1)
    assert evaluate(experiment).before_refit is None


def test_a_damaged_result_from_before_a_refit_stops_no_evaluation(
    experiment: Path, tree: Path, colour_model: object
) -> None:
    evaluate(experiment)
    add_refit(experiment, tree, colour_model)
    (experiment / "result.json").write_text("{}")
    assert evaluate(experiment).before_refit is None


def test_the_validation_images_are_training_images_of_a_refit(
    experiment: Path, tree: Path, colour_model: object
) -> None:
    add_refit(experiment, tree, colour_model)
    held = tree_of(tree, read_metadata(experiment / "model.02-0.1234.keras")).validation
    for sample in held:
        copy = tree.parent / "held" / sample.path.parent.name / sample.path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample.path, copy)
    assert (
        f"{len(held)} of {len(held)} images are training images"
        in evaluate(experiment, tree.parent / "held").warnings[0]
    )


def test_the_result_has_the_accuracy_of_the_most_certain_images(experiment: Path) -> None:
    evaluate(experiment)
    rows = {row["share"]: row for row in result_of(experiment)["coverage"]}
    assert list(rows) == [0.6, 0.8, 1.0]  # shares of five images, of 0.5, 0.6, 0.7 ...
    assert (rows[1.0]["accuracy"]["correct"], rows[1.0]["accuracy"]["total"]) == (4, 5)
    assert rows[1.0]["least"] < rows[0.6]["least"] < 1


def test_predictions_csv_has_a_row_for_every_image(experiment: Path) -> None:
    evaluate(experiment)
    with (experiment / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file, strict=True)}
    assert len(rows) == 6
    wrong = rows["test/Red Sedan 2011/20.jpg"]
    assert (wrong["label"], wrong["predicted"], wrong["correct"]) == ("Red Sedan 2011", "Green Coupe 2010", "0")
    assert (wrong["class_1"], wrong["class_4"]) == ("Green Coupe 2010", "")
    assert 0 < float(wrong["label_probability"]) < float(wrong["probability"]) < 1
    broken = rows["test/Blue C-V Van 2012/01.jpg"]
    assert (broken["label"], broken["predicted"], broken["correct"]) == ("Blue C/V Van 2012", "", "")
    assert "not an image" in broken["error"]
    assert {row["rank"] for row in rows.values()} <= {"1", "2", "3", ""}


def test_plots_and_report_are_next_to_the_result(experiment: Path, plots: None) -> None:
    evaluate(experiment)
    with Image.open(experiment / "plots" / "confusion.png") as image:
        assert min(image.size) > 100
    assert (experiment / "report.html").stat().st_size > 10_000


def test_other_images_get_a_result_of_their_own(experiment: Path, tmp_path: Path, painter: Painter) -> None:
    evaluate(experiment)
    (experiment / "calibration.json").unlink()
    before = (experiment / "result.json").read_bytes()
    painter(tmp_path / "mine" / "Blue C-V Van 2012" / "a.jpg", BLUE)
    painter(tmp_path / "mine" / "Red Sedan 2011" / "b.jpg", RED)
    result = evaluate(experiment, data=tmp_path / "mine")
    assert result.calibration is not None, "that of the validation images, which are where they were"
    assert (result.top_1.correct, result.top_1.total, result.origin.split) == (2, 2, "images")
    assert result.absent == ("Green Coupe 2010",)
    assert result.origin.evaluations == 1
    assert (experiment / "result.json").read_bytes() == before
    assert result_of(result.folder)["data"]["images"] == 2
    assert result.folder.parent == experiment / "evaluations" and result.folder.name.startswith("mine-")


def test_the_most_confident_error_comes_first(experiment: Path, tmp_path: Path, painter: Painter) -> None:
    painter(tmp_path / "mine" / "Red Sedan 2011" / "a.jpg", (90, 140, 90))
    painter(tmp_path / "mine" / "Red Sedan 2011" / "b.jpg", (30, 240, 30))
    painter(tmp_path / "mine" / "Red Sedan 2011" / "c.jpg", (90, 160, 90))
    result = evaluate(experiment, data=tmp_path / "mine")
    assert [error.path.name for error in result.misclassified] == ["b.jpg", "c.jpg", "a.jpg"]
    assert result.misclassified[0].probability > result.misclassified[0].label_probability


def test_classes_the_checkpoint_does_not_know_are_named(experiment: Path, tmp_path: Path, painter: Painter) -> None:
    painter(tmp_path / "mine" / "Pink Roadster 2013" / "a.jpg", RED)
    painter(tmp_path / "mine" / "Red Sedan 2011" / "b.jpg", RED)
    with pytest.raises(DataError, match="1 folder is named as no class of the model: 'Pink Roadster 2013'; rename or"):
        evaluate(experiment, data=tmp_path / "mine")


def test_a_tree_that_has_moved_is_asked_for(experiment: Path, tree: Path) -> None:
    moved = tree.rename(tree.with_name("moved"))
    with pytest.raises(DataError, match="--data DIR"):
        evaluate(experiment)
    result = evaluate(experiment, data=moved)
    assert (result.top_1.total, result.folder) == (5, experiment)


def test_a_file_name_that_is_no_text_is_written_with_escapes(
    experiment: Path, tmp_path: Path, painter: Painter
) -> None:
    painter(tmp_path / "mine" / "Red Sedan 2011" / os.fsdecode(b"a\xff.jpg"), GREEN)
    (tmp_path / "mine" / "Red Sedan 2011" / os.fsdecode(b"b\xff.jpg")).write_bytes(b"nothing")
    result = evaluate(experiment, data=tmp_path / "mine")
    assert result_of(result.folder)["unreadable"][0]["path"] == "Red Sedan 2011/b\\udcff.jpg"
    assert "a\\udcff.jpg" in (result.folder / "report.html").read_text(encoding="utf-8")
    assert "a\\udcff.jpg" in (result.folder / "predictions.csv").read_text(encoding="utf-8")


def test_a_class_name_that_is_not_utf_8_is_written_with_escapes(
    tmp_path: Path, tree: Path, colour_model: object
) -> None:
    names = ("Citro\udcebn C3 2012", *CLASSES[1:])
    result = evaluate(make_experiment(tmp_path / "old", tree, colour_model, class_names=names))
    for name in ("predictions.csv", "report.html"):
        assert "Citro\\udcebn C3 2012" in (result.folder / name).read_text(encoding="utf-8")


def test_a_tree_without_test_is_evaluated_on_its_validation_split(experiment: Path, tree: Path) -> None:
    shutil.rmtree(tree / "test")
    result = evaluate(experiment)
    validation = json.loads((tree / "split.json").read_text())["validation"]
    assert (result.origin.split, result.top_1.total) == ("validation", len(validation))
    assert "validation images" in (result.folder / "report.html").read_text()
    assert result.folder == experiment / "evaluations" / "validation"
    assert not (experiment / "result.json").exists()


def test_validation_images_are_reported_with_a_warning(
    tmp_path: Path, tree: Path, colour_model: object, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tree / "test")  # before the training: the data never had a test split
    experiment = make_experiment(tmp_path / "experiments" / "exp_8", tree, colour_model)
    assert run(["evaluate", str(experiment)]) == 0
    warning = "on which the checkpoint was chosen"
    assert f"warning: there is no test split: these are the validation images {warning}" in capsys.readouterr().out
    assert warning in result_of(experiment)["warnings"][0]
    assert warning in (experiment / "report.html").read_text()
    assert warning in compare([experiment])


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"rewritten")])
def test_the_result_is_that_of_the_network_as_loaded_though_a_running_training_changes_its_file(
    experiment: Path, tree: Path, colour_model: object, monkeypatch: pytest.MonkeyPatch, change: Callable[..., object]
) -> None:
    other = make_experiment(experiment.with_name("other"), tree, colour_model)
    checkpoints = [folder / "model.02-0.1234.keras" for folder in (experiment, other)]
    before = [checksum(checkpoint) for checkpoint in checkpoints]
    scored = Classifier.scored

    def scored_meanwhile(*arguments: Any) -> object:  # noqa: ANN401
        for checkpoint in checkpoints:
            if checkpoint.exists():
                change(checkpoint)
        return scored(*arguments)

    monkeypatch.setattr(Classifier, "scored", scored_meanwhile)
    evaluate(experiment, others=[other])
    assert result_of(experiment)["checkpoint"]["blake2b"] == before[0]
    assert json.loads((experiment / "calibration.json").read_text())["checkpoint"] == before[0]
    (uses,) = json.loads((other / "test_uses.json").read_text()).values()
    assert uses["uses"][0]["checkpoint"]["blake2b"] == before[1]


def test_a_checkpoint_that_a_running_training_deletes_once_it_is_loaded_is_still_calibrated(
    experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleted(classifier: Classifier, *_: object) -> tuple[str, ...]:
        classifier.checkpoint.unlink()
        return ()

    monkeypatch.setattr("whichcar.evaluation.evaluate.warnings_about", deleted)
    assert evaluate(experiment).calibration is not None


def test_images_that_training_used_are_reported_with_a_warning(
    experiment: Path, tree: Path, tmp_path: Path, painter: Painter, capsys: pytest.CaptureFixture[str]
) -> None:
    validation = json.loads((tree / "split.json").read_text())["validation"][0]
    train = next(path for path in sorted((tree / "train").rglob("*.jpg")) if not str(path).endswith(validation))
    mine = tmp_path / "mine" / "Red Sedan 2011"
    painter(mine / "new.jpg", RED)
    shutil.copyfile(train, mine / "renamed copy.jpg")
    os.link(tree / "train" / validation, mine / "link.jpg")
    assert run(["evaluate", str(experiment), "--data", str(tmp_path / "mine")]) == 0
    shown = capsys.readouterr().out
    assert "warning: 1 of 3 images are training images of this checkpoint" in shown
    assert "warning: 1 of 3 images are validation images on which the checkpoint was chosen" in shown


def test_images_that_the_training_of_the_start_weights_used_are_reported_with_a_warning(
    tree: Path, tmp_path: Path, colour_model: object
) -> None:
    first = make_experiment(tmp_path / "first", tree, colour_model)
    again = shutil.copytree(tree, tmp_path / "again")
    (again / "split.json").unlink()
    moved = min((again / "train" / "Red Sedan 2011").iterdir())
    moved.rename(again / "test" / "Red Sedan 2011" / f"moved{moved.suffix}")
    start = first / "model.02-0.1234.keras"
    experiment = make_experiment(tmp_path / "second", again, colour_model, weights=str(start))
    third = make_experiment(tmp_path / "third", again, colour_model, weights=str(experiment / "model.02-0.1234.keras"))
    for one in (experiment, third):
        (warning,) = evaluate(one).warnings
        assert warning.startswith(f"training started from {start}: 1 of ")
    moved = again.rename(tmp_path / "moved")
    assert [warning.split(": ")[1][:5] for warning in evaluate(third, data=moved).warnings] == ["1 of "]
    start.unlink()
    assert evaluate(third, data=moved).warnings == ()


def test_images_named_as_training_images_are_reported_with_a_warning(
    experiment: Path, tree: Path, tmp_path: Path, painter: Painter
) -> None:
    source = next(path for path in sorted((tree / "train").rglob("*.jpg")))
    painter(tmp_path / "photos" / source.parent.name / source.with_suffix(".png").name, RED)
    (warning,) = evaluate(experiment, data=tmp_path / "photos").warnings
    assert warning.startswith("1 of 1 image: class and name are those of a training or validation image")


def test_test_images_named_as_training_images_of_the_start_weights_or_of_a_member_are_reported(
    tree: Path, tmp_path: Path, colour_model: object
) -> None:
    first = make_experiment(tmp_path / "first", tree, colour_model)
    crops = shutil.copytree(tree, tmp_path / "crops")
    (crops / "split.json").unlink()
    whole = min((crops / "train" / "Red Sedan 2011").iterdir())
    with Image.open(whole) as image:
        image.crop((0, 0, 24, 24)).save(crops / "test" / "Red Sedan 2011" / whole.name)
    whole.unlink()
    start = first / "model.02-0.1234.keras"
    second = make_experiment(tmp_path / "second", crops, colour_model, weights=str(start))
    third = make_experiment(tmp_path / "third", crops, colour_model)
    same = "1 of 7 images: class and name are those of a training or validation image"
    (of_start,), (of_member,) = evaluate(second).warnings, evaluate(third, others=[first]).warnings
    assert of_start.startswith(f"training started from {start}: {same}")
    assert of_member.startswith(f"{first}: {same}")


def test_a_name_that_occurs_in_training_and_test_split_says_nothing(
    tree: Path, tmp_path: Path, colour_model: object, painter: Painter
) -> None:
    (numbered,) = (path for path in (tree / "test" / "Red Sedan 2011").iterdir() if path.name == "21.jpg")
    painter(tree / "train" / "Red Sedan 2011" / numbered.name, RED, seed=99)
    experiment = make_experiment(tmp_path / "exp", tree, colour_model)
    assert evaluate(experiment).warnings == ()
    painter(tmp_path / "mine" / "Red Sedan 2011" / numbered.name, RED, seed=98)
    assert evaluate(experiment, data=tmp_path / "mine").warnings == ()


def test_a_copy_hides_no_images_that_are_named_as_training_images(
    experiment: Path, tree: Path, tmp_path: Path, painter: Painter
) -> None:
    copied, *others = sorted((tree / "train" / "Red Sedan 2011").iterdir())
    for path in others:
        painter(tmp_path / "mine" / "Red Sedan 2011" / path.name, RED)
    shutil.copy(copied, tmp_path / "mine" / "Red Sedan 2011")
    copies, names = evaluate(experiment, data=tmp_path / "mine").warnings
    total = len(others) + 1
    assert copies.startswith(f"1 of {total} images are ")
    assert names.startswith(f"{total - 1} of {total} images: class and name are those of a training")


def test_the_name_of_an_image_is_that_within_its_class_however_deep_it_lies(
    tree: Path, tmp_path: Path, colour_model: object, painter: Painter
) -> None:
    painter(tree / "train" / "Red Sedan 2011" / "front" / "9.jpg", RED)
    experiment = make_experiment(tmp_path / "exp", tree, colour_model)
    painter(tmp_path / "mine" / "Blue C-V Van 2012" / "front" / "9.jpg", BLUE)
    assert evaluate(experiment, data=tmp_path / "mine").warnings == ()
    painter(tmp_path / "mine" / "Red Sedan 2011" / "9.png", RED)
    (warning,) = evaluate(experiment, data=tmp_path / "mine").warnings
    assert warning.startswith("1 of 2 images: class and name")


def test_training_images_that_are_test_images_now_are_reported_with_a_warning(
    experiment: Path, tree: Path, painter: Painter
) -> None:
    painter(tree / "train" / "Red Sedan 2011" / "new.jpg", RED)
    assert evaluate(experiment).warnings == (), "the test images are those of before"
    moved = min((tree / "train" / "Red Sedan 2011").iterdir())
    moved.rename(tree / "test" / "Red Sedan 2011" / moved.name)
    (warning,) = evaluate(experiment).warnings
    assert warning.endswith(f"not be checked: the training images of {tree} have changed since this training")


def test_new_images_are_reported_without_a_warning(experiment: Path, tmp_path: Path, painter: Painter) -> None:
    painter(tmp_path / "mine" / "Red Sedan 2011" / "new.jpg", RED)
    assert evaluate(experiment, data=tmp_path / "mine").warnings == ()
    assert evaluate(experiment).warnings == ()


def test_images_that_are_framed_otherwise_are_reported_with_a_warning(
    experiment: Path, tmp_path: Path, painter: Painter
) -> None:
    painter(tmp_path / "mine" / "Red Sedan 2011" / "new.jpg", RED)
    (tmp_path / "mine" / "crop.json").write_text("{}")
    framed = "model.02-0.1234.keras: was not trained on images that `whichcar crop` wrote, and these are"
    assert evaluate(experiment, data=tmp_path / "mine").warnings == (framed,)
    assert framed in (next((experiment / "evaluations").iterdir()) / "report.html").read_text()


def test_the_result_says_whether_its_images_are_crops(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("whole", "crops"):
        draw(tmp_path / name / "Red Sedan 2011" / "1.jpg", RED)
    (tmp_path / "crops" / "crop.json").write_text("{}")
    crops = [result_of(evaluate(bundle, tmp_path / name).folder)["data"]["crops"] for name in ("whole", "crops")]
    assert crops == [False, True]


def test_the_result_of_a_bundle_is_not_put_among_the_classes(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "mine" / "Red Sedan 2011" / "1.jpg", RED)
    monkeypatch.chdir(tmp_path / "mine")
    for data in (Path(), tmp_path / "mine"):
        with pytest.raises(DataError, match=r"^evaluations/\S+: lies in \S+, where it would be taken for a class"):
            evaluate(bundle, data)
    assert not (tmp_path / "mine" / "evaluations").exists()


def test_a_carriage_return_in_the_name_of_an_image_does_not_end_its_row(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "mine" / "Red Sedan 2011" / "1\r.jpg", RED)
    folder = evaluate(bundle, tmp_path / "mine").folder
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["Red Sedan 2011/1\r.jpg"]
    assert paired(folder, folder).total == 1


def test_the_uses_of_a_bundle_are_counted_on_from_its_results_where_the_count_was_deleted(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "mine" / "Red Sedan 2011" / "1.jpg", RED)
    for _ in range(2):
        folder = evaluate(bundle, tmp_path / "mine").folder
    (tmp_path / "evaluations" / "test_uses.json").unlink()
    evaluate(bundle, tmp_path / "mine")
    assert result_of(folder)["data"]["evaluations"] == 3


def test_where_all_images_are_answered_the_share_of_unknown_is_not_below_0(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "mine" / "Red Sedan 2011" / "1.jpg", RED)
    folder = evaluate(bundle, tmp_path / "mine").folder
    levels = [{"name": name, "share": share} for name, share in (("class", 0.166667), ("model", 0.166667))]
    levels.append({"name": "make", "share": 0.666667})
    row = {"wanted": 0.9, "share": 1.0, "accuracy": {"value": 1.0, "total": 6}, "levels": levels}
    shown = list(render_result({**result_of(folder), "answers": [row | {"validation_images_needed": 0}]}, folder))
    assert next(line for line in shown if line.split()[:1] == ["90%"]).split()[-2:] == ["66.7%", "0.0%"]


def test_where_the_training_images_are_gone_a_warning_says_that_they_could_not_be_checked(
    experiment: Path, tree: Path, tmp_path: Path, painter: Painter
) -> None:
    painter(tmp_path / "mine" / "Red Sedan 2011" / "new.jpg", RED)
    shutil.rmtree(tree)
    assert "could not be checked" in evaluate(experiment, data=tmp_path / "mine").warnings[0]


def test_two_folders_of_one_name_have_results_of_their_own(experiment: Path, tmp_path: Path, painter: Painter) -> None:
    for place, colour in (("a", RED), ("b", GREEN)):
        painter(tmp_path / place / "test" / "Red Sedan 2011" / "1.jpg", colour)
    first, second = (evaluate(experiment, data=tmp_path / place / "test") for place in ("a", "b"))
    assert first.folder != second.folder
    assert [result_of(result.folder)["top_1"]["correct"] for result in (first, second)] == [1, 0]
    assert first.folder.name.startswith("a-test-")
    assert evaluate(experiment, data=tmp_path / "a").folder == first.folder  # the same images by another name


def test_a_foreign_tree_does_not_replace_the_own_result_when_the_data_is_gone(
    experiment: Path, tree: Path, tmp_path: Path, painter: Painter
) -> None:
    own = evaluate(experiment)
    before = (experiment / "result.json").read_bytes()
    painter(tmp_path / "foreign" / "test" / "Red Sedan 2011" / "1.jpg", RED)
    shutil.rmtree(tree / "train")
    moved = tree.rename(tree.with_name("moved"))
    assert evaluate(experiment, data=tmp_path / "foreign").folder != own.folder
    assert (experiment / "result.json").read_bytes() == before
    assert evaluate(experiment, data=moved).folder == own.folder  # only its test images are left of it
    assert evaluate(experiment, data=moved / "test").folder == own.folder


def test_the_own_test_folder_by_its_path_is_the_own_result(experiment: Path, tree: Path) -> None:
    assert evaluate(experiment, data=tree / "test").folder == experiment


@pytest.mark.parametrize("name", ["a b?#%'\"$x", "a\nb", "长" * 80, "-rf", "x" * 250])
def test_any_folder_name_gives_a_folder_of_results(
    experiment: Path, tmp_path: Path, painter: Painter, name: str
) -> None:
    painter(tmp_path / name / "Red Sedan 2011" / "1.jpg", RED)
    result = evaluate(experiment, data=tmp_path / name)
    assert re.fullmatch(r"[\w.][\w.-]*", result.folder.name)
    assert result.origin.command == shell_command(["whichcar", "evaluate", experiment, "--data", tmp_path / name])


def test_the_count_outlives_the_results_and_a_failed_report(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(experiment)
    (experiment / "result.json").unlink()
    (experiment / "report.html").unlink()
    (experiment / "report.html").mkdir()  # so the report cannot be written
    with pytest.raises(OSError):
        evaluate(experiment)
    (experiment / "report.html").rmdir()
    assert evaluate(experiment).origin.evaluations == 3
    assert "the test images were used 3 times" in compare([experiment])


def test_an_experiment_trained_on_the_train_folder_is_evaluated_on_the_test_folder_next_to_it(
    experiment: Path, tree: Path
) -> None:
    metadata = read_metadata(experiment / "model.02-0.1234.keras")
    eval_set = held_out(tree / "train", metadata)
    assert (eval_set.split, len(eval_set.samples)) == ("test", 6)


def test_nothing_readable_is_an_error_that_says_why_and_leaves_no_result(experiment: Path, tmp_path: Path) -> None:
    broken = tmp_path / "mine" / "Red Sedan 2011" / "b.jpg"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of 1 image can be read; the first: Red Sedan 2011/b\.jpg: not an image"):
        evaluate(experiment, data=tmp_path / "mine")
    assert not list((experiment / "evaluations").rglob("*.*"))


def test_an_interrupted_evaluation_leaves_the_earlier_result(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(experiment)
    before = {name: (experiment / name).read_bytes() for name in ("result.json", "predictions.csv")}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for function in ("evaluate.write_report", "predictions.best_of"):  # while writing, and while classifying
        monkeypatch.setattr(f"whichcar.evaluation.{function}", interrupt)
        assert run(["evaluate", str(experiment)]) == 130
        error = capsys.readouterr().err
        assert "interrupted; no result was written" in error and "run the same command again" in error
    assert {name: (experiment / name).read_bytes() for name in before} == before
    assert not list(experiment.glob(".*.csv"))


def test_a_folder_that_is_no_experiment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such experiment"):
        evaluate(tmp_path / "nowhere")


def test_a_result_that_is_no_json_is_an_error_that_says_what_to_do(experiment: Path) -> None:
    (experiment / "result.json").write_text("{")
    with pytest.raises(DataError, match="delete it"):
        evaluate(experiment)


def tracked(client: MlflowClient, experiment: Path) -> Run:
    return client.get_run(json.loads((experiment / "tracking.json").read_text())["mlflow"])


def test_a_tracked_result_goes_into_the_run_of_the_training(
    experiment: Path, mlflow_store: MlflowClient, plots: None
) -> None:
    write_json(experiment / "resolved.json", {"finished": True, "settings": {"seed": 7}})
    with tracking_of("mlflow", experiment).training():
        pass
    number = tracked(mlflow_store, experiment).info.run_id
    evaluate(experiment, track="mlflow")
    run = tracked(mlflow_store, experiment)
    assert (run.info.run_id, run.info.status) == (number, "FINISHED")
    assert run.data.metrics["test.top_1"] == pytest.approx(0.8)
    assert (run.data.metrics["test.images"], run.data.metrics["test.unreadable"]) == (5, 1)
    files = {file.path for place in ("test", "test/plots") for file in mlflow_store.list_artifacts(number, place)}
    assert files >= {"test/report.html", "test/result.json", "test/predictions.csv", "test/plots/confusion.png"}


def test_an_experiment_trained_without_tracking_is_logged_whole(experiment: Path, mlflow_store: MlflowClient) -> None:
    epoch = Epoch(1, 2.0, 0.3, 1.9, 0.4, 0.02, "32x32", 30.0, 60.0, "x.keras")
    write_history(experiment / "history.csv", [epoch])
    write_json(experiment / "resolved.json", {"finished": True, "settings": {"seed": 7}})
    evaluate(experiment, track="mlflow")
    run = tracked(mlflow_store, experiment)
    assert (run.info.status, run.data.params, run.data.metrics["val_loss"]) == ("FINISHED", {"seed": "7"}, 1.9)


def test_a_result_stays_where_tracking_it_is_interrupted(
    experiment: Path, mlflow_store: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(tracking_of("mlflow", experiment)), "result", stop)
    assert run(["evaluate", str(experiment), "--track", "mlflow"]) == 130
    assert "interrupted; the result is written, but not all of it is tracked" in capsys.readouterr().err
    assert (experiment / "result.json").is_file()


def test_other_images_are_tracked_under_their_own_name(
    experiment: Path, tmp_path: Path, painter: Painter, mlflow_store: MlflowClient
) -> None:
    painter(tmp_path / "two photos" / "Green Coupe 2010" / "a.jpg", (30, 190, 40))
    evaluate(experiment, tmp_path / "two photos", track="mlflow")
    metrics = tracked(mlflow_store, experiment).data.metrics
    assert [value for name, value in metrics.items() if re.fullmatch(r"two_photos-\w{8}\.top_1", name)] == [1.0]
    assert "test.top_1" not in metrics


def test_a_class_without_an_image_is_not_among_the_hardest(
    experiment: Path, tmp_path: Path, painter: Painter, capsys: pytest.CaptureFixture[str]
) -> None:
    painter(tmp_path / "mine" / "Blue C-V Van 2012" / "a.jpg", BLUE)
    painter(tmp_path / "mine" / "Red Sedan 2011" / "b.jpg", RED)
    assert run(["evaluate", str(experiment), "--data", str(tmp_path / "mine")]) == 0
    output = capsys.readouterr().out
    assert "2 images of 2 of the model's 3 classes, 24x32" in output
    assert "Green Coupe 2010" not in output
    assert "Red Sedan 2011" in output
    (folder,) = (experiment / "evaluations").iterdir()
    assert "<b>2 of 3</b><span class=soft>classes</span>" in (folder / "report.html").read_text()
    assert [row["recall"] for row in result_of(folder)["classes"]] == [1.0, None, 1.0]


def test_top_5_is_not_shown_where_there_are_no_more_than_five_classes(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(experiment)]) == 0
    assert "top-5" not in capsys.readouterr().out
    assert "top-5" not in (experiment / "report.html").read_text()
    assert result_of(experiment)["top_5"]["total"] == 5


def test_an_experiment_that_is_read_only_is_named_with_what_would_do(
    tmp_path: Path, colour_model: object, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_experiment(tmp_path / "exp", tmp_path / "data", colour_model)
    with only(0o555, folder):
        assert run(["evaluate", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"error: {folder}: cannot be written (Permission denied), and the evaluation is recorded there; change its "
        "permissions, make room, or evaluate a copy of the experiment's folder\n"
    )


def test_a_file_instead_of_the_folder_of_results_is_named(experiment: Path, tmp_path: Path, painter: Painter) -> None:
    (experiment / "evaluations").write_text("mine")
    painter(tmp_path / "mine" / "Red Sedan 2011" / "b.jpg", RED)
    with pytest.raises(DataError, match=r"evaluations/mine-.*: cannot be written \(Not a directory\)"):
        evaluate(experiment, data=tmp_path / "mine")


def test_class_folders_that_were_renamed_since_are_named_with_both_names(tmp_path: Path, colour_model: object) -> None:
    for number, (name, colour) in enumerate(zip(FOLDERS, (BLUE, GREEN, RED), strict=True)):
        for copy in range(4):
            draw(tmp_path / "cars" / name / f"{number}{copy}.jpg", colour, seed=10 * number + copy)
    folder = make_experiment(tmp_path / "exp", tmp_path / "cars", colour_model)
    (tmp_path / "cars" / "Red Sedan 2011").rename(tmp_path / "cars" / "Ruby Sedan 2011")
    with pytest.raises(DataError, match=r"\(missing: 'Red Sedan 2011'; new: 'Ruby Sedan 2011'\); rename or remove"):
        evaluate(folder)
