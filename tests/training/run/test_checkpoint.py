from __future__ import annotations

import json
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from whichcar.errors import CheckpointError
from whichcar.files import is_disk_full
from whichcar.records import Metadata
from whichcar.training.hardware import prepare
from whichcar.training.run.checkpoint import find_checkpoint, load_model, read_metadata, save_checkpoint

from .limits import no_file_larger_than

prepare("float32")
import keras  # noqa: E402

METADATA = Metadata(
    class_names=("Ram C/V Cargo Van Minivan 2012", "Škoda Octavia 2011", "BMW X3 2012", "VW Golf 1991", "MINI 2009"),
    class_folders=("Ram C-V Cargo Van Minivan 2012", "Škoda Octavia 2011", "BMW X3 2012", "VW Golf 1991", "MINI 2009"),
    image_size=(176, 208),
    created_with={"whichcar": "0.1.0", "keras": "3"},
    settings={"seed": 1, "data": {"image_size": [32, 32]}, "model": {"weights": None}},
    data_root="cars",
)
KINDS = pytest.mark.parametrize("suffix", [".keras", ".h5"])


@pytest.fixture(scope="module")
def tiny() -> keras.Model:
    keras.utils.set_random_seed(3)
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    return keras.Model(image, keras.layers.Dense(5, "softmax", name="predictions")(x))


@KINDS
def test_a_checkpoint_knows_its_classes_size_and_settings(tmp_path: Path, tiny: keras.Model, suffix: str) -> None:
    path = tmp_path / "new folder" / f"model{suffix}"
    save_checkpoint(tiny, METADATA, path)
    assert read_metadata(path) == METADATA
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@KINDS
def test_there_is_room_for_ten_thousand_classes(tmp_path: Path, tiny: keras.Model, suffix: str) -> None:
    names = tuple(f"A make with a rather long name, model {number}" for number in range(10_000))
    many = replace(METADATA, class_names=names, class_folders=names)
    save_checkpoint(tiny, many, tmp_path / f"model{suffix}")
    assert read_metadata(tmp_path / f"model{suffix}") == many


@KINDS
def test_the_folder_of_the_images_may_have_a_name_that_is_not_utf_8(
    tmp_path: Path, tiny: keras.Model, suffix: str
) -> None:
    metadata = replace(METADATA, data_root="/data/Autos_\udcfc")
    save_checkpoint(tiny, metadata, tmp_path / f"model{suffix}")
    assert read_metadata(tmp_path / f"model{suffix}") == metadata


