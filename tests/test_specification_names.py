"""The names and signatures that are fixed."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import whichcar

ROOT = Path(__file__).parents[1]
SIGNATURES = {
    "load_config": ["path"],
    "create_model": [
        "weights", "input_shape", "dropout_rate", "data_aug_layer", "classes", "l1_factor", "l2_factor",
    ],
    "create_data_aug_layer": ["data_aug_layer"],
    "get_vehicle_coordinates": ["image"],
    "predict_from_folder": ["folder", "model", "input_size", "class_names"],
}  # fmt: skip
HOMES = {"create_model": "resnet50", "create_data_aug_layer": "data_aug", "get_vehicle_coordinates": "detection"}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_fixed_name_comes_from_the_package_with_its_parameters(name: str) -> None:
    parameters = list(inspect.signature(getattr(whichcar, name)).parameters)
    assert parameters[: len(SIGNATURES[name])] == SIGNATURES[name] or len(SIGNATURES[name]) == len(parameters) == 1


@pytest.mark.parametrize("name", HOMES)
def test_a_function_lives_in_the_module_that_its_fixed_name_says(name: str) -> None:
    assert getattr(whichcar, name).__module__.rsplit(".", 1)[1] == HOMES[name]


def test_the_model_has_the_fixed_defaults() -> None:
    parameters = inspect.signature(whichcar.create_model).parameters
    assert parameters["weights"].default == "imagenet"
    assert parameters["input_shape"].default == (224, 224, 3)
    assert parameters["dropout_rate"].default == 0.0
    assert parameters["data_aug_layer"].default is None
    assert parameters["classes"].default is None


def test_every_public_name_can_be_loaded() -> None:
    assert all(callable(getattr(whichcar, name)) for name in whichcar.__all__)
    assert set(whichcar.__all__) <= set(dir(whichcar))


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'create_modell'; it has Classifier"):
        _ = whichcar.create_modell  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("script", "usage"),
    [
        ("get_dataset.py", "whichcar fetch [OPTIONS] [SOURCE]..."),
        ("prepare_train_test_dataset.py", "whichcar split [OPTIONS] DATA [LABELS] OUTPUT"),
        ("remove_background.py", "whichcar crop [OPTIONS] INPUT OUTPUT"),
        ("train.py", "whichcar train [OPTIONS] CONFIG"),
    ],
)
def test_a_fixed_script_is_the_command(script: str, usage: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--help"], capture_output=True, text=True, check=True
    )
    assert usage in done.stdout


def test_the_split_script_sorts_images_into_subsets_and_classes(drawn: Path, tmp_path: Path) -> None:
    script = ROOT / "scripts" / "prepare_train_test_dataset.py"
    labels = drawn / "car_dataset_labels.csv"
    subprocess.run([sys.executable, script, drawn, labels, tmp_path / "v1"], capture_output=True, check=True)
    assert len(list((tmp_path / "v1").glob("test/Boxer C-V Cargo Van 2012/*.jpg"))) == 2
    assert len(list((tmp_path / "v1").glob("train/*/*.jpg"))) == 24
