"""`whichcar new` and `whichcar train DIR`: the file that is written, what is refused, and the experiment's name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from whichcar.cli import main
from whichcar.cli.new import experiment_of
from whichcar.config.load import load_config, read_experiment
from whichcar.errors import CheckpointError, ConfigError, MissingExtraError
from whichcar.training import hardware
from whichcar.training import new as stage
from whichcar.training import train as training
from whichcar.training.budget import Facts, Speed
from whichcar.training.hardware import Hardware
from whichcar.training.new import new
from whichcar.training.throughput import measure

EPOCH = "one epoch of training"
SPEED = Speed(0.12, 0.0005, 5e-7, 10, 3, 12, 0.002, 0.5)


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "measure", lambda *_: SPEED)


def write_images(root: Path, classes: int = 2, each: int = 6) -> Path:
    for number in range(classes * each):
        path = root / f"class {number % classes}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((70, 100, 3), 9 * number, np.uint8)).save(path)
    return root


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of six images of 100 x 70, in a folder below the current one."""
    monkeypatch.chdir(tmp_path)
    return write_images(Path("cars"))


def test_the_file_is_valid_and_says_why(images: Path) -> None:
    written = new("exp/mine", images, minutes=30, weights=None)
    assert written.config == Path("exp/mine/config.yml")
    assert load_config(written.config)["data"]["directory"] == "cars"
    experiment = read_experiment(written.config)
    assert experiment.data.image_size == (64, 64)  # a crop of 70 pixels is not enlarged
    text = written.config.read_text()
    assert "# Command:  whichcar train exp/mine" in text
    assert "2 classes, 10 training and 2 validation images; the shorter side of the median image is 70 pixels" in text
    assert "images/s in training" in text and "from measured steps" in text
    recipe = text.split("recipe:")[1].splitlines()
    assert all(line.startswith("  ") for line in recipe[1:]) and sum("# " in line for line in recipe) >= 3


def test_the_images_looked_at_are_spread_over_all_classes(tmp_path: Path) -> None:
    for number in range(399):  # most of them large, those of the first class small
        path = tmp_path / "cars" / f"class {number // 100}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 64) if number < 190 else (224, 224)).save(path)
    assert "median image is 224 pixels" in new(tmp_path / "exp", tmp_path / "cars", weights=None).config.read_text()


def test_text_in_the_path_of_the_data_stays_as_it_is(images: Path) -> None:
    odd = images.rename("it's: #1 [cars]")
    assert read_experiment(new("mine", odd, weights=None).config).data.directory == str(odd)


