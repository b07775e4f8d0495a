from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import whichcar
from whichcar.errors import CheckpointError, ConfigError, DataError, MissingExtraError
from whichcar.evaluation.calibration import calibrated
from whichcar.exporting.export import Exported, export
from whichcar.exporting.images import export_images
from whichcar.exporting.openvino import OpenVinoNetwork
from whichcar.exporting.quantize import CALIBRATIONS, quantized
from whichcar.exporting.verify import Form
from whichcar.files import CALIBRATION, checksum, write_json
from whichcar.inference.answer import tempered
from whichcar.inference.bundle import read_bundle
from whichcar.inference.classifier import Classifier
from whichcar.metrics import Proportion
from whichcar.taxonomy import taxonomy_of
from whichcar.training.hardware import Hardware
from whichcar.training.run.checkpoint import find_checkpoint, read_metadata

from ..bundles import colour_bundle
from ..colours import CLASSES, add_refit, draw, make_experiment


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    return export(
        trained, folder / "cars.whichcar", plain=folder / "plain", licence="free for research", notes=["Drawn by hand."]
    )


@pytest.mark.usefixtures("in_float32")
def test_a_bundle_answers_as_the_checkpoint_does(trained: Path, exported: Exported) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), np.uint8)
    bundle, checkpoint = Classifier(exported.bundle), Classifier(trained)
    assert bundle.class_names == checkpoint.class_names
    np.testing.assert_allclose(bundle.probabilities(images), checkpoint.probabilities(images), atol=1e-5)


def test_a_bundle_says_what_it_was_made_from(exported: Exported) -> None:
    bundle = read_bundle(exported.bundle)
    assert (bundle.name, bundle.precision, bundle.image_size) == ("exp_9", "float32", (24, 32))
    assert bundle.licence == "free for research"
    assert bundle.class_names == CLASSES
    assert bundle.experiment["seed"] == 1


@pytest.mark.usefixtures("in_float32")
def test_a_bundle_gives_calibrated_probabilities_and_knows_the_thresholds(trained: Path, tmp_path: Path) -> None:
    experiment = shutil.copytree(trained, tmp_path / "exp")
    checkpoint = find_checkpoint(experiment)
    scores = np.eye(len(CLASSES), dtype=np.float32)[[0, 1, 1]] * 0.5 + 0.5 / len(CLASSES)
    found = calibrated(scores, np.array([0, 1, 0]), taxonomy_of(CLASSES), checksum(checkpoint))
    (experiment / CALIBRATION).write_text(json.dumps(asdict(replace(found, temperature=2.0))))
    path = export(experiment, tmp_path / "cars.whichcar").bundle
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)
    before = Classifier(experiment).probabilities(images)
    np.testing.assert_allclose(Classifier(path).probabilities(images), tempered(before, 2.0), atol=1e-5)
    bundle = read_bundle(path)
    assert bundle.temperature == 2.0
    assert bundle.taxonomy == taxonomy_of(CLASSES).as_json()
    assert bundle.thresholds is not None and len(bundle.thresholds["thresholds"]) == len(found.thresholds)


