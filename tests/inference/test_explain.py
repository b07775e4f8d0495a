"""Explanations: the maps add up to the logits, and what they mark is what the answer rests on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from whichcar.cli import main
from whichcar.errors import CheckpointError, DataError, ImageError
from whichcar.files import checksum, write_json
from whichcar.images.read import read_image
from whichcar.inference.classifier import Classifier
from whichcar.inference.explain import Explainer, figure
from whichcar.inference.feature_map import KerasFeatureMap, OnnxFeatureMap

from ..bundles import calibrated_for

NAMES = ("Blue", "Green", "Red")


def network(scale: float = 0.0, more: bool = False) -> Any:  # noqa: ANN401
    """A network for 32 x 32 pixels with a feature map of 4 x 4 places and a dense, or a cosine, head of 3 classes."""
    import keras

    image = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(6, 8, strides=8, activation="relu", kernel_initializer=keras.initializers.HeNormal(1))(x)
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    if more:
        x = keras.layers.Dense(4, "relu")(x)
    if scale:
        x = keras.layers.Rescaling(scale)(keras.layers.UnitNormalization()(x))
    kernel = keras.initializers.HeNormal(2)
    return keras.Model(image, keras.layers.Dense(3, "softmax", use_bias=not scale, kernel_initializer=kernel)(x))


def noise(seed: int = 0, size: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


@pytest.mark.parametrize("scale", [0.0, 16.0])
def test_what_the_places_add_is_the_difference_of_the_logits(scale: float) -> None:
    model = network(scale)
    explanation = Explainer(KerasFeatureMap(model, "model.keras")).explain(noise())
    assert explanation.for_answer.shape == explanation.against_rival.shape == (4, 4)
    logits = np.log(explanation.probabilities)
    assert list(np.argsort(-logits)[:2]) == [explanation.answer, explanation.rival]
    answer, rival = logits[explanation.answer], logits[explanation.rival]
    assert explanation.against_rival.mean() == pytest.approx(answer - rival, rel=1e-3, abs=1e-4)
    assert explanation.for_answer.mean() == pytest.approx(answer - logits.mean(), rel=1e-3, abs=1e-4)


def test_the_answer_is_compared_with_any_class() -> None:
    explainer = Explainer(KerasFeatureMap(network(), "model.keras"))
    logits = np.log(explainer.explain(noise()).probabilities)
    answer, following, last = (int(number) for number in np.argsort(-logits))
    explanation = explainer.explain(noise(), rival=last)
    assert explanation.rival == last
    assert explanation.against_rival.mean() == pytest.approx(logits[answer] - logits[last], rel=1e-3, abs=1e-4)
    assert explainer.explain(noise(), rival=answer).rival == following


@pytest.mark.parametrize("which", ["for_answer", "against_rival"])
def test_blanking_what_the_map_marks_costs_more_than_blanking_elsewhere(experiment: Path, which: str) -> None:
    explainer = Classifier(experiment).explainer()
    image = np.full((24, 32, 3), 120, np.uint8)
    image[4:14, 6:16] = (250, 20, 20)  # what the answer rests on
    explanation = explainer.explain(image)
    assert NAMES[explanation.answer] == "Red"
    marked = np.argsort(-getattr(explanation, which).ravel(), kind="stable")

    def probability(places: np.ndarray) -> float:
        blanked = image.reshape(-1, 3).copy()
        blanked[places] = 120
        return float(explainer.explain(blanked.reshape(image.shape)).probabilities[explanation.answer])

    whole, count = float(explanation.probabilities[explanation.answer]), 80
    elsewhere = np.random.default_rng(0).permutation(marked[count:])[:count]
    assert whole - probability(marked[:count]) > 3 * (whole - probability(elsewhere)) >= 0


@pytest.mark.parametrize("head", ["dense", "cosine, corrected", "transposed"])
def test_a_bundle_of_any_head_is_explained_exactly(head: str) -> None:
    explanation = Explainer(OnnxFeatureMap(onnx_network(head), "a.whichcar")).explain(noise())
    logits = np.log(explanation.probabilities)
    assert explanation.for_answer.shape == (4, 4)
    answer, rival = logits[explanation.answer], logits[explanation.rival]
    assert explanation.against_rival.mean() == pytest.approx(answer - rival, rel=1e-3, abs=1e-4)
    assert explanation.for_answer.mean() == pytest.approx(answer - logits.mean(), rel=1e-3, abs=1e-4)


def test_a_bundle_is_explained_as_the_experiment_is(experiment: Path, bundle: Path) -> None:
    image = noise(size=48)[:24, :32]
    one, other = (Classifier(model).explainer().explain(image) for model in (experiment, bundle))
    assert (one.answer, one.rival) == (other.answer, other.rival)
    assert one.for_answer == pytest.approx(other.for_answer, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", ["bundle", "experiment"])
def test_whatever_predict_takes_is_explained_cropped_and_resized_as_predict_does(
    request: pytest.FixtureRequest, tmp_path: Path, blue_spot_file: Path, kind: str
) -> None:
    model = request.getfixturevalue(kind)
    classifier = Classifier(model, crop=True, detector=blue_spot_file)
    pixels = np.full((320, 320, 3), (128, 128, 0), np.uint8)
    pixels[:80, 80:160], pixels[28:52, 108:132] = (230, 20, 20), (0, 0, 250)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    explainer = classifier.explainer()
    wanted = explainer.explain(classifier.seen(pixels))
    assert NAMES[wanted.answer] == "Red" and wanted.for_answer.shape == (24, 32)
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels, pixels / 255):
        assert np.array_equal(explainer.explain(image).for_answer, wanted.for_answer)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("lost.jpg", ImageError, r"lost\.jpg: .*no such file"),
        ([], DataError, "expected one image, got none"),
        (np.zeros((2, 9, 9, 3), np.uint8), DataError, "expected one image, got several; give one at a time"),
        (None, DataError, "an image is a path, .*; got None"),
    ],
)
def test_what_is_no_single_image_is_not_explained(
    bundle: Path,
    image: Any,  # noqa: ANN401
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        Classifier(bundle).explainer().explain(image)


@pytest.mark.parametrize("head", ["no average", "another layer", "bent"])
def test_a_bundle_of_another_form_is_refused(head: str) -> None:
    with pytest.raises(CheckpointError, match=r"a\.whichcar: cannot be explained: that takes a network that ends in"):
        Explainer(OnnxFeatureMap(onnx_network(head), "a.whichcar")).explain(noise())


def onnx_network(head: str) -> bytes:
    """An ONNX file for 32 x 32 pixels with a feature map of 4 x 4 places, 6 channels and the head that is named."""
    rng, node = np.random.default_rng(3), helper.make_node
    values = {
        "kernel": rng.normal(0, 0.01, (6, 3, 8, 8)),
        "weights": rng.normal(size=(3, 6) if head == "transposed" else (6, 3)),
        "shift": rng.normal(size=(1, 6)),
        "more": rng.normal(size=(6, 6)),
        "scale": np.array(16.0),
    }
    nodes = [
        node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2]),
        node("Conv", ["first", "kernel"], ["convolved"], strides=[8, 8]),
        node("Relu", ["convolved"], ["map"]),
        node("ReduceMax" if head == "no average" else "ReduceMean", ["map"], ["pooled"], axes=[2, 3], keepdims=0),
    ]
    product = {"cosine, corrected": "scaled", "another layer": "relu", "bent": "relu"}.get(head, "pooled")
    if head == "cosine, corrected":
        nodes += [
            node("Add", ["pooled", "shift"], ["moved"]),
            node("ReduceL2", ["moved"], ["norm"], axes=[1]),
            node("Div", ["moved", "norm"], ["unit"]),
            node("Mul", ["unit", "scale"], ["scaled"]),
        ]
    if product == "relu":
        source = "pooled"
        if head == "another layer":
            nodes.append(node("MatMul", ["pooled", "more"], ["mixed"]))
            source = "mixed"
        nodes += [node("Sub", [source, "scale"], ["less"]), node("Relu", ["less"], ["bent"])]
        nodes.append(node("Add", ["bent", "shift"], ["relu"]))
    last = node("Gemm", [product, "weights"], ["logits"], transB=1) if head == "transposed" else node(
        "MatMul", [product, "weights"], ["logits"]
    )  # fmt: skip
    nodes += [last, node("Softmax", ["logits"], ["probabilities"], axis=1)]
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 32, 32, 3])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "network", [image], [answer], stored)
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return content


def test_a_network_that_does_not_end_in_an_average_and_one_layer_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"model\.keras: cannot be explained: that takes a network that ends in"):
        KerasFeatureMap(network(more=True), "model.keras")


def test_a_figure_has_the_image_and_two_maps_and_leaves_the_image_as_it_is(experiment: Path) -> None:
    image = np.full((24, 32, 3), 120, np.uint8)
    image[4:14, 6:16] = (250, 20, 20)
    before = image.copy()
    shown = figure(image, Classifier(experiment).explainer().explain(image), NAMES)
    assert shown.size == (3 * 480, 360)
    assert (image == before).all()
    seen, heated = (np.asarray(shown)[100:350, left : left + 480].astype(int) for left in (0, 480))
    changed = np.abs(seen - heated).sum(axis=2)
    assert changed[20:80, 120:210].mean() > 5 * changed[150:, 300:].mean()


@pytest.mark.parametrize("kind", ["experiment", "bundle"])
def test_the_command_writes_a_figure_for_each_image(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    for name in ("photos/a.png", "photos/old/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise()).save(tmp_path / name)
    command = ["predict", str(tmp_path / "photos"), "--explain", str(tmp_path / "why"), "--model"]
    assert main.run([*command, str(model)]) == 0
    assert sorted(path.relative_to(tmp_path / "why").as_posix() for path in (tmp_path / "why").rglob("*.*")) == [
        "a.png", "explain.jsonl", "old/a.jpg",
    ]  # fmt: skip
    assert read_image(tmp_path / "why" / "a.png").shape == (360, 1440, 3)


@pytest.mark.usefixtures("in_float32")
def test_with_a_confidence_a_figure_has_the_calibrated_probability_of_its_row(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calibration = calibrated_for({"class": 0.5}, checksum(experiment / "model.02-0.1234.keras"))
    write_json(experiment / "calibration.json", calibration)
    Image.new("RGB", (32, 24), (210, 40, 30)).save(tmp_path / "red.png")
    captions: list[str] = []
    monkeypatch.setattr("whichcar.inference.explain.captioned", lambda image, text: captions.append(text) or image)
    command = ["predict", str(experiment), str(tmp_path / "red.png"), "--explain", str(tmp_path / "why"), "--csv"]
    shown = []
    for options in ([], ["--confidence", "0.9"]):
        assert main.run([*command, *options]) == 0
        (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
        shown.append(f"{row['prediction']} {float(row['probability']):.0%}")
    assert captions[1::3] == shown
    assert shown == ["Red Sedan 2011 94%", "Red Sedan 2011 74%"]


def test_a_bundle_that_cannot_be_explained_is_one_error(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bent = Explainer(OnnxFeatureMap(onnx_network("bent"), "a.whichcar"))
    explain = bent.explain
    monkeypatch.setattr(Explainer, "explain", lambda *_: explain(noise()))
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(noise()).save(tmp_path / "photos" / name)
    command = ["predict", str(tmp_path / "photos"), "--explain", str(tmp_path / "why"), "--model", str(bundle)]
    assert main.run(command) == 2
    assert capsys.readouterr().err.count("cannot be explained") == 1
