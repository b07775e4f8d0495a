import gc
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from whichcar.cli import main
from whichcar.data.labels import draw_folds
from whichcar.data.split.split import split
from whichcar.errors import DataError, TrainingError
from whichcar.evaluation import label_errors
from whichcar.evaluation.label_errors import find_label_errors
from whichcar.files import LABEL_FOLDS, write_json
from whichcar.inference.classifier import Classifier
from whichcar.records import Label

from .. import colours
from ..colours import COLOURS, FOLDERS, draw, make_experiment


@pytest.fixture
def wrong(tmp_path: Path) -> tuple[Path, list[str]]:
    """A tree of 3 x 20 coloured images, of which one in test and one in train are called by another colour."""
    rows = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        for copy in range(20):
            draw(tmp_path / "raw" / f"{number}{copy:02d}.jpg", colour, seed=100 * number + copy)
            rows.append(Label(f"{number}{copy:02d}.jpg", name, "test" if copy < 6 else "train"))
    red = list(COLOURS)[2]
    for seed, name in enumerate(("000.jpg", "019.jpg")):  # a blue that leaves no doubt
        draw(tmp_path / "raw" / name, (5, 5, 250), seed=1000 + seed)
    rows[0] = Label("000.jpg", red, "test")
    rows[19] = Label("019.jpg", red, "train")
    split(tmp_path / "raw", rows, tmp_path / "cars", validation=0.25, seed=1)
    return tmp_path / "cars", ["test/Red Sedan 2011/000.jpg", "train/Red Sedan 2011/019.jpg"]


@pytest.mark.slow
def test_a_wrong_label_among_held_out_images_is_found(
    wrong: tuple[Path, list[str]], tmp_path: Path, colour_model: object, caplog: pytest.LogCaptureFixture
) -> None:
    tree, paths = wrong
    experiment = make_experiment(tmp_path / "exp", tree, colour_model)
    (found,) = find_label_errors(tree, experiment)
    assert (found.path, found.issue) == (paths[0], "label_error")
    assert found.detail.startswith("labelled 'Red Sedan 2011' (")
    assert "the network predicts 'Blue C/V Van 2012' (" in found.detail
    assert "32 train images are not checked" in caplog.text


