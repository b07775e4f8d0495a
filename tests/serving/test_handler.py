"""What a worker process answers where a model cannot do what is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from onnx import helper

from whichcar.errors import DetectorError
from whichcar.files import checksum, write_json
from whichcar.inference.bundle import write_bundle
from whichcar.serving.handler import Handler
from whichcar.serving.settings import Job, WorkerSetup

from ..bundles import calibrated_for, colour_bundle, colour_network
from ..colours import add_refit
from .conftest import image


def handler(model: Path) -> Handler:
    return Handler(WorkerSetup(str(model), None, None, None, 1_000_000))


def test_a_model_that_cannot_be_explained_answers_a_sentence_without_its_path(tmp_path: Path) -> None:
    network = onnx.load_from_string(colour_network())
    product = next(node for node in network.graph.node if node.op_type == "MatMul")
    product.output[0] = "before"
    place = list(network.graph.node).index(product)
    network.graph.node.insert(place + 1, helper.make_node("Relu", ["before"], ["logits"]))
    write_bundle(colour_bundle(network=network.SerializeToString()), tmp_path / "a.whichcar")
    plain, explained = handler(tmp_path / "a.whichcar").rows([Job("a", image()), Job("b", image(), explain=True)])
    assert plain["problem"] is None
    assert explained["problem"].startswith("cannot be explained: that takes a network that ends in an average")


def test_a_detector_that_cannot_be_had_is_an_error_before_the_first_request(tmp_path: Path) -> None:
    record = {"settings": {"detector": "nowhere.onnx"}, "detector": {"name": "nowhere.onnx", "sha256": "0" * 64}}
    write_bundle(colour_bundle(crop=record), tmp_path / "a.whichcar")
    with pytest.raises(DetectorError, match=r"detector nowhere\.onnx: no such file"):
        handler(tmp_path / "a.whichcar")


def test_a_model_whose_file_was_replaced_is_not_explained_by_the_new_one(tmp_path: Path, bundle: Path) -> None:
    shutil.copy(bundle, tmp_path / "a.whichcar")
    loaded = handler(tmp_path / "a.whichcar")
    write_bundle(colour_bundle(name="newer"), tmp_path / "a.whichcar")
    (row,) = loaded.rows([Job("a", image(), explain=True)])
    assert "was replaced since it was loaded" in row["problem"]


def test_a_model_whose_file_is_gone_is_not_explained_and_still_answers(tmp_path: Path, bundle: Path) -> None:
    loaded = handler(Path(shutil.copy(bundle, tmp_path / "a.whichcar")))
    (tmp_path / "a.whichcar").unlink()
    plain, explained = loaded.rows([Job("a", image()), Job("b", image(), explain=True)])
    assert plain["problem"] is None
    assert "the model's file is gone" in explained["problem"]


def test_a_checkpoint_that_a_better_one_has_replaced_is_explained(colour_experiment: Path, tmp_path: Path) -> None:
    experiment = shutil.copytree(colour_experiment, tmp_path / "exp")
    loaded = handler(experiment)
    (experiment / "model.02-0.1234.keras").unlink()
    (row,) = loaded.rows([Job("a", image(), explain=True)])
    assert row["problem"] is None
    assert row["explanation"]["predicted"] == row["classes"][0]["name"]


def test_a_checkpoint_has_the_name_of_its_experiment_wherever_it_is_served_from(
    colour_experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(colour_experiment)
    for path in (".", "model.02-0.1234.keras"):
        described = handler(Path(path)).description()
        assert (described["name"], described["platform"]) == ("exp", "keras_keras")


def test_no_name_of_a_model_has_a_slash_since_addresses_hold_it(
    colour_experiment: Path, tmp_path: Path, colour_model: object
) -> None:
    experiment = shutil.copytree(colour_experiment, tmp_path / "exp_9")
    refit = add_refit(experiment, tmp_path / "data", colour_model)
    assert handler(refit).description()["name"] == "exp_9-refit"
    write_bundle(colour_bundle(name="exp_9/refit"), tmp_path / "a.whichcar")  # as earlier versions exported it
    described = handler(tmp_path / "a.whichcar").description()
    assert (described["name"], described["platform"]) == ("exp_9-refit", "onnxruntime_onnx")
    write_bundle(colour_bundle(name=""), tmp_path / "a.whichcar")
    assert handler(tmp_path / "a.whichcar").description()["name"] == "a"


def test_a_model_that_is_certain_enough_for_no_accuracy_lists_none(tmp_path: Path) -> None:
    write_bundle(colour_bundle(thresholds=calibrated_for({})), tmp_path / "a.whichcar")
    assert handler(tmp_path / "a.whichcar").description()["confidences"] == []


def test_classes_and_levels_of_a_calibrated_checkpoint_agree(colour_experiment: Path, tmp_path: Path) -> None:
    experiment = shutil.copytree(colour_experiment, tmp_path / "exp")
    (checkpoint,) = experiment.glob("*.keras")
    write_json(experiment / "calibration.json", calibrated_for({"class": 0.1}, checksum(checkpoint)))
    (raw,), (calibrated,) = map(handler(experiment).rows, ([Job("a", image())], [Job("a", image(), confidence=0.9)]))
    for row in (raw, calibrated):
        assert row["levels"][0]["probability"] == pytest.approx(row["classes"][0]["probability"])
    assert calibrated["answer"]["probability"] == pytest.approx(calibrated["levels"][0]["probability"])
    assert calibrated["levels"][0]["probability"] < raw["levels"][0]["probability"]