def test_the_plain_network_has_names_and_preprocessing_as_metadata(exported: Exported) -> None:
    (path,) = exported.others
    assert path.name == "model.onnx"
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    described = json.loads({entry.key: entry.value for entry in model.metadata_props}["whichcar"])
    assert described["class_names"] == list(CLASSES)
    (image,), (answer,) = model.graph.input, model.graph.output
    assert (image.name, image.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert [side.dim_param or side.dim_value for side in image.type.tensor_type.shape.dim] == ["n", 24, 32, 3]
    assert answer.name == "probabilities"
    assert {node.domain for node in model.graph.node} == {""}


def test_the_network_is_verified_on_the_validation_images(exported: Exported) -> None:
    stored = read_bundle(exported.bundle).metrics
    assert (stored["split"], stored["trained_on"]) == ("validation", False)
    keras, network = stored["forms"]
    assert (keras["name"], network["name"]) == ("Keras float32", "ONNX float32")
    assert network["agreeing"] == network["images"] == 4
    assert network["top_1"]["correct"] == keras["top_1"]["correct"] == 4
    assert network["largest_difference"] < 1e-4
    assert min(form["images_per_second"] for form in stored["forms"]) > 0


def test_the_model_card_shows_the_verification_and_the_limits(exported: Exported) -> None:
    with zipfile.ZipFile(exported.bundle) as archive:
        text, page = archive.read("card.md").decode(), archive.read("card.html").decode()
    for card in (text, page):
        assert "ONNX float32" in card and "4 of 4" in card
        assert "free for research" in card
        assert "knows only its classes" in card
        assert "holds no result of `whichcar evaluate`" in re.sub("</?code>", "`", card)
        assert "Drawn by hand." in card


def test_openvino_gets_the_same_network(trained: Path, tmp_path: Path) -> None:
    import openvino

    exported = export(trained, tmp_path / "cars.whichcar", plain=tmp_path / "plain", formats=["openvino", "onnx"])
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == ["model.bin", "model.onnx", "model.xml"]
    names = [form.name for form in exported.verification.forms]
    assert names == ["Keras float32", "ONNX float32", "OpenVINO float32"]
    assert [path.name for path in exported.others] == ["model.xml", "model.bin", "model.onnx"]
    model = openvino.Core().read_model(tmp_path / "plain" / "model.xml")
    described = json.loads(model.get_rt_info(["whichcar"]).value)
    assert described == json.loads(json.dumps(read_bundle(exported.bundle).as_json()))
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), np.uint8)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled(images)[0]
    np.testing.assert_allclose(answer, Classifier(exported.bundle).probabilities(images), atol=1e-5)


