from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from whichcar.errors import CheckpointError, DataError
from whichcar.exporting.export import export
from whichcar.exporting.onnx import float32_copy, to_onnx
from whichcar.exporting.quantize import CALIBRATIONS, CAREFUL, divergence, quantized
from whichcar.inference.bundle import read_bundle
from whichcar.training.hardware import prepare
from whichcar.training.run.checkpoint import find_checkpoint

from ..colours import make_experiment

SIZE = (24, 32)


def convolutional(folder: Path, data: Path, outlier: float = 0.0) -> Path:
    """An experiment whose network distinguishes the colours after two convolutions.

    A fourth channel of the first is `outlier` everywhere, which the second and the head ignore.
    """
    prepare("float32")
    import keras

    layers = keras.layers
    image = keras.Input((None, None, 3), name="image")
    first, second = layers.Conv2D(4, 3, padding="same", activation="relu"), layers.Conv2D(3, 1)
    head = layers.Dense(3, "softmax", name="predictions")
    x = second(first(layers.Resizing(*SIZE)(image)))
    model = keras.Model(image, head(layers.GlobalAveragePooling2D()(x)))
    kernel = np.random.default_rng(0).uniform(-0.02, 0.02, (3, 3, 3, 4))
    kernel[1, 1, range(3), range(3)] = 1
    first.set_weights([kernel, np.array([0, 0, 0, outlier])])
    second.set_weights([np.eye(4, 3)[None, None], np.zeros(3)])
    head.set_weights([np.fliplr(np.eye(3)) / 50, np.zeros(3)])
    return make_experiment(folder / "exp", data, model)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, colour_data: Path) -> Path:
    return convolutional(tmp_path_factory.mktemp("quantize"), colour_data)


def test_an_int8_bundle_is_measured_next_to_keras_and_float32(experiment: Path, tmp_path: Path) -> None:
    export(experiment, tmp_path / "cars.whichcar", "int8")
    bundle = read_bundle(tmp_path / "cars.whichcar")
    assert bundle.precision == "int8"
    assert [form["name"] for form in bundle.metrics["forms"]] == ["Keras float32", "ONNX float32", "ONNX int8"]
    assert {form["top_1"]["correct"] for form in bundle.metrics["forms"]} == {4}
    assert bundle.metrics["calibration"] in {calibration.name for calibration in CALIBRATIONS}
    assert "ONNX int8" in bundle.card


@pytest.mark.parametrize("calibration", CALIBRATIONS, ids=lambda calibration: calibration.name)
def test_convolutions_run_on_integers_and_the_head_does_not(
    experiment: Path, tmp_path: Path, calibration: object, capfd: pytest.CaptureFixture[str]
) -> None:
    network = to_onnx(float32_copy(find_checkpoint(experiment)), SIZE, "colours")
    images = np.random.default_rng(0).integers(0, 256, (8, *SIZE, 3), np.uint8)
    made = quantized(network, images, calibration)  # type: ignore[arg-type]
    assert capfd.readouterr().out == ""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.log_severity_level = 3
    session = ort.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(str(tmp_path / "run.onnx")).graph.node)
    assert (operators["QLinearConv"], operators["Gemm"], operators["Softmax"]) == (2, 1, 1)
    expected = ort.InferenceSession(network).run(None, {"images": images})[0]
    assert divergence(expected, session.run(None, {"images": images})[0]) < 1e-3


def test_weights_stay_within_seven_bits_as_processors_without_vnni_need(experiment: Path) -> None:
    network = to_onnx(float32_copy(find_checkpoint(experiment)), SIZE, "colours")
    made = onnx.load_from_string(quantized(network, np.zeros((2, *SIZE, 3), np.uint8), CALIBRATIONS[0]))
    weights = [onnx.numpy_helper.to_array(w) for w in made.graph.initializer if len(w.dims) == 4]
    assert weights and all(weight.dtype == np.int8 for weight in weights)
    assert max(np.abs(weight.astype(int)).max() for weight in weights) == 64


def test_a_network_that_int8_makes_worse_is_refused(tmp_path: Path, colour_data: Path) -> None:
    experiment = convolutional(tmp_path, colour_data, outlier=1e6)
    message = r"int8 loses \d+\.00 points of accuracy on 4 validation images \(100\.00% to \d+\.00%\), more than 0\.3"
    with pytest.raises(CheckpointError, match=message):
        export(experiment, precision="int8")
    assert not list(experiment.glob("*.whichcar"))


def test_int8_needs_the_training_images(colour_experiment: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="int8 is calibrated and verified on its images; name it with --data DIR"):
        export(colour_experiment, tmp_path / "cars.whichcar", "int8")


def test_a_careful_network_leaves_the_first_convolution_in_float32(experiment: Path) -> None:
    network = to_onnx(float32_copy(find_checkpoint(experiment)), SIZE, "colours")
    made = onnx.load_from_string(quantized(network, np.zeros((2, *SIZE, 3), np.uint8), CAREFUL))
    weights = [onnx.numpy_helper.to_array(w).dtype for w in made.graph.initializer if len(w.dims) == 4]
    assert sorted(weights, key=str) == [np.float32, np.int8]


def test_features_have_the_means_of_float32(experiment: Path) -> None:
    network = to_onnx(float32_copy(find_checkpoint(experiment)), SIZE, "colours")
    images = np.random.default_rng(1).integers(0, 256, (16, *SIZE, 3), np.uint8)
    made = quantized(network, images, CALIBRATIONS[0])
    means = []
    for content in (network, made):
        model = onnx.load_from_string(content)
        (head,) = (node for node in model.graph.node if node.op_type == "Gemm")
        model.graph.output.append(onnx.helper.make_tensor_value_info(head.input[0], onnx.TensorProto.FLOAT, None))
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        means.append(session.run([head.input[0]], {"images": images})[0].mean(axis=0))
    np.testing.assert_allclose(means[1], means[0], rtol=1e-5)


def test_the_divergence_of_equal_probabilities_is_zero() -> None:
    equal = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    assert divergence(equal, equal) == 0
    assert divergence(equal, equal[:, ::-1]) > 1
