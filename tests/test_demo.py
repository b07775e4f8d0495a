"""The demo: its order of stages and its table with a fake training, and, marked slow, the real one in miniature."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from whichcar.cli import demo, main
from whichcar.data.boxes import read_boxes
from whichcar.errors import DataError, Interrupted

RESULT = {
    "top_1": {"value": 0.5, "interval_95": [0.4, 0.6]},
    "top_5": {"value": 0.9},
    "classes": [{}] * 8,
}


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the experiments that were trained, by a training that writes nothing."""
    names: list[str] = []

    def train(config: Path, resume: bool) -> SimpleNamespace:
        assert resume
        assert config.is_file()
        names.append(config.parent.name)
        history = (SimpleNamespace(seconds=1.0), SimpleNamespace(seconds=12.4))
        return SimpleNamespace(history=history, checkpoint="best", asked_to_stop=False)

    monkeypatch.setattr("whichcar.training.train.train", train)
    monkeypatch.setattr("whichcar.cli.demo._evaluate", lambda experiment, say: RESULT)
    return names


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "QUICK", replace(demo.QUICK, classes=2, per_class=4))


@pytest.mark.usefixtures("small")
def test_whole_images_and_their_crops_are_trained_and_compared(tmp_path: Path, trainings: list[str]) -> None:
    lines: list[str] = []
    into = tmp_path / "it's: a demo"
    outcomes = demo.run(into, quick=True, say=lines.append)
    assert trainings == list(outcomes) == ["whole", "crops"]
    rows = list(read_boxes(into / "car_ims_v2" / "boxes.csv"))
    assert len(rows) == 8
    assert {row.kind for row in rows} <= {"cropped", "whole"}
    assert sum(row.kind == "cropped" for row in rows) >= 4  # by the packaged detector
    for name, version in (("whole", "car_ims_v1"), ("crops", "car_ims_v2")):
        settings = yaml.safe_load((into / "experiments" / name / "config.yml").read_text())
        assert settings["data"]["directory"] == str(into / version)
        assert settings["model"]["weights"] is None
    text = "\n".join(lines)
    assert "of them for validation; test 2 images" in text
    assert "whole     50.0%  40.0% to 60.0%  90.0%  12 s" in text
    assert "(chance)  12.5%                  62.5%" in text
    assert "car_ims_v2: 8 images" in text
    assert f"predict '{into / 'experiments' / 'crops'}'".replace("'s", "'\"'\"'s") in text
    assert "demo --real YOUR_IMAGES" in text


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("stage", ["drawing", "splitting", "cropping", "training", "evaluating"])
def test_a_demo_interrupted_anywhere_says_how_to_resume_and_then_completes(
    tmp_path: Path,
    trainings: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    def interrupt(line: str) -> None:
        if stage in line:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "say", interrupt)
        assert main.run(["demo", "--quick", "--into", str(tmp_path / "demo")]) == 130
    assert "run the same command again to resume" in capsys.readouterr().err
    assert main.run(["demo", "--quick", "--into", str(tmp_path / "demo")]) == 0
    assert "done in" in capsys.readouterr().out


def test_an_interrupted_training_says_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object, **__: object) -> None:
        raise Interrupted("experiments/whole: stopped in epoch 2; everything is saved")

    monkeypatch.setattr(demo, "run", run)
    assert main.run(["demo"]) == 130
    assert capsys.readouterr().err.endswith("everything is saved\nrun the same command again to resume\n")


@pytest.mark.usefixtures("small")
def test_a_demo_that_was_asked_to_stop_at_the_end_of_a_training_does_not_begin_the_next(
    tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: Path, resume: bool) -> SimpleNamespace:
        trainings.append(config.parent.name)
        return SimpleNamespace(history=(SimpleNamespace(seconds=1.0),), checkpoint="best", asked_to_stop=True)

    monkeypatch.setattr("whichcar.training.train.train", train)
    with pytest.raises(Interrupted, match="whole: trained; stopped before the next stage"):
        demo.run(tmp_path / "demo", quick=True, say=lambda line: None)
    assert trainings == ["whole"]