@KINDS
def test_writing_again_replaces_model_and_metadata(tmp_path: Path, tiny: keras.Model, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    for size in ((10, 20), (30, 40)):
        save_checkpoint(tiny, replace(METADATA, image_size=size), path)
    assert read_metadata(path).image_size == (30, 40)


PLAIN = """
import sys
import numpy as np, keras

assert not any(name.startswith("whichcar") for name in sys.modules)
sys.modules["whichcar"] = None  # an import of it fails, as where it is not installed
images = np.load(sys.argv[1])
np.save(sys.argv[2], np.stack([keras.models.load_model(path)(images) for path in sys.argv[3:]]))
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, resnet: keras.Model) -> list[Path]:
    """The ResNet-50 in both kinds of file."""
    paths = [tmp_path_factory.mktemp("real") / f"model{suffix}" for suffix in (".keras", ".h5")]
    for path in paths:
        save_checkpoint(resnet, METADATA, path)
    return paths


@pytest.mark.slow
def test_keras_alone_loads_the_network(
    tmp_path: Path, real: list[Path], resnet: keras.Model, noise: np.ndarray
) -> None:
    images = noise[:8].repeat(2, axis=1)  # not of the network's size: the resize is in the file
    np.save(tmp_path / "images.npy", images)
    called = [sys.executable, "-c", PLAIN, str(tmp_path / "images.npy"), str(tmp_path / "out.npy"), *map(str, real)]
    ended = subprocess.run(called, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    expected = np.asarray(resnet(images, training=False))
    for answers in np.load(tmp_path / "out.npy"):
        # Kernels differ between a graph and single calls; a network of random weights adds to what they round.
        np.testing.assert_allclose(answers, expected, atol=5e-4)


def test_the_training_copy_predicts_as_the_saved_model(
    tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whichcar.training.run import checkpoint

    keras.utils.set_random_seed(3)
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.Resizing(24, 24, antialias=True)(image, training=False)  # as in the networks of `create_model`
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(x, training=False)
    norm, head = keras.layers.BatchNormalization(), keras.layers.Dense(5, "softmax", name="predictions")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(norm(keras.layers.Conv2D(8, 3)(x))))
    saved = keras.Model(image, head(x))
    norm.set_weights([np.linspace(0.2, 2, 8)] * 4)
    head.set_weights([5 * weight for weight in head.get_weights()])
    save_checkpoint(saved, METADATA, tmp_path / "model.h5")
    monkeypatch.setattr(checkpoint, "prepare", lambda: prepare("float32"))
    answers = np.asarray(load_model(tmp_path / "model.h5")(noise))
    assert answers.dtype == np.float32
    assert np.ptp(answers, axis=0).max() > 0.1, "different answers, or this proves little"
    np.testing.assert_allclose(answers, np.asarray(saved(noise, training=False)), atol=1e-3)
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)


@pytest.mark.slow
def test_in_bfloat16_the_head_stays_exact(real: list[Path], noise: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from whichcar.training.run import checkpoint

    monkeypatch.setattr(checkpoint, "prepare", lambda: prepare("bfloat16"))
    model = load_model(real[0])
    assert model.get_layer("conv5_block3_out").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.weights} == {"float32"}
    answers = np.asarray(model(noise))
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)


@KINDS
def test_a_model_that_whichcar_did_not_write_is_refused(tmp_path: Path, tiny: keras.Model, suffix: str) -> None:
    path = tmp_path / f"foreign{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls .h5 legacy
        tiny.save(path)
    with pytest.raises(CheckpointError, match="holds no class names; give a checkpoint that `whichcar train` wrote"):
        read_metadata(path)


@KINDS
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "half"])
def test_a_file_that_is_no_model_is_one_line(tmp_path: Path, tiny: keras.Model, suffix: str, damage: str) -> None:
    path = tmp_path / f"model{suffix}"
    save_checkpoint(tiny, METADATA, path)
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "text": b"no model at all", "half": whole[: len(whole) // 2]}[damage])
    for read in (read_metadata, load_model):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_damaged_archive_is_one_line(tmp_path: Path, tiny: keras.Model) -> None:
    path = tmp_path / "model.keras"
    save_checkpoint(tiny, METADATA, path)
    whole = path.read_bytes()
    for part in (b"config.json", b"metadata.json"):
        begin = whole.index(part) + 40
        path.write_bytes(whole[:begin] + b"damaged" + whole[begin + 7 :])
        with pytest.raises(CheckpointError, match="not a model that Keras can load"):
            load_model(path)


def test_a_checkpoint_is_found_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("seed: 1")
    with pytest.raises(CheckpointError, match=r"no finished epoch yet; run: whichcar train .*config\.yml"):
        find_checkpoint(tmp_path)
    (tmp_path / "best.json").write_text(json.dumps({"checkpoint": "model.02-0.5000.h5"}))
    with pytest.raises(CheckpointError, match=r"model\.02-0\.5000\.h5: named by .*best\.json but missing"):
        find_checkpoint(tmp_path)
    (tmp_path / "model.02-0.5000.h5").write_bytes(b"x")
    assert find_checkpoint(tmp_path) == tmp_path / "model.02-0.5000.h5"
    assert find_checkpoint(tmp_path / "config.yml") == tmp_path / "config.yml"
    with pytest.raises(CheckpointError, match="no such experiment or checkpoint"):
        find_checkpoint(tmp_path / "nowhere")


@KINDS
def test_the_only_checkpoint_of_a_folder_is_taken(tmp_path: Path, suffix: str) -> None:
    only = tmp_path / f"m{suffix}"
    for name in (only.name, f".half-written{suffix}", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / f"folder{suffix}").mkdir()
    assert find_checkpoint(tmp_path) == only


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["b.h5", "a.keras"], "holds 2 checkpoints and no best.json; name one of them: a.keras, b.h5"),
        ([f"{n}.h5" for n in range(9)], "holds 9 checkpoints and no best.json; name one of them: "
         "0.h5, 1.h5, 2.h5, 3.h5, 4.h5, 5.h5 and 3 more"),
        (["config.yml", "history.csv"], "holds no finished epoch yet; run: whichcar train '{folder}/config.yml'"),
        (["config.yml", "resolved.json"],
         "holds no finished epoch yet; run: whichcar train '{folder}/config.yml' --resume"),
        (["notes.txt", "a.onnx"], "holds no checkpoint (.keras or .h5), only a.onnx, notes.txt; "
         "name an experiment's folder or a checkpoint"),
        ([], "is an empty folder; name an experiment's folder or a checkpoint"),
        (["exp_1/best.json", "exp_2/best.json", "README.md"],
         "holds 2 experiments, but no checkpoint itself; name one of them: exp_1, exp_2"),
    ],
)  # fmt: skip
def test_a_folder_without_best_json_says_what_is_in_it(tmp_path: Path, files: list[str], message: str) -> None:
    folder = tmp_path / "my folder"
    folder.mkdir()
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(folder)
    assert str(caught.value) == f"{folder}: {message.replace('{folder}', str(folder))}"


@KINDS
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, tiny: keras.Model, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    save_checkpoint(tiny, METADATA, path)
    before = path.read_bytes()
    large = keras.Sequential([keras.Input((100,)), keras.layers.Dense(1000)])
    with no_file_larger_than(200_000), pytest.raises(OSError) as caught:
        save_checkpoint(large, METADATA, path)
    assert is_disk_full(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_keras_saves_is_an_ordinary_archive(tmp_path: Path, tiny: keras.Model) -> None:
    save_checkpoint(tiny, METADATA, tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["config.json", "metadata.json", "model.weights.h5", "whichcar.json"]