@pytest.mark.slow
def test_the_command_lists_label_errors_with_the_other_findings(
    wrong: tuple[Path, list[str]], tmp_path: Path, colour_model: object, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, paths = wrong
    experiment = make_experiment(tmp_path / "exp", tree, colour_model)
    arguments = ["check", str(tree), "--labels-with", str(experiment), "--fail-on", "label_error", "--smallest", "8"]
    assert main.run([*arguments, "--output", str(tmp_path)]) == 1
    assert "label_error" in capsys.readouterr().out
    assert paths[0] in (tmp_path / "check.html").read_text()
    assert f"{paths[0]},label_error,warning" in (tmp_path / "issues.csv").read_text()


@pytest.mark.slow
def test_with_folds_every_image_is_judged_by_a_network_that_has_not_seen_it(
    wrong: tuple[Path, list[str]], tmp_path: Path, colour_model: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trains two small networks from random weights; tested is not what they predict, but for which images."""
    tree, _ = wrong
    experiment = make_experiment(tmp_path / "exp", tree, colour_model)
    settings = {
        "seed": 1,
        "data": {"directory": str(tree), "validation_split": 0.25, "image_size": [32, 32], "cache_size": None},
        "model": {"weights": None},
        "compile": {"optimizer": {"sgd": {"learning_rate": 0.01}, "adam": None}},
        "fit": {"epochs": 1, "callbacks": {"early_stopping": None}},
    }
    write_json(experiment / "resolved.json", {"finished": True, "settings": settings})
    held: list[int] = []
    train = label_errors._train
    monkeypatch.setattr(label_errors, "_train", lambda config: (held.append(classifiers()), train(config)))
    find_label_errors(tree, experiment, folds=2)
    assert held == [0, 0]  # networks in memory while a fold is trained
    tested: list[str] = []
    for number in (1, 2):
        fold = experiment / LABEL_FOLDS / f"{number}_of_2"
        learned = {path.name for path in (fold / "data" / "train").rglob("*.jpg")}
        judged = {path.name for path in (fold / "data" / "test").rglob("*.jpg")}
        assert not learned & judged
        assert len(learned | judged) == 42
        tested += judged
        assert (fold / "best.json").is_file()
    assert sorted(tested) == sorted(path.name for path in (tree / "train").rglob("*.jpg"))


def classifiers() -> int:
    gc.collect()
    return sum(isinstance(thing, Classifier) for thing in gc.get_objects())


@pytest.mark.slow
def test_a_fold_whose_training_fails_is_an_error(
    wrong: tuple[Path, list[str]], tmp_path: Path, colour_model: object
) -> None:
    tree, _ = wrong
    experiment = make_experiment(tmp_path / "exp", tree, colour_model)
    settings = {"seed": 1, "data": {"directory": str(tree), "validation_split": 0.25}, "fit": {"epochs": -1}}
    write_json(experiment / "resolved.json", {"finished": True, "settings": settings})
    with pytest.raises(TrainingError, match=r"1_of_2: its training failed \(exit status 2\); its messages are above"):
        find_label_errors(tree, experiment, folds=2)


def test_a_training_of_a_fold_that_ctrl_c_has_ended_ends_the_command(
    wrong: tuple[Path, list[str]], tmp_path: Path, colour_model: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, _ = wrong
    experiment = make_experiment(tmp_path / "exp", tree, colour_model)
    settings = {"seed": 1, "data": {"directory": str(tree), "validation_split": 0.25}}
    write_json(experiment / "resolved.json", {"finished": True, "settings": settings})
    stopped = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {signal.SIGINT:d})"]
    monkeypatch.setattr(label_errors, "train_command", lambda _: stopped)
    with pytest.raises(KeyboardInterrupt):
        find_label_errors(tree, experiment, folds=2)


def test_folds_of_other_labels_are_not_used_and_the_error_names_what_to_delete(
    tmp_path: Path, colour_model: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    for number, (name, colour) in enumerate(zip(FOLDERS, COLOURS.values(), strict=True)):
        for copy in range(8):
            draw(photos / name / f"{number}{copy}.jpg", colour, seed=10 * number + copy)
    wrong = (photos / FOLDERS[0] / "00.jpg").rename(photos / FOLDERS[2] / "00.jpg")
    experiment = make_experiment(tmp_path / "exp", photos, colour_model)
    settings = {"seed": 1, "data": {"directory": str(photos), "validation_split": 0.25}}
    write_json(experiment / "resolved.json", {"finished": True, "settings": settings})

    def train(config: Path) -> None:
        """Leave what the training of a fold leaves, unless it has finished before."""
        if not (config.parent / "best.json").is_file():
            made = make_experiment(config.parent / "made", config.parent / "data", colour_model)
            shutil.copytree(made, config.parent, dirs_exist_ok=True)

    monkeypatch.setattr(label_errors, "_train", train)
    assert [Path(found.path) for found in find_label_errors(photos, experiment, folds=2)] == [wrong.relative_to(photos)]
    wrong.rename(photos / FOLDERS[0] / "00.jpg")
    folds = experiment / LABEL_FOLDS
    message = f"{folds}/1_of_2: is of an earlier check, of other labels or images; delete {folds}, and run"
    with pytest.raises(DataError, match=message):
        find_label_errors(photos, experiment, folds=2)
    for fold in folds.iterdir():
        shutil.rmtree(fold / "data")
    with pytest.raises(DataError, match=message):  # the networks were trained on the earlier folds
        find_label_errors(photos, experiment, folds=2)


def test_a_class_that_a_fold_could_not_learn_is_an_error_before_the_first_training(
    tmp_path: Path, colour_model: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = os.fsdecode(b"Citro\xebn C3")  # `split` takes no names that are not UTF-8
    for number, (name, colour) in enumerate(zip((folder, *FOLDERS[1:]), COLOURS.values(), strict=True)):
        for copy in range(4):
            draw(tmp_path / "photos" / name / f"{copy}.jpg", colour, seed=10 * number + copy)
    monkeypatch.setattr(colours, "FOLDERS", (folder, *FOLDERS[1:]))
    experiment = make_experiment(tmp_path / "exp", tmp_path / "photos", colour_model)
    settings = {"seed": 1, "data": {"directory": str(tmp_path / "photos"), "validation_split": 0.25}}
    write_json(experiment / "resolved.json", {"finished": True, "settings": settings})
    monkeypatch.setattr(label_errors, "_train", lambda _: pytest.fail("trained"))
    message = r"photos: without fold 1 of 2, no usable training image is left of 'Citro\\udcebn C3'; see problems in "
    with pytest.raises(DataError, match=message):
        find_label_errors(tmp_path / "photos", experiment, folds=2)


def test_another_tree_is_refused(experiment: Path, tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"elsewhere: .* was trained on .*check that folder"):
        find_label_errors(tmp_path / "elsewhere", experiment)


def test_fewer_than_two_folds_are_refused(experiment: Path, tree: Path) -> None:
    with pytest.raises(DataError, match=r"--folds: at least 2 are needed; got 1"):
        find_label_errors(tree, experiment, folds=1)


def test_folds_have_their_share_of_each_class_and_keep_groups_together() -> None:
    classes = {"a": [f"a{number}" for number in range(10)], "b": [f"b{number}" for number in range(11)]}
    drawn = draw_folds(classes, 4, seed=3, together=[["a1", "a7", "b2"]])
    assert drawn["a1"] == drawn["a7"] == drawn["b2"]
    for names in classes.values():
        counts = [sum(drawn[name] == fold for name in names) for fold in range(4)]
        assert max(counts) - min(counts) <= 3
    assert draw_folds({name: names[::-1] for name, names in classes.items()}, 4, 3, [["a1", "a7", "b2"]]) == drawn
    with pytest.raises(DataError, match="1 class of too few images to be divided into folds: 'lonely'"):
        draw_folds({**classes, "lonely": ["one"]}, 4, 3)