def test_images_in_class_folders_are_split_and_used(tmp_path: Path, drawn: Path, trainings: list[str]) -> None:
    with (drawn / "car_dataset_labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            folder = tmp_path / "mine" / row["class"].replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn / "car_ims" / row["img_name"], folder)
    demo.run(tmp_path / "into", tmp_path / "mine", say=lambda line: None)
    for version in ("car_ims_v1", "car_ims_v2"):
        assert len(list((tmp_path / "into" / version / "test").rglob("*.jpg"))) == 8
    assert not (tmp_path / "into" / "raw").exists()
    assert trainings == ["whole", "crops"]


def test_a_demo_of_other_images_is_refused_since_its_trainings_are_kept(
    tmp_path: Path, drawn: Path, trainings: list[str]
) -> None:
    mine, into = tmp_path / "mine", tmp_path / "into"
    for number, image in enumerate(sorted((drawn / "car_ims").iterdir())[:16]):
        (mine / f"class {number % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(image, mine / f"class {number % 2}")
    demo.run(into, mine, say=lambda line: None)
    with pytest.raises(DataError, match="into: holds a demo of other images or another --quick; delete it, or name"):
        demo.run(into, mine, quick=True, say=lambda line: None)
    with pytest.raises(DataError, match="holds a demo of other images"):
        demo.run(into, say=lambda line: None)
    shutil.copy(sorted((drawn / "car_ims").iterdir())[20], mine / "class 0")
    shutil.rmtree(into / "car_ims_v1")
    with pytest.raises(DataError, match="holds a demo of other images"):
        demo.run(into, mine, say=lambda line: None)
    assert trainings == ["whole", "crops"]


def test_after_images_that_are_refused_the_same_folder_takes_others(
    tmp_path: Path, drawn: Path, trainings: list[str]
) -> None:
    for number, image in enumerate(sorted((drawn / "car_ims").iterdir())[:16]):
        (tmp_path / "mine" / f"class {number % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / "mine" / f"class {number % 2}")
    with pytest.raises(DataError, match="no class folders in it"):
        demo.run(tmp_path / "into", tmp_path / "mine" / "class 0", say=lambda line: None)
    demo.run(tmp_path / "into", tmp_path / "mine", say=lambda line: None)
    assert trainings == ["whole", "crops"]


@pytest.mark.parametrize(
    ("into", "real", "message"),
    [
        ("demo_\udcfc", None, r"demo_\udcfc: is not text in UTF-8, so that no settings file can name it"),
        ("mine/demo", "mine", "mine/demo: lies in mine, whose folders are the classes; name one outside with --into"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_before_anything_is_written(
    into: str, real: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    assert main.run(["demo", "--into", into, *(["--real", real] if real else [])]) == main.MISTAKE
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_images_with_a_label_file_keep_its_splits(tmp_path: Path, drawn: Path) -> None:
    demo._split(drawn, tmp_path / "v1", demo.FULL, lambda line: None)
    with (drawn / "car_dataset_labels.csv").open(newline="") as file:
        test = {row["img_name"] for row in csv.DictReader(file) if row["subset"] == "test"}
    assert {path.name for path in (tmp_path / "v1" / "test").rglob("*.jpg")} == test


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        demo.run(tmp_path / "demo", real=tmp_path / "nowhere", say=lambda line: None)
    assert not (tmp_path / "demo").exists()


@pytest.mark.usefixtures("small", "trainings")
def test_a_folder_with_files_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.jpg").write_bytes(b"mine")
    (tmp_path / ".hidden").touch()
    with pytest.raises(DataError, match="files that `whichcar demo` did not write, such as mine; give a new or empty"):
        demo.run(tmp_path, quick=True, say=lambda line: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "mine"]


@pytest.mark.parametrize(("images", "epochs"), [(20, demo.FULL.epochs), (1_000_000, 2)])
def test_many_images_get_fewer_epochs(tmp_path: Path, images: int, epochs: int) -> None:
    demo.write_config(tmp_path / "config.yml", "whole", tmp_path, demo.FULL, images)
    assert yaml.safe_load((tmp_path / "config.yml").read_text())["fit"]["epochs"] == epochs


@pytest.mark.parametrize("name", ["it's: a demo", "é 🚗", "Autos_\udcfc"])
def test_the_settings_name_the_folder_of_the_images(tmp_path: Path, name: str) -> None:
    demo.write_config(tmp_path / "config.yml", "whole", tmp_path / name, demo.FULL, 100)
    settings = yaml.safe_load((tmp_path / "config.yml").read_text(encoding="utf-8"))
    assert settings["data"]["directory"] == str(tmp_path / name)


def test_edited_settings_are_kept(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("mine\n")
    demo.write_config(tmp_path / "config.yml", "whole", tmp_path, demo.FULL, 100)
    assert (tmp_path / "config.yml").read_text() == "mine\n"


def test_top_5_is_left_out_of_few_classes() -> None:
    outcome = demo.Outcome(Path("exp"), 12.4, RESULT | {"classes": [{}] * 5})
    assert demo.table({"whole": outcome}) == [
        ("images", "top-1", "95 % interval", "training"),
        ("whole", "50.0%", "40.0% to 60.0%", "12 s"),
        ("(chance)", "20.0%", "", ""),
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a demo that really trained, for one epoch."""
    into = tmp_path_factory.mktemp("it's: a demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHICHCAR_CACHE", str(into / "cache"))
        demo.run(into, quick=True, say=lambda line: None)
    yield into


@pytest.mark.slow
def test_both_experiments_have_checkpoint_report_and_numbers(finished: Path) -> None:
    for name in ("whole", "crops"):
        experiment = finished / "experiments" / name
        result = json.loads((experiment / "result.json").read_text())
        assert (experiment / result["checkpoint"]["file"]).is_file()
        assert (experiment / "report.html").is_file()
        assert list((experiment / "plots").glob("*.png"))
        with (experiment / "predictions.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == 2


@pytest.mark.slow
def test_a_second_run_trains_and_evaluates_nothing_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHICHCAR_CACHE", str(finished / "cache"))
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.keras")}
    lines: list[str] = []
    outcomes = demo.run(finished, quick=True, say=lines.append)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.keras")} == before
    assert [outcome.result["data"]["evaluations"] for outcome in outcomes.values()] == [1, 1]
    assert sum("already evaluated" in line for line in lines) == 2


@pytest.mark.slow
def test_predictions_of_the_demo_come_as_json_from_folder_list_and_file(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted((finished / "car_ims_v1" / "test").rglob("*.jpg"))
    names = f"{images[0]}\n{finished}/no.jpg\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names)))
    arguments = [str(finished / "experiments" / "crops"), str(images[1]), str(finished / "car_ims_v1" / "test"), "-"]
    assert main.run(["predict", *arguments, "--crop", "--json", "--top", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == [
        str(images[1]), *map(str, images), str(images[0]), str(finished / "no.jpg"),
    ]  # fmt: skip
    assert all(row["probability"] >= row["probability_2"] for row in rows[:-1])
    assert [row["problem"] is None for row in rows] == [True] * (len(rows) - 1) + [False]
