"""Calibration: of probabilities whose errors are known, and of an experiment on its validation images."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from whichcar import metrics
from whichcar.errors import DataError
from whichcar.evaluation.calibration import calibrate, calibrated, choose_thresholds, fit_temperature
from whichcar.evaluation.levels import answered
from whichcar.exporting.export import export
from whichcar.inference.answer import answers, tempered
from whichcar.records import Crop
from whichcar.taxonomy import Level, taxonomy_of

from ..colours import add_refit, draw

NAMES = tuple(f"{make} {model} Sedan {year}" for make in "ABCD" for model in "XY" for year in (2007, 2012))


def drawn(images: int, temperature: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of the classes of NAMES, which are honest at `temperature`, and the labels.

    Years are confused most, makes least.
    """
    random = np.random.default_rng(seed)
    sharpness = random.exponential(1.5, (images, 1))
    logits = sum(random.normal(0, 2.5 / size, (images, 16 // size)).repeat(size, axis=1) for size in (1, 2, 4))
    honest = tempered(np.exp(sharpness * logits - (sharpness * logits).max(axis=1, keepdims=True)), 1.0)
    labels = (honest.cumsum(axis=1) < random.random((images, 1))).sum(axis=1).clip(0, 15)
    return tempered(honest, 1 / temperature), labels


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.2])
def test_the_temperature_that_spoiled_honest_probabilities_is_found(temperature: float) -> None:
    probabilities, labels = drawn(4000, temperature)
    assert fit_temperature(probabilities, labels) == pytest.approx(temperature, rel=0.06)


def test_the_temperature_is_the_minimum_of_the_log_loss() -> None:
    probabilities, labels = drawn(500, 1.7)
    fitted = fit_temperature(probabilities, labels)
    tried = [fitted, *np.linspace(0.5, 3, 200)]
    losses = [metrics.log_loss(tempered(probabilities, one)[np.arange(500), labels]) for one in tried]
    assert min(losses) == pytest.approx(losses[0], abs=1e-6)


def test_a_few_errors_that_the_network_is_sure_of_raise_the_temperature() -> None:
    logits = np.zeros((200, 20))
    logits[:, 0], logits[:5, 1] = 8, 20
    assert fit_temperature(tempered(np.exp(logits - 20), 1.0), np.zeros(200, int)) == pytest.approx(1.298, abs=0.01)


def test_images_that_are_all_correct_teach_no_temperature() -> None:
    assert fit_temperature(np.array([[0.6, 0.4], [0.3, 0.7]], np.float32), np.array([0, 1])) == 1.0


def test_answers_on_new_images_are_as_accurate_as_wanted() -> None:
    levels = taxonomy_of(NAMES).levels
    new, labels = drawn(12_000, seed=99)
    truth = {level.name: [level.groups[level.index[label]] for label in labels] for level in levels}
    reached, shares = [], []
    for seed in range(10, 16):
        thresholds = choose_thresholds(*drawn(1500, seed=seed), levels, 0.95)
        given = answers(new, levels, thresholds)
        correct = [one.name == truth[one.level][image] for image, one in enumerate(given) if one.level]
        reached.append(np.mean(correct))
        shares.append(len(correct) / len(given))
    assert np.mean(reached) > 0.955 and min(reached) > 0.94
    assert min(shares) > 0.25, "nor are many fewer answered than need be"


def test_a_threshold_is_where_the_exact_bound_allows_no_more_answers() -> None:
    # 59 correct images are the fewest that show 95 %; 93 with one error are.
    probabilities = np.linspace(0.99, 0.6, 150)
    rows = np.column_stack([probabilities, 1 - probabilities])
    level = Level("class", ("a", "b"), np.arange(2))
    for correct, count in ((58, 0), (59, 59), (150, 150)):
        labels = (np.arange(150) >= correct).astype(int)
        least = choose_thresholds(rows, labels, [level], 0.95).least.get("class", 2)
        assert (probabilities >= least).sum() == count
    labels = np.zeros(150, int)
    labels[[10, 93]] = 1
    assert (probabilities >= choose_thresholds(rows, labels, [level], 0.95).least["class"]).sum() >= 93


def test_no_answer_is_counted_for_an_image_whose_crop_found_no_vehicle() -> None:
    probabilities, labels = drawn(200)
    calibration = calibrated(probabilities, labels, taxonomy_of(NAMES), "")

    def shares(outcome: str) -> list[int]:
        crops = [Crop("a.jpg", None, "", None, 0, outcome)] * len(labels)
        rows = answered(probabilities, labels, taxonomy_of(NAMES).levels, calibration, crops)
        return [row.accuracy.total for row in rows]

    assert shares("cropped")[0] > 50
    assert shares("whole: no vehicle") == [0, 0, 0, 0]


def test_images_that_are_like_none_of_the_classes_are_unknown_and_nearly_all_others_answered() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 16, 400)

    def rows(others: int) -> np.ndarray:
        """Return rows whose largest probability is about 0.8; the rest is spread over that many other classes."""
        places = (np.arange(16) - labels[:, None]) % 16
        share = random.normal(0.8, 0.01, (400, 1))
        return np.where(places == 0, share, np.where(places <= others, (1 - share) / others, 0))

    taxonomy = taxonomy_of(NAMES)
    thresholds = calibrated(rows(others=1), labels, taxonomy, "").thresholds_for(0.8)
    given = [[one.level for one in answers(rows(others), taxonomy.levels, thresholds)] for others in (1, 15)]
    assert given[0].count("") / 400 == pytest.approx(0.05, abs=0.03)
    assert set(given[1]) == {""}


