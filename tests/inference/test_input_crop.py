from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from whichcar.cli import main
from whichcar.detection import zoo
from whichcar.detection.crop import crop, read_record
from whichcar.detection.onnx import OnnxDetector
from whichcar.errors import ConfigError, DetectorError
from whichcar.evaluation.evaluate import evaluate
from whichcar.files import sha256, write_json
from whichcar.images.read import decoded
from whichcar.inference.classifier import Classifier
from whichcar.inference.input_crop import InputCrop, is_cropped
from whichcar.records import Metadata, Prediction
from whichcar.training.run.checkpoint import save_checkpoint

CLASSES = ("Blue C/V Van 2012", "Green Coupe 2010", "Red Sedan 2011")
FOLDERS = ("Blue C-V Van 2012", "Green Coupe 2010", "Red Sedan 2011")
CUT: dict[str, object] = {
    "settings": {"margin": 0.0, "score": 0.5, "detector": None},
    "detector": {"name": "red cars.onnx", "sha256": None},
}


@pytest.fixture(autouse=True)
def _detector(red_car_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(red_car_file))
    is_cropped.cache_clear()


@pytest.fixture
def make(tmp_path: Path, tree: Path, colour_model: object) -> Callable[..., Path]:
    def experiment(trained_on_crops: bool) -> Path:
        folder = tmp_path / "experiments" / f"crops {trained_on_crops}"
        folder.mkdir(parents=True)
        settings = {"seed": 1, "data": {"directory": str(tree), "validation_split": 0.25}}
        metadata = Metadata(CLASSES, FOLDERS, (24, 32), {}, settings, str(tree), CUT if trained_on_crops else None)
        save_checkpoint(colour_model, metadata, folder / "model.keras")  # type: ignore[arg-type]
        write_json(folder / "best.json", {"checkpoint": "model.keras", "epoch": 1, "image_size": [24, 32]})
        return folder

    return experiment


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """A small red car in a green street: whole it is predicted green, cropped to the car red."""
    image = np.full((120, 160, 3), (30, 190, 40), np.uint8)
    image[60:100, 40:80] = (230, 20, 20)
    (tmp_path / "street").mkdir()
    Image.fromarray(image).save(tmp_path / "street" / "a.png")
    return tmp_path / "street" / "a.png"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def predicted(experiment: Path, image: Path, crop: bool) -> str:
    (answer,) = Classifier(experiment, crop).predict([image])
    assert isinstance(answer, Prediction)
    return answer.best


def test_with_crop_the_car_counts_and_not_the_street(make: Callable[..., Path], street: Path) -> None:
    experiment = make(trained_on_crops=True)
    assert predicted(experiment, street, crop=False) == "Green Coupe 2010"
    assert predicted(experiment, street, crop=True) == "Red Sedan 2011"


@pytest.mark.parametrize(
    ("trained_on_crops", "crop", "message"),
    [
        (True, False, ""),  # as it was asked for
        (False, True, "was not trained on images that `whichcar crop` wrote"),
        (True, True, ""),
        (False, False, ""),
    ],
)
def test_a_warning_says_when_training_and_prediction_disagree(
    make: Callable[..., Path],
    street: Path,
    caplog: pytest.LogCaptureFixture,
    trained_on_crops: bool,
    crop: bool,
    message: str,
) -> None:
    list(Classifier(make(trained_on_crops), crop).predict([street] * 5))
    assert len(warnings(caplog)) == (1 if message else 0)
    assert all(message in warning for warning in warnings(caplog))


