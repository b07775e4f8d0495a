from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.cli import main
from whichcar.detection import zoo
from whichcar.detection.crop import crop
from whichcar.inference.bundle import write_bundle
from whichcar.inference.input_crop import is_cropped

from ..bundles import colour_bundle
from ..colours import COLOURS
from ..permissions import only

Painter = Callable[..., Path]
ON_CROPS = {"settings": {"detector": None}, "detector": {"name": "old", "sha256": None}}


@pytest.fixture
def car(tmp_path: Path, painter: Painter) -> Path:
    return painter(tmp_path / "photos" / "a car.jpg", COLOURS["Red Sedan 2011"])


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the models in the package, with one."""
    folder = tmp_path / "models"
    monkeypatch.setattr("whichcar.inference.released.FOLDER", folder)
    write_bundle(colour_bundle(name="cars196"), folder / "cars196.whichcar")
    return folder


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The function that runs a command which must succeed, and returns what it printed."""

    def run(*words: str | Path) -> str:
        assert main.run([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return run


def test_a_photo_is_classified_by_the_model_of_the_package(
    released: Path, car: Path, printed: Callable[..., str]
) -> None:
    assert "Red Sedan 2011" in printed("predict", car)
    for words in (["cars196", car], [car, "--model", "cars196"]):
        assert printed("predict", *words) == printed("predict", car)


def test_without_that_model_one_line_says_what_to_name(
    released: Path, car: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (released / "cars196.whichcar").unlink()
    assert main.run(["predict", str(car)]) == 2
    error = capsys.readouterr().err
    assert "this installation has no such model" in error and "--model" in error and error.count("\n") == 1


@pytest.mark.usefixtures("in_float32")
def test_the_model_may_be_named_before_the_images(
    released: Path, colour_experiment: Path, bundle: Path, car: Path, printed: Callable[..., str]
) -> None:
    checkpoint = next(colour_experiment.glob("*.keras"))
    answers = [
        json.loads(printed("predict", model, car, "--json")) for model in (colour_experiment, checkpoint, bundle)
    ]
    assert len({row["prediction"] for row in answers}) == 1
    assert answers[0]["probability"] == pytest.approx(answers[2]["probability"], abs=1e-5)
    assert json.loads(printed("predict", car, "--model", colour_experiment, "--json")) == answers[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "exp_9", "a.jpg"], "exp_9: no such experiment, checkpoint or bundle"),
        (["predict", "gone.whichcar", "a.jpg"], "gone.whichcar: no such experiment, checkpoint or bundle"),
        (["predict", "a.jpg", "--model", "gone"], "gone: no such experiment, checkpoint or bundle, nor a model that"),
        (["predict", "a.jpg", "--model", "cars197"], "lists; did you mean `cars196`?"),
        (["evaluate", "--model", "Cars196", "--data", "."], "lists; did you mean `cars196`?"),
        (["serve", "cars196x"], "lists; did you mean `cars196`?"),
        (["models", "--card", "cars"], "lists; did you mean `cars196`?"),
        (["models", "--card", "nope"], "nope: no such experiment, checkpoint or bundle, nor a model that"),
        (["predict", "a.jpg", "--model", "empty"], "empty: is an empty folder; name an experiment's folder"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(
    released: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(released.parent)
    Path("empty").mkdir()
    assert main.run(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_card_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["models", "--card", "cars196", "--json"]) == main.MISTAKE
    assert "--card and --json exclude each other; choose one" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["serve"], ["predict", "a.jpg", "--model"], ["models", "--card"]])
def test_an_image_or_another_file_is_no_model(
    released: Path, car: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    for path, kind in ((car, "an image, not a model"), (tmp_path / "notes.txt", "not a model")):
        assert main.run([*words, str(path)]) == 2
        assert capsys.readouterr().err == (
            f"error: {path}: is {kind}; name an experiment's folder, a checkpoint (.keras, .h5), a bundle (.whichcar, "
            ".onnx), or a model that `whichcar models` lists\n"
        )


def test_messages_call_a_model_of_the_package_by_its_name(
    released: Path, car: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["predict", str(car), "--confidence", "0.9"]) == 2
    assert capsys.readouterr().err.startswith("error: cars196: is not calibrated")


def test_a_model_without_images_says_what_is_missing(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["predict", str(bundle)]) == 2
    assert "is a model; name the images to classify" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["photos", "mine"], ["photos", "mine.whichcar"], ["mine", "photos", "mine.whichcar"]]
)
def test_a_model_behind_the_images_is_not_searched_for_images(
    released: Path,
    car: Path,
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(released / "cars196.whichcar", "mine.whichcar")
    (tmp_path / "mine" / "plots").mkdir(parents=True)
    shutil.copy(car, "mine/plots/confusion.jpg")
    (tmp_path / "mine" / "best.json").touch()
    assert main.run(["predict", *words]) == main.MISTAKE
    assert f"error: {words[-1]}: is a model; name it first, and only images after it\n" in capsys.readouterr().err


def test_a_quoted_pattern_stands_for_its_files_in_order(
    released: Path, tmp_path: Path, painter: Painter, printed: Callable[..., str]
) -> None:
    names = ["x/1.jpg", "x/y/2.jpg", "x/y/3.png", "x/[4].jpg"]
    for name in names:
        painter(tmp_path / name, COLOURS["Red Sedan 2011"])

    def paths(*patterns: str) -> list[str]:
        text = printed("predict", *(tmp_path / pattern for pattern in patterns), "--csv")
        return [str(Path(row["path"]).relative_to(tmp_path)) for row in csv.DictReader(text.splitlines(), strict=True)]

    assert paths("x/**/*.jpg") == ["x/1.jpg", "x/[4].jpg", "x/y/2.jpg"]
    assert paths("x/[4].jpg", "x/y/?.png") == ["x/[4].jpg", "x/y/3.png"]
    assert paths("x/*") == paths("x/**/*") == ["x/1.jpg", "x/[4].jpg", "x/y/2.jpg", "x/y/3.png"]
    assert paths("x/**/y*", "x/**") == ["x/y/2.jpg", "x/y/3.png", "x/1.jpg", "x/[4].jpg", "x/y/2.jpg", "x/y/3.png"]
    assert paths("x/1.jpg", "none*.jpg") == ["x/1.jpg", "none*.jpg"]


def test_photos_are_cropped_where_the_model_was_trained_on_crops(
    released: Path, tmp_path: Path, red_car_file: Path, printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(red_car_file))
    is_cropped.cache_clear()
    write_bundle(colour_bundle(crop=ON_CROPS), released / "cars196.whichcar")
    street = np.full((120, 160, 3), (30, 190, 40), np.uint8)
    street[60:100, 40:80] = (230, 20, 20)
    (tmp_path / "street").mkdir()
    Image.fromarray(street).save(tmp_path / "street" / "a.png")
    list(crop(tmp_path / "street", tmp_path / "cut", detector=red_car_file))
    for words, prediction, outcome in (
        ((tmp_path / "street",), "Red Sedan 2011", "cropped"),
        ((tmp_path / "street", "--no-crop"), "Green Coupe 2010", ...),
        ((tmp_path / "cut",), "Red Sedan 2011", None),
    ):
        row = json.loads(printed("predict", *words, "--json"))
        assert (row["prediction"], row.get("outcome", ...)) == (prediction, outcome)


@pytest.mark.parametrize("argument", ["photos", "pho*"])
def test_files_of_formats_that_are_not_opened_are_counted_in_one_line(
    released: Path,
    car: Path,
    argument: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("b.avif", "old/c.HEIC", "notes.txt"):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"x")
    assert main.run(["predict", str(tmp_path / argument), "--output", str(tmp_path / "a.csv")]) == 0
    assert caplog.messages == [
        f"{tmp_path}/photos: 2 files of a format that is not opened, such as HEIC, not used; convert to JPEG or PNG"
    ]
    assert "1 row\n" in capfd.readouterr().out


def test_a_folder_that_may_not_be_listed_is_the_same_row_wherever_it_is_named(
    released: Path, car: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lock").mkdir()
    shutil.copy(car, "lock/photo")
    printed("predict", car)  # where root becomes another user, that one may not read what Python would load
    with only(0, tmp_path / "lock"):
        for locked in ("lock", "lock/a.jpg", "lock/photo"):
            first, second = (printed("predict", *words, "--json") for words in ([locked, car], [car, locked]))
            assert first.splitlines() == second.splitlines()[::-1]
            assert "permissions" in json.loads(first.splitlines()[0])["problem"]


def test_an_onnx_file_has_no_card_to_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(colour_bundle(), tmp_path / "model.onnx")
    assert main.run(["models", "--card", str(tmp_path / "model.onnx")]) == main.MISTAKE
    message = "model.onnx: holds no model card; give the .whichcar file of the same export\n"
    assert capsys.readouterr().err.endswith(message)


def test_models_lists_those_of_the_package_and_prints_a_card(released: Path, printed: Callable[..., str]) -> None:
    header, row = printed("models").splitlines()
    assert header.split()[0] == "name"
    assert row.split()[:4] == ["cars196", "3", "24x32", "float32"] and row.endswith("drawn images, free for any use")
    assert printed("models", "--card", "cars196") == "# colours\n"
    about = {"name": "cars196", "classes": 3, "image_size": [24, 32], "precision": "float32"}
    about |= {"bytes": (released / "cars196.whichcar").stat().st_size, "licence": "drawn images, free for any use"}
    assert json.loads(printed("models", "--json")) == about
    (released / "cars196.whichcar").unlink()
    assert "no model comes with this installation" in printed("models")
    assert printed("models", "--json") == ""


def test_evaluate_measures_the_model_of_the_package_where_none_is_named(
    released: Path, car: Path, printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = "# colours\n\n- Trained on 8 images of cars.\n"
    write_bundle(colour_bundle(card=card), released / "cars196.whichcar")
    folder = released.parent / "mine" / "Red Sedan 2011"
    folder.mkdir(parents=True)
    shutil.copy(car, folder)
    monkeypatch.chdir(released.parent)
    shown = printed("evaluate", "--data", "mine")
    assert "this model has been evaluated on them 1 time\n" in shown
    assert 'its card says "Trained on 8 images of cars." If these are among them' in shown
    result = json.loads(next(Path("evaluations").rglob("result.json")).read_text())
    assert result["command"] == "whichcar evaluate cars196 --data mine"
    page = next(Path("evaluations").rglob("report.html")).read_text()
    assert "This model has been evaluated on them once." in page and str(released) not in page


def test_the_uses_of_images_are_counted_for_each_bundle_and_its_copies(
    bundle: Path, car: Path, printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bundle.parent / "mine" / "Red Sedan 2011"
    folder.mkdir(parents=True)
    shutil.copy(car, folder)
    monkeypatch.chdir(bundle.parent)
    other, copied = "other.whichcar", "later/other.whichcar"
    write_bundle(colour_bundle(licence="another"), Path(other))
    Path("later").mkdir()
    shutil.copy(other, copied)
    for model, times, more in (
        (other, "1 time", ()),
        (bundle.name, "1 time", ("--with", other)),
        (bundle.name, "2 times", ("--with", bundle.name)),
        (other, "3 times", ()),
        (copied, "4 times", ()),
    ):
        shown = printed("evaluate", model, "--data", "mine", *more)
        assert f"this model has been evaluated on them {times}\n" in shown
    assert len(list(Path("evaluations").glob("*/result.json"))) == 3


def test_evaluate_takes_one_model(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["evaluate"], "name EXPERIMENT, or --data DIR with images for the model that comes with whichcar"),
        (["evaluate", str(bundle), "--model", str(bundle)], "name EXPERIMENT, or another model with --model; not both"),
    ):
        assert main.run(words) == 2
        assert message in capsys.readouterr().err
    assert main.run(["evaluate", "--model", str(bundle)]) == 2
    assert "a bundle does not say where its data are; name a folder" in capsys.readouterr().err
