"""A bundle whose network distinguishes red, green and blue images as the colour model does, made without Keras."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from whichcar.inference.answer import Calibration, Thresholds
from whichcar.inference.bundle import Bundle, write_bundle

from .colours import CLASSES, FOLDERS

SIZE = (24, 32)


def colour_network(batch: int | str = "n", matrix: np.ndarray | None = None) -> bytes:
    """An ONNX file: the mean colour times `matrix` (3, classes), by default as the colour model has it; softmax."""
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2], keepdims=0),
        node("MatMul", ["mean", "matrix"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    matrix = np.fliplr(np.eye(3)) / 50 if matrix is None else matrix
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, *SIZE, 3])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, matrix.shape[1]])
    stored = [numpy_helper.from_array(matrix.astype(np.float32), "matrix")]
    graph = helper.make_graph(nodes, "colours", [image], [answer], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def colour_bundle(**changes: Any) -> Bundle:  # noqa: ANN401  (fields of a Bundle)
    content: dict[str, Any] = {
        "name": "colours",
        "network": colour_network(),
        "class_names": CLASSES,
        "class_folders": FOLDERS,
        "image_size": SIZE,
        "precision": "float32",
        "backbone": "none",
        "licence": "drawn images, free for any use",
        "created": "2025-01-01T00:00:00+00:00",
        "whichcar": "0",
        "experiment": {"seed": 1, "data": {"directory": "data/cars", "validation_split": 0.25}},
        "card": "# colours\n",
        "page": "<h1>colours</h1>\n",
    }
    return Bundle(**content | changes)


def calibrated_for(least: dict[str, float], checksum: str = "", temperature: float = 2.0) -> dict[str, object]:
    """Return what calibration.json holds, with thresholds for an accuracy of 0.9 and none for 0.99."""
    thresholds = (Thresholds(0.9, least), Thresholds(0.99, {}, images_needed=299))
    return asdict(Calibration(temperature, 40, checksum, (0.5, 0.4), {"class": (0.1, 0.05)}, thresholds))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle on disk; not to be written to."""
    path = tmp_path_factory.mktemp("bundles") / "colours.whichcar"
    write_bundle(colour_bundle(), path)
    return path