def test_images_that_the_crop_stage_wrote_are_known_to_be_cropped(
    make: Callable[..., Path], street: Path, tmp_path: Path, red_car_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    list(crop(street.parent, tmp_path / "cut", detector=OnnxDetector(red_car_file)))
    assert predicted(make(trained_on_crops=True), tmp_path / "cut" / "a.png", crop=False) == "Red Sedan 2011"
    assert warnings(caplog) == []
    predicted(tmp_path / "experiments" / "crops True", tmp_path / "cut" / "a.png", crop=True)
    assert "are cropped to the vehicle already, and cropped again; leave out --crop or --vehicles" in caplog.text


def test_what_is_averaged_sees_images_framed_as_the_evaluated_model_does(make: Callable[..., Path]) -> None:
    other = make(trained_on_crops=True)
    (warning,) = evaluate(make(trained_on_crops=False), others=[other]).warnings
    assert warning.startswith(f"{other}: was trained on images cropped to the vehicle, and these seem to be whole")


def test_evaluate_with_crop_keeps_the_result_without_it(make: Callable[..., Path]) -> None:
    experiment = make(trained_on_crops=True)
    (warning,) = evaluate(experiment).warnings
    assert warning == (
        "model.keras: was trained on images cropped to the vehicle, and these seem to be whole: add --crop"
    )
    before = (experiment / "result.json").read_bytes()
    assert "vehicle" not in (experiment / "predictions.csv").read_text()
    result = evaluate(experiment, crop=True)
    with (result.folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    cells = [(row["vehicle"], row["candidates"], row["outcome"], row["error"][:7]) for row in rows]
    unreadable = ("", "", "", rows[1]["error"][:7])
    assert sorted(set(cells)) == sorted({("", "0", "whole: no vehicle", ""), ("car", "1", "cropped", ""), unreadable})
    assert rows[1]["error"]
    assert all(row["vehicle_score"].startswith("0.9") for row in rows if row["vehicle"])
    assert result.folder == experiment / "evaluations" / "with-crop"
    assert json.loads((result.folder / "result.json").read_text())["command"].endswith("--crop")
    assert (experiment / "result.json").read_bytes() == before


def test_the_detector_of_training_is_used_again_and_another_one_is_named(
    make: Callable[..., Path], street: Path, tmp_path: Path, red_car_file: Path, blue_spot_file: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    list(crop(street.parent, tmp_path / "cut", detector=red_car_file))
    record = read_record(tmp_path / "cut")
    assert record is not None
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(blue_spot_file))
    monkeypatch.setitem(CUT, "settings", record["settings"])
    monkeypatch.setitem(CUT, "detector", record["detector"])
    experiment = make(trained_on_crops=True)
    assert predicted(experiment, street, crop=True) == "Red Sedan 2011"
    assert warnings(caplog) == []
    (answer,) = Classifier(experiment, crop=True, detector=str(blue_spot_file)).predict([street])
    assert isinstance(answer, Prediction)
    assert answer.best == "Green Coupe 2010"
    assert "was trained on images cropped by red cars.onnx, now blue_spots.onnx crops them" in caplog.text


@pytest.mark.parametrize("name", ["own detector", "detectron2"])
def test_a_detector_without_a_file_that_is_not_the_one_of_now_is_named(
    make: Callable[..., Path],
    street: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(CUT, "detector", {"name": name, "sha256": None})
    predicted(make(trained_on_crops=True), street, crop=True)
    assert f"was trained on images cropped by {name}, now red cars.onnx crops them" in caplog.text


def test_the_command_crops(make: Callable[..., Path], street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["predict", str(make(trained_on_crops=True)), str(street), "--crop", "--csv", "--top", "1"]) == 0
    assert "Red Sedan 2011" in capsys.readouterr().out


def test_a_prediction_has_the_box_that_was_chosen(make: Callable[..., Path], street: Path) -> None:
    (answer,) = Classifier(make(trained_on_crops=True), crop=True).predict([street])
    assert isinstance(answer, Prediction) and answer.crop is not None
    crop = answer.crop
    assert (crop.label, crop.candidates, crop.outcome) == ("car", 1, "cropped")
    assert crop.score == pytest.approx(0.9, abs=1e-3)
    assert crop.box is not None
    assert [crop.box.left, crop.box.top, crop.box.right, crop.box.bottom] == pytest.approx([40, 60, 80, 100], abs=3)


def test_an_image_without_a_vehicle_says_so_in_every_form(
    make: Callable[..., Path], tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, green = make(trained_on_crops=True), next((tree / "test" / "Green Coupe 2010").glob("*.jpg"))
    for form, text in (("--top=1", "no vehicle found, whole image used"), ("--json", '"outcome": "whole: no vehicle"'),
                       ("--csv", ",whole: no vehicle,")):  # fmt: skip
        assert main.run(["predict", str(experiment), str(green), "--crop", form]) == 0
        assert text in capsys.readouterr().out


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_detector_without_crop_is_refused(
    make: Callable[..., Path], street: Path, red_car_file: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    experiment = make(trained_on_crops=False)
    before = sorted(experiment.rglob("*"))
    images = [str(street)] if command == "predict" else []
    assert main.run([command, str(experiment), *images, "--detector", str(red_car_file)]) == 2
    assert capsys.readouterr().err == (
        f"error: detector {red_car_file}: is used only when images are cropped; add --crop (crop=True)\n"
    )
    assert sorted(experiment.rglob("*")) == before


def test_a_detector_that_is_missing_is_an_error_at_once(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(zoo.FILE_VARIABLE, "lost.onnx")
    with pytest.raises(DetectorError, match=r"lost\.onnx .*: no such file"):
        Classifier(make(trained_on_crops=True), crop=True)


def test_the_packaged_detector_is_read_once_and_not_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256(path)

    monkeypatch.setattr("whichcar.files.sha256", counted)
    monkeypatch.setattr("whichcar.detection.zoo.sha256", counted)
    monkeypatch.setattr(OnnxDetector, "_run", None)
    trained = {"settings": {}, "detector": {"name": "yolox-nano", "sha256": None}}
    record = InputCrop("a", trained, True, "yolox-nano").record
    assert record is not None and len(read) == 1
    assert record["detector"] == {"name": "yolox-nano", "sha256": sha256(read[0])}
    assert record["settings"]["min_size"] == 32 and record["settings"]["classes"] == ["car", "truck"]


def test_a_family_from_python_is_checked_as_one_of_the_command(red_car_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"crop: family: must be one of yolox, .* did you mean `yolo`"):
        InputCrop("a", None, True, str(red_car_file), "yolo8")


def ambiguous(detector: Path, path: Path) -> Path:
    """The detector without its class names, which may now be COCO's 80 or 91, as a file that no other one equals."""
    model = onnx.load(str(detector))
    del model.metadata_props[:]
    model.doc_string = path.name
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_the_family_that_is_asked_for_can_be_given(
    make: Callable[..., Path],
    street: Path,
    red_car_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    experiment, detector = make(trained_on_crops=True), ambiguous(red_car_file, tmp_path / "one.onnx")
    words = [command, str(experiment), *([str(street)] if command == "predict" else [])]
    as_it_is = ["--no-crop"] if command == "predict" else []
    assert main.run([*words, *as_it_is, "--family", "rt-detr"]) == 2
    assert "error: family rt-detr: is used only when images are cropped; add --crop" in capsys.readouterr().err
    words += ["--crop", "--detector", str(detector)]
    assert main.run(words) == 2
    assert "name its family: --family" in capsys.readouterr().err
    assert main.run([*words, "--family", "rt-detr"]) == 0
    for result in experiment.glob("evaluations/*/result.json"):
        assert f"--crop --detector {detector} --family rt-detr" in json.loads(result.read_text())["command"]
        assert re.fullmatch(r"with-crop-one\.onnx-\w+-rt-detr", result.parent.name), "others may be called one.onnx"


def test_the_family_that_was_asked_for_stays_with_the_crops(tmp_path: Path, street: Path, red_car_file: Path) -> None:
    ambiguous(red_car_file, tmp_path / "one.onnx")
    ambiguous(red_car_file, tmp_path / "other.onnx")
    list(crop(street.parent, tmp_path / "cut", detector=tmp_path / "one.onnx", family="rt-detr"))
    trained = read_record(tmp_path / "cut")
    input_crop = InputCrop(Path("model.keras"), trained, crop=True)
    crop_image = input_crop.choice(street)
    assert crop_image is not None
    with decoded(street) as image:
        assert crop_image("a.png", image)[0][1].label == "car"
    with pytest.raises(DetectorError, match=r"other\.onnx: .* name its family: --family"):
        InputCrop(Path("model.keras"), trained, crop=True, detector=str(tmp_path / "other.onnx"))


def test_an_image_that_is_cropped_by_itself_does_not_disagree_with_the_training(tmp_path: Path) -> None:
    trained = {"settings": {}, "detector": {"name": "yolox-nano", "sha256": None}}
    assert InputCrop("a", trained, None).disagreement(tmp_path / "a.jpg") == ""
    assert "add --crop" in InputCrop("a", trained, False).disagreement(tmp_path / "a.jpg")