def test_a_config_is_replaced_only_with_overwrite(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine/config.yaml").write_text("seed: 1\n")
    command = ["new", "mine", "--data", str(images), "--weights", "none"]
    assert main.run(command) == main.MISTAKE
    assert "mine/config.yaml: is there already; give another folder, or replace it with --overwrite" in (
        capsys.readouterr().err
    )
    assert main.run([*command, "--overwrite"]) == 0
    out = capsys.readouterr().out
    assert "settings: mine/config.yml, for about" in out and "next: whichcar train mine" in out


def one_class() -> Path:
    shutil.rmtree("cars/class 1")
    return Path("cars")


def unreadable() -> Path:
    for path in Path("cars").rglob("*.jpg"):
        path.write_bytes(b"no image")
    return Path("cars")


def empty() -> Path:
    Path("empty").mkdir()
    return Path("empty")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: Path("gone"), "gone: no such folder"),
        (empty, "empty: no class folders in it"),
        (one_class, "one class only, 'class 0'; a classifier needs at least two"),
        (unreadable, "cars: none of 10 images can be read; the first: cars/class 0/"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_before_measuring(
    data: Callable[[], Path], message: str, images: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(stage, "measure", None)
    assert main.run(["new", "mine", "--data", str(data()), "--weights", "none"]) == main.MISTAKE
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("mine").exists()


def test_a_folder_without_class_folders_is_said_to_need_them_by_train(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (empty(), images / "class 0"):
        assert main.run(["train", str(folder)]) == main.MISTAKE
        assert capsys.readouterr().err == (
            f"error: {folder}: holds neither a config.yml nor class folders with images; name an experiment's folder "
            "or a YAML file, or a folder that holds one folder per class\n"
        )


def test_an_experiment_among_the_classes_of_its_images_is_refused_before_measuring(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "measure", lambda *_: pytest.fail("measured"))
    assert main.run(["new", "cars/mine", "--data", "cars", "--weights", "none"]) == main.MISTAKE
    assert "error: cars/mine: lies in cars, where it would be taken for a class; choose a folder outside, or run" in (
        capsys.readouterr().err
    )
    monkeypatch.chdir("cars")
    assert main.run(["train", ".", "--set", "model.weights=null"]) == main.MISTAKE
    assert "error: experiments/cars: lies in ., where it would be taken for a class" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["class 0", "class 1"]


@pytest.mark.parametrize(
    ("minutes", "message"),
    [
        ("0", "minutes must be more than 0; got 0"),
        ("-3", "minutes must be more than 0; got -3"),
        ("nan", "minutes must be more than 0; got nan"),
        ("inf", "minutes must be more than 0; got inf"),
        (
            "0.01",
            f"{EPOCH} takes 1 minute on this machine, more than 0.01; use: whichcar new --minutes 1",
        ),
    ],
)
def test_too_few_minutes_are_refused(
    minutes: str, message: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["new", "mine", "--data", str(images), "--weights", "none", "--minutes", minutes]
    assert (main.run(command), capsys.readouterr().err) == (main.MISTAKE, f"error: {message}\n")


@pytest.mark.parametrize("command", [["new", "mine", "--data", "cars"], ["train", "cars"]])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to")])
def test_out_of_memory_while_measuring_is_one_line(
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    error: Exception,
) -> None:
    def exhausted(*_: object) -> None:
        raise error

    monkeypatch.setattr(stage, "measure", exhausted)
    assert main.run(command) == main.MISTAKE
    last = capsys.readouterr().err.splitlines()[-1]
    experiment = "mine" if command[0] == "new" else "experiments/cars"
    assert last.startswith(f"error: {experiment}: out of memory in steps of 10 images on ")
    assert "close other programs, or use a smaller network (`new --backbone NAME`" in last


def test_weights_that_cannot_be_had_are_said_before_measuring(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("keras.applications.ResNet50", offline)
    monkeypatch.setattr(stage, "measure", measure)
    ways = r"\(`new --weights PATH`, .*--weights none`\)$"
    with pytest.raises(ConfigError, match=rf"could not be downloaded \(.*no network.*\); .* {ways}"):
        new("mine", images)
    with pytest.raises(CheckpointError, match=r"no file gone\.h5"):
        new("mine", images, weights="gone.h5")
    assert not Path("mine").exists()


def test_a_weights_file_that_is_not_there_is_said_with_what_the_option_takes(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["new", "mine", "--data", str(images), "--weights", "gone.h5"]) == main.MISTAKE
    error = "--weights: no file gone.h5; give imagenet, none, or the path of a .keras or .h5 file"
    assert capsys.readouterr().err == f"error: {error}\n"
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("efficientnet_v2_b9", 'no network has the name "efficientnet_v2_b9"; did you mean `efficientnet_v2_b'),
        (
            "hf://timm/resnet50.a1_in1k",
            "settings are chosen for networks of keras.applications only; for the preset hf://timm/resnet50.a1_in1k, "
            "write mine/config.yml by hand",
        ),
    ],
)
def test_a_backbone_that_no_settings_are_chosen_for_is_refused_before_measuring(
    backbone: str, message: str, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "measure", lambda *_: pytest.fail("measured"))
    assert main.run(["new", "mine", "--data", str(images), "--backbone", backbone]) == main.MISTAKE
    error = capsys.readouterr().err
    assert error.startswith(f"error: model.backbone: {message}") and error.count("\n") == 1
    assert not Path("mine").exists()


def test_another_backbone_is_measured_and_written(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Facts] = []
    asked: list[tuple[object, ...]] = []

    def fake(facts: Facts, *_: object) -> Speed:
        measured.append(facts)
        return SPEED

    monkeypatch.setattr(stage, "measure", fake)
    monkeypatch.setattr(stage, "has_classifier", lambda *given: bool(asked.append(given)))
    command = ["new", "mine", "--data", str(images), "--backbone", "ConvNeXtTiny", "--weights", "none"]
    assert main.run(command) == 0
    overrides = ["model.weights=null", "model.backbone=ConvNeXtTiny"]
    for folder in (Path("mine"), experiment_of(images, overrides)):
        experiment = read_experiment(folder)
        assert experiment.model.backbone == "convnext_tiny"
        assert experiment.fit.callbacks.model_checkpoint.filepath.endswith(".keras")
    assert [facts.backbone for facts in measured] == ["convnext_tiny"] * 2
    assert asked == [("convnext_tiny", None)] * 2
    text = Path("mine/config.yml").read_text()
    assert "how accurate is convnext_tiny on cars" in text and "found with resnet50" in text


def test_all_gpus_that_training_uses_are_measured(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[dict[str, object]] = []

    def two_gpus(**given: object) -> Hardware:
        wanted.append(given)
        return Hardware("jax", "bfloat16", "a GPU", 8, 2)

    monkeypatch.setattr(stage, "prepare", two_gpus)
    text = new("mine", images, weights=None).config.read_text()
    assert wanted == [{"devices": "auto", "batch_size": 10}]
    assert "# Machine:  2 x a GPU, 8 cores, jax, bfloat16" in text


def test_without_a_backend_the_line_that_installs_one_is_given(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"install it with: .*cpu"):
        new("mine", images, weights=None)


def test_the_share_of_a_split_is_kept(tree: Path) -> None:
    written = new(tree.parent / "mine", tree, weights=None)
    assert read_experiment(written.config).data.validation_split == 0.25  # of split.json


def test_train_with_a_folder_of_images_writes_the_experiment_once_and_resumes_it(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Path, bool]] = []

    def train(config: Path, _: object, resume: bool, **__: Any) -> training.Trained:  # noqa: ANN401
        calls.append((config, resume))
        return training.Trained(config, config / "model.h5", {}, ())

    monkeypatch.setattr(training, "train", train)
    command = ["train", "cars", "--set", "model.weights=null"]
    assert main.run(command) == 0
    assert "settings: experiments/cars/config.yml, for about" in capsys.readouterr().out
    written = Path("experiments/cars/config.yml").read_text()
    assert main.run(command) == 0
    assert Path("experiments/cars/config.yml").read_text() == written
    assert calls == [(Path("experiments/cars"), True)] * 2

    other = write_images(Path("more/cars"))
    assert main.run(["train", str(other)]) == main.MISTAKE
    assert "experiments/cars: is the experiment of cars; give this one another name: whichcar new EXPERIMENT" in (
        capsys.readouterr().err
    )
    several = Path("experiments")  # holds plots of experiments, and is no dataset
    assert experiment_of(several, ()) == several


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=x", "model: must contain settings"),
        ("model=null", "model: is empty"),
        ("model.weights.a=1", "model.weights: "),
        ("fit.epoch=3", "fit.epoch: no such setting; did you mean `epochs`?"),
        ("fit.epochs=few", "fit.epochs: must be "),
        ("epochs", "--set epochs: must be written as section.setting=value"),
    ],
)
def test_train_with_a_folder_of_images_refuses_a_wrong_override_before_measuring(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    monkeypatch.setattr(stage, "measure", lambda *_: pytest.fail("measured"))
    assert main.run(["train", "cars", "--set", override]) == main.MISTAKE
    err = capsys.readouterr().err
    assert err.startswith(f"error: experiments/cars: 1 problem\n  {message}") and err.count("\n") == 2
    assert not Path("experiments").exists()


def test_an_override_of_what_the_new_file_may_set_is_left_to_it(images: Path) -> None:
    overrides = [
        "model.weights=null",
        "model.data_aug_layer.random_rotation.fill_mode=nearest",  # of which the factor is required
        "recipe.schedule=cosine",
        "compile.optimizer.sgd.momentum=0.9",
        "fit.callbacks.reduce_on_plateau.patience=3",  # contradicts the schedule
    ]
    assert experiment_of(images, overrides) == Path("experiments/cars")
    assert Path("experiments/cars/config.yml").is_file()
