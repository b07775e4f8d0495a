"""What a worker process answers where a model cannot do what is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
from onnx import helper

from whichcar.inference.bundle import write_bundle
from whichcar.serving.handler import Handler
from whichcar.serving.settings import Job, WorkerSetup

from ..bundles import colour_bundle, colour_network
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


def test_a_model_whose_file_was_replaced_is_not_explained_by_the_new_one(tmp_path: Path, bundle: Path) -> None:
    shutil.copy(bundle, tmp_path / "a.whichcar")
    loaded = handler(tmp_path / "a.whichcar")
    write_bundle(colour_bundle(name="newer"), tmp_path / "a.whichcar")
    (row,) = loaded.rows([Job("a", image(), explain=True)])
    assert "was replaced since it was loaded" in row["problem"]