def test_litert_gets_the_same_network_with_its_labels(trained: Path, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    exported = export(trained, tmp_path / "cars.whichcar", plain=tmp_path / "plain", formats=["litert"])
    path = tmp_path / "plain" / "model.tflite"
    assert exported.others == (path,)
    assert [form.name for form in exported.verification.forms] == ["Keras float32", "ONNX float32", "LiteRT float32"]
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(CLASSES)
        described = json.loads(archive.read("bundle.json"))
    assert described == json.loads(json.dumps(read_bundle(exported.bundle).as_json()))
    run = Interpreter(model_path=str(path)).get_signature_runner()
    pixels = np.random.default_rng(0).integers(0, 256, (1, 24, 32, 3), np.uint8)
    scores = run(images=pixels)["probabilities"]
    np.testing.assert_allclose(scores, Classifier(exported.bundle).probabilities(pixels), atol=1e-5)


def test_litert_is_quantized_and_verified_too(trained: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    exported = export(trained, tmp_path / "cars.whichcar", "int8", plain=plain, formats=["litert"])
    forms = {form.name: form for form in exported.verification.forms}
    assert list(forms) == ["Keras float32", "ONNX float32", "LiteRT float32", "ONNX int8", "LiteRT int8"]
    assert forms["LiteRT float32"].difference < 1e-4 < forms["LiteRT int8"].difference < 0.1
    assert forms["LiteRT int8"].agreeing.correct == forms["LiteRT int8"].agreeing.total
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(plain / "model.tflite"))
    assert any(tensor["dtype"] == np.int8 for tensor in interpreter.get_tensor_details())
    with zipfile.ZipFile(plain / "model.tflite") as archive:
        assert json.loads(archive.read("bundle.json"))["thresholds"] is None
    assert read_bundle(exported.bundle).thresholds is not None


def test_a_network_that_litert_cannot_take_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    def convert() -> bytes:
        raise RuntimeError("no operator for it\nin LiteRT")

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", lambda *_: SimpleNamespace(convert=convert))
    with pytest.raises(CheckpointError, match=r"to LiteRT \(no operator for it\); leave out --format litert"):
        export(trained, tmp_path / "cars.whichcar", plain=tmp_path / "plain", formats=["litert"])
    assert not (tmp_path / "cars.whichcar").exists()


def test_a_litert_network_that_int8_makes_worse_is_refused_at_once(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whichcar.exporting import comparison as module

    class Worse(module.LiteRtNetwork):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return np.roll(super().__call__(images), 1 if self.precision == "int8" else 0, axis=1)

    class Once:
        def __call__(self, *_: object) -> object:
            yield CALIBRATIONS[0], replace(read_bundle(bundle), precision="int8")
            pytest.fail("another int8 form of ONNX does not help")

    bundle = export(trained, tmp_path / "float32.whichcar").bundle
    monkeypatch.setattr(module, "LiteRtNetwork", Worse)
    monkeypatch.setattr(module, "candidates", Once())
    with pytest.raises(CheckpointError, match=r"LiteRT int8 loses .* points .*; leave out --format litert$"):
        export(trained, tmp_path / "cars.whichcar", "int8", plain=tmp_path / "plain", formats=["litert"])


@pytest.fixture
def int8_export(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Exported]:
    """Export to int8 and OpenVINO as if the forms had classified these numbers of images correctly."""
    from whichcar.exporting import comparison as module

    bundle = read_bundle(export(trained, tmp_path / "float32.whichcar").bundle)
    real = module.measure

    def exported(total: int, float32: int, onnx: int, openvino: int) -> Exported:
        correct = {"ONNX int8": onnx, "OpenVINO int8": openvino}

        def measured(*given: object) -> list[Form]:
            forms = real(*given)  # type: ignore[arg-type]
            return [replace(form, top_1=Proportion(correct.get(form.name, float32), total)) for form in forms]

        monkeypatch.setattr(module, "measure", measured)
        monkeypatch.setattr(module, "candidates", lambda *_: [(CALIBRATIONS[0], replace(bundle, precision="int8"))])
        plain = tmp_path / "plain"
        return export(trained, tmp_path / "cars.whichcar", "int8", plain=plain, formats=["openvino"])

    return exported


def test_int8_may_lose_the_limit_and_not_one_image_more(int8_export: Callable[..., Exported]) -> None:
    assert int8_export(1000, 915, 912, 912).bundle.is_file()
    with pytest.raises(CheckpointError, match=r"loses 0\.33 points .*, more than 0\.3,.*one image is 0\.33 points"):
        int8_export(300, 274, 273, 273)


@pytest.mark.parametrize(("onnx", "advice"), [(274, "leave out --format openvino, or export"), (200, "export")])
def test_an_openvino_network_that_int8_makes_worse_is_left_out(
    int8_export: Callable[..., Exported], onnx: int, advice: str
) -> None:
    with pytest.raises(CheckpointError, match=f"OpenVINO int8 loses .*; {advice} it with --precision float32$"):
        int8_export(300, 274, onnx, 100)


def test_an_openvino_network_that_disagrees_is_left_out(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whichcar.exporting import comparison as module

    class Wrong(OpenVinoNetwork):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return np.roll(super().__call__(images), 1, axis=1)

    monkeypatch.setattr(module, "OpenVinoNetwork", Wrong)
    with pytest.raises(CheckpointError, match=r"OpenVINO float32 network disagrees .*; leave out --format openvino$"):
        export(trained, tmp_path / "cars.whichcar", plain=tmp_path / "plain", formats=["openvino"])


def test_a_missing_litert_is_said_before_the_work(
    colour_experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ai_edge_litert" else real(name))
    monkeypatch.delattr("whichcar.exporting.export.float32_copy")
    with pytest.raises(MissingExtraError, match=r"LiteRT is not installed; install it with: .*litert"):
        export(colour_experiment, tmp_path / "cars.whichcar", plain=tmp_path, formats=["litert"])


def test_a_network_that_disagrees_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whichcar.exporting import comparison as module

    def other(bundle: object, path: Path) -> object:
        return Wrong(Real(bundle, path))  # type: ignore[arg-type]

    Real = module.OnnxRuntime

    class Wrong:
        batch_size, callers, hardware = 32, 0, {}

        def __init__(self, runtime: object) -> None:
            self.runtime = runtime

        def __call__(self, images: np.ndarray) -> np.ndarray:
            return np.roll(self.runtime(images), 1, axis=1)  # type: ignore[operator]

    monkeypatch.setattr(module, "OnnxRuntime", other)
    with pytest.raises(CheckpointError, match=r"disagrees with Keras', by up to 0\.\d+ in a probability"):
        export(trained, tmp_path / "cars.whichcar")
    assert not list(tmp_path.iterdir())


def test_without_its_dataset_a_network_is_compared_on_noise(colour_experiment: Path, tmp_path: Path) -> None:
    exported = export(colour_experiment, tmp_path / "cars.whichcar")
    assert exported.verification.split == "noise"
    assert exported.verification.forms[1].top_1 is None
    assert "accuracy is not verified" in read_bundle(exported.bundle).card


def test_a_moved_dataset_is_named(colour_data: Path, tmp_path: Path, colour_model: object) -> None:
    data = shutil.copytree(colour_data, tmp_path / "data")
    experiment = make_experiment(tmp_path / "exp_9", data, colour_model)
    moved = data.rename(tmp_path / "moved")
    assert export(experiment, tmp_path / "a.whichcar", data=moved).verification.split == "validation"
    with pytest.raises(DataError, match="is not the dataset that this network was trained on"):
        export(experiment, tmp_path / "b.whichcar", data=experiment)
    shutil.copytree(colour_data, data)
    draw(data / "Audi S4 2012" / "1.jpg", (9, 9, 9))  # another dataset, where that of the training was
    metadata = read_metadata(find_checkpoint(experiment))
    assert {sample.path.parents[1] for sample in export_images(moved, metadata).verifying} == {moved}
    shutil.rmtree(data / "Audi S4 2012")
    with pytest.raises(DataError, match="is not the dataset that this network was trained on"):
        export_images(experiment, metadata)
    assert {sample.path.parents[1] for sample in export_images(data, metadata).verifying} == {data}


def test_a_refit_is_exported_and_its_accuracy_is_not_called_that_on_new_images(
    trained: Path, tmp_path: Path, colour_data: Path, colour_model: object
) -> None:
    experiment = shutil.copytree(trained, tmp_path / "exp_9")
    add_refit(experiment, colour_data, colour_model)
    exported = export(experiment, tmp_path / "cars.whichcar")
    bundle = read_bundle(exported.bundle)
    assert bundle.name == "exp_9-refit"
    assert bundle.metrics["trained_on"]
    assert "says nothing about other images" in bundle.card


def test_by_default_a_bundle_lies_in_the_experiments_folder_and_replaces_an_earlier_one(
    colour_experiment: Path, tmp_path: Path
) -> None:
    experiment = shutil.copytree(colour_experiment, tmp_path / "exp")
    (experiment / "exp.whichcar").write_bytes(b"an earlier one")
    assert whichcar.export(str(experiment)).bundle == experiment / "exp.whichcar"
    read_bundle(experiment / "exp.whichcar")
    assert not [path for path in experiment.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "cars.zip"}, r"cars\.zip: the name of a bundle ends in \.whichcar; give cars\.whichcar"),
        ({"to": "."}, r"^\.: the name of a bundle ends in \.whichcar; give exp\.whichcar"),
        ({"to": ""}, r"^\.: the name of a bundle ends in \.whichcar; give exp\.whichcar"),
        ({"to": "/"}, r"^/: the name of a bundle ends in \.whichcar; give /exp\.whichcar"),
        ({"formats": ["tensorrt"]}, "format: must be one of onnx, openvino, litert; got 'tensorrt'"),
        ({"precision": "int4"}, "precision: must be one of float32, int8; got 'int4'"),
    ],
)
def test_wrong_arguments_are_named(colour_experiment: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export(colour_experiment, **arguments)  # type: ignore[arg-type]


def test_a_calibration_that_cannot_be_kept_is_exported(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = shutil.copytree(trained, tmp_path / "exp", ignore=shutil.ignore_patterns(CALIBRATION))
    (experiment / CALIBRATION).mkdir()
    assert read_bundle(export(experiment, tmp_path / "a.whichcar").bundle).thresholds is not None
    assert "exp: the calibration cannot be kept there" in caplog.text


def test_the_network_as_loaded_is_exported_though_a_running_training_deletes_its_file(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = shutil.copytree(trained, tmp_path / "exp", ignore=shutil.ignore_patterns(CALIBRATION))
    checkpoint, scored = find_checkpoint(experiment), Classifier.scored

    def scored_meanwhile(*arguments: Any) -> object:  # noqa: ANN401
        checkpoint.unlink()
        return scored(*arguments)

    monkeypatch.setattr(Classifier, "scored", scored_meanwhile)
    assert read_bundle(export(experiment).bundle).thresholds is not None


def test_a_damaged_result_is_said_before_the_work(
    colour_experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = shutil.copytree(colour_experiment, tmp_path / "exp")
    (experiment / "result.json").write_text("{")
    monkeypatch.delattr("whichcar.exporting.export.float32_copy")
    advice = "delete it, or make it again with: whichcar evaluate"
    with pytest.raises(DataError, match=rf"result.json: damaged, .*; {advice}"):
        export(experiment)


def test_keras_is_on_tensorflow_before_images_are_classified_for_the_calibration(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whichcar.exporting.onnx.prepare", lambda *_: Hardware("jax", "float32", "gpu", 2))
    monkeypatch.delattr("whichcar.exporting.export.calibrate")
    with pytest.raises(CheckpointError, match="is exported with Keras on TensorFlow, and here Keras runs on jax"):
        export(trained, tmp_path / "cars.whichcar")


def test_openvino_leaves_no_file_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    network = OpenVinoNetwork(colour_bundle())
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        network.write(colour_bundle(), tmp_path / "model.xml")
    assert caught.value.filename == str(tmp_path / "model.xml")
    assert not list(tmp_path.iterdir())


def test_openvino_sends_no_usage_data(bundle: Path, tmp_path: Path) -> None:
    program = """
import pathlib, sys
from whichcar.exporting.openvino import OpenVinoNetwork
from whichcar.inference.bundle import read_bundle

OpenVinoNetwork(read_bundle(pathlib.Path(sys.argv[1])))
"""
    switches = {"CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME"}  # no usage data is sent from a CI
    known = {name: value for name, value in os.environ.items() if name not in switches}
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-c", program, str(bundle)], env=known | {"HOME": str(home)}, check=True)
    assert list(home.rglob("*")) == []


def test_ctrl_c_that_openvino_swallows_ends_the_export(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    def swallows(_: Path) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RuntimeError("half-done")

    monkeypatch.setattr(openvino, "convert_model", swallows)
    with pytest.raises(KeyboardInterrupt):
        OpenVinoNetwork(colour_bundle())


def test_ctrl_c_after_another_thread_released_an_openvino_network_is_no_segmentation_fault(bundle: Path) -> None:
    program = """
import os, pathlib, signal, sys, threading
from whichcar.exporting.openvino import OpenVinoNetwork
from whichcar.inference.bundle import read_bundle

networks = [OpenVinoNetwork(read_bundle(pathlib.Path(sys.argv[1])))]
thread = threading.Thread(target=networks.clear)
thread.start()
thread.join()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", program, str(bundle)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


def test_a_full_folder_for_temporary_files_is_named(
    colour_experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    for work in (
        lambda: export(colour_experiment, tmp_path / "cars.whichcar"),
        lambda: OpenVinoNetwork(colour_bundle()),
        lambda: quantized(colour_bundle().network, np.zeros((1, 24, 32, 3), np.uint8), CALIBRATIONS[0]),
    ):
        with pytest.raises(OSError, match="No space left on device") as caught:
            work()
        assert caught.value.filename == tempfile.gettempdir()
    assert not list(tmp_path.iterdir())


def test_a_target_that_cannot_be_written_is_said_before_the_work(colour_experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "cars.whichcar").mkdir()
    with pytest.raises(IsADirectoryError):
        export(colour_experiment, tmp_path / "cars.whichcar")


def test_an_unfinished_training_or_refit_is_exported_with_a_warning(
    colour_experiment: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = shutil.copytree(colour_experiment, tmp_path / "exp")
    write_json(experiment / "resolved.json", {"finished": False, "settings": {}})
    export(experiment)
    assert "its training is not finished; the best checkpoint so far is exported" in caplog.text
    write_json(experiment / "resolved.json", {"finished": True, "settings": {}})
    (experiment / "refit").mkdir()
    write_json(experiment / "refit" / "resolved.json", {"finished": False, "settings": {}})
    export(experiment)
    assert "its refit is not finished; the checkpoint before it is exported" in caplog.text


def test_an_experiment_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "config.yml").write_text("seed: 1\n")
    with pytest.raises(CheckpointError, match="holds no finished epoch yet; run: whichcar train"):
        export(tmp_path / "exp")