@pytest.mark.parametrize(("wanted", "needed"), [(0.9, 30), (0.95, 62), (0.99, 314)])
def test_too_few_images_for_a_threshold_are_counted(wanted: float, needed: int) -> None:
    # The 5 % with the highest entropy are not answered; 29, 59 or 299 of the others have to be correct.
    for images, missing in ((needed - 1, needed), (needed, 0)):
        best = np.linspace(0.8, 0.99, images)
        probabilities = np.column_stack([best, *[(1 - best) / 15] * 15])
        thresholds = calibrated(probabilities, np.zeros(images, int), taxonomy_of(NAMES), "").thresholds_for(wanted)
        assert (thresholds.images_needed, "class" in thresholds.least) == (missing, not missing)


def test_an_experiment_is_calibrated_once_on_its_validation_images(experiment: Path) -> None:
    calibration = calibrate(experiment)
    assert calibration.images == 3
    assert set(calibration.errors) == {"class"}
    file = experiment / "calibration.json"
    content = json.loads(file.read_text())
    assert content["temperature"] == calibration.temperature
    content["images"] = 4
    file.write_text(json.dumps(content))
    assert calibrate(experiment).images == 4, "read, not measured again"
    content["checkpoint"] = "another"
    file.write_text(json.dumps(content))
    assert calibrate(experiment).images == 3, "of another checkpoint"
    for damaged in ("{", "[]", json.dumps(content | {"temperature": 0})):
        file.write_text(damaged)
        assert calibrate(experiment).images == 3
        assert json.loads(file.read_text())["images"] == 3


@pytest.mark.parametrize("measure", [calibrate, export])
def test_the_labels_of_classes_that_are_new_since_training_are_not_taken_for_those_trained_on(
    experiment: Path, tree: Path, measure: Callable[..., object]
) -> None:
    draw(tree / "train" / "Audi S4 2012" / "1.jpg", (9, 9, 9))
    with pytest.raises(DataError, match="the class folders are not those that the checkpoint was trained on"):
        measure(experiment)


def test_validation_images_that_may_have_been_trained_on_since_are_warned_of(
    experiment: Path, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calibrate(experiment)
    (experiment / "calibration.json").unlink()
    draw(tree / "train" / "Red Sedan 2011" / "new.jpg", (210, 40, 30))
    before = caplog.text
    calibrate(experiment)
    change = f"{tree}: has changed since the training of"
    assert change not in before and change in caplog.text.removeprefix(before)


def test_a_refit_has_the_calibration_of_what_it_is_a_refit_of(
    experiment: Path, tree: Path, colour_model: object
) -> None:
    refit = add_refit(experiment, tree, colour_model)
    calibration = calibrate(refit)
    assert calibration.images == 3
    assert calibrate(experiment) == calibration
    assert (experiment / "calibration.json").is_file() and not (refit / "calibration.json").exists()
    (experiment / "calibration.json").unlink()
    (experiment / "model.02-0.1234.keras").write_bytes(b"another")
    with pytest.raises(DataError, match="it is a refit, and the checkpoint that was refitted is not there"):
        calibrate(refit)


def test_without_validation_images_there_is_no_calibration(experiment: Path, tree: Path) -> None:
    shutil.move(tree, tree.with_name("moved"))
    with pytest.raises(DataError, match="cars, with its validation images, is not there"):
        calibrate(experiment)
    shutil.copytree(tree.with_name("moved"), tree)
    draw(tree / "train" / "Audi S4 2012" / "1.jpg", (9, 9, 9))  # another dataset, where that of the training was
    with pytest.raises(DataError, match="other is not the dataset that it was trained on"):
        calibrate(experiment, tree.with_name("other"))
    assert calibrate(experiment, tree.with_name("moved")).images == 3
