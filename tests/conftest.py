"""What several tests share: a quiet environment, images drawn once, and detectors.

The detectors are real ONNX files that need no weights: one sees red cars and blue buses, one is a grid that sees blue.
"""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from whichcar.detection.coco import NAMES
from whichcar.synthetic.draw import draw

from .buckets import s3, s3_server  # noqa: F401  (fixtures)
from .bundles import bundle  # noqa: F401  (a fixture)
from .colours import colour_experiment, colour_model, experiment, painter, tree  # noqa: F401  (fixtures)

if TYPE_CHECKING:
    from mlflow import MlflowClient

CAR, BUS = 2, 5  # numbers among the classes of COCO
SIDE = 64  # of the red-car detector's input


@pytest.fixture(scope="session", autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep bars off, the caches away from the user's own, and signals as in a terminal, though `nohup` started this."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHICHCAR_QUIET", "1")
        patch.setenv("WHICHCAR_CACHE", str(tmp_path_factory.getbasetemp() / "whichcar_cache"))
        yield


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Keras compute in float32 on processors with bfloat16, too, to compare its answers with those of a bundle."""
    monkeypatch.setattr("whichcar.training.hardware.processor_has_bfloat16", lambda: False)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of eight drawn images with their label file; not to be written to."""
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder, classes=4, per_class=8, size=(48, 64))
    return folder


@pytest.fixture(scope="session")
def drawn_large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in 128 x 96 pixels, where detail shows."""
    folder = tmp_path_factory.mktemp("drawn_large")
    draw(folder, classes=4, per_class=8, size=(96, 128))
    return folder


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one database of MLflow, whose making takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def mlflow_store(
    mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> "MlflowClient":
    """A real store of MLflow, found by its own environment variables, with an experiment named after the test."""
    address = f"sqlite:///{mlflow_folder / 'mlflow.db'}"
    monkeypatch.chdir(mlflow_folder)  # files go to ./mlruns
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    from mlflow import MlflowClient

    return MlflowClient(address)


def save(path: Path, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto],
         constants: dict[str, np.ndarray], classes: Sequence[str] = ()) -> Path:  # fmt: skip
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "detector", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if classes:  # as Ultralytics writes them down
        helper.set_model_props(model, {"names": str(dict(enumerate(classes)))})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def colour_nodes(name: str, strong: int) -> list[onnx.NodeProto]:
    """Compute `name`_box (n, 1, 4) around the pixels that are bright in channel `strong` only, and `name`_score."""
    weak = [channel for channel in range(3) if channel != strong]
    node = helper.make_node
    nodes = [
        node("Greater", [f"c{strong}", "bright"], [f"{name}_is"]),
        node("Less", [f"c{weak[0]}", "dark"], [f"{name}_not"]),
        node("Less", [f"c{weak[1]}", "dark"], [f"{name}_nor"]),
        node("And", [f"{name}_is", f"{name}_not"], [f"{name}_both"]),
        node("And", [f"{name}_both", f"{name}_nor"], [f"{name}_all"]),
        node("Cast", [f"{name}_all"], [f"{name}_mask"], to=TensorProto.FLOAT),  # (n, 1, h, w)
        node("ReduceMax", [f"{name}_mask"], [f"{name}_columns"], axes=[1, 2], keepdims=0),
        node("ReduceMax", [f"{name}_mask"], [f"{name}_rows"], axes=[1, 3], keepdims=0),
        node("ReduceMax", [f"{name}_columns"], [f"{name}_any"], axes=[1], keepdims=1),
        node("Mul", [f"{name}_any", "sure"], [f"{name}_score"]),
    ]
    for edge, source, last in (("l", "columns", 0), ("t", "rows", 0), ("r", "columns", 1), ("b", "rows", 1)):
        nodes += [
            node("ArgMax", [f"{name}_{source}"], [f"{name}_{edge}_n"], axis=1, keepdims=1, select_last_index=last),
            node("Cast", [f"{name}_{edge}_n"], [f"{name}_{edge}_f"], to=TensorProto.FLOAT),
            node("Add", [f"{name}_{edge}_f", "one" if last else "zero"], [f"{name}_{edge}"]),
        ]
    sides = [f"{name}_{edge}" for edge in "ltrb"]
    return [
        *nodes,
        node("Concat", sides, [f"{name}_flat"], axis=1),
        node("Unsqueeze", [f"{name}_flat", "axis_one"], [f"{name}_box"]),
    ]


@pytest.fixture(scope="session")
def red_car_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An end-to-end detector: what is red is a car (0.9 sure), what is blue a bus; any number of images at once."""
    node = helper.make_node
    nodes = [
        node("Split", ["images"], ["c0", "c1", "c2"], axis=1),
        *colour_nodes("red", 0),
        *colour_nodes("blue", 2),
        node("Concat", ["red_box", "blue_box"], ["boxes"], axis=1),
        node("Concat", ["red_score", "blue_score"], ["scores"], axis=1),
        node("Shape", ["scores"], ["shape"]),
        node("Expand", ["numbers", "shape"], ["labels"]),
    ]
    float_, integer = TensorProto.FLOAT, TensorProto.INT64
    return save(
        tmp_path_factory.mktemp("detector") / "red cars.onnx",
        nodes,
        [helper.make_tensor_value_info("images", float_, ["n", 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("boxes", float_, ["n", 2, 4]),
            helper.make_tensor_value_info("scores", float_, ["n", 2]),
            helper.make_tensor_value_info("labels", integer, ["n", 2]),
        ],
        {
            "bright": np.array(0.6, np.float32),
            "dark": np.array(0.4, np.float32),
            "sure": np.array(0.9, np.float32),
            "one": np.array(1, np.float32),
            "zero": np.array(0, np.float32),
            "axis_one": np.array([1], np.int64),
            "numbers": np.array([[CAR, BUS]], np.int64),
        },
        NAMES,
    )


@pytest.fixture(scope="session")
def blue_spot_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid as YOLOX gives it, for 32 x 32: a cell of stride 8 is a car as surely as its middle is blue."""
    node = helper.make_node
    nodes = [
        node("Slice", ["images", "from", "to", "axes", "steps"], ["middles"]),  # (1, 1, 4, 4), channel 0
        node("Div", ["middles", "full"], ["share"]),
        node("Reshape", ["share", "column"], ["fine"]),  # (1, 16, 1)
        node("Concat", ["fine", "coarse"], ["objectness"], axis=1),  # (1, 21, 1)
        node("Concat", ["places", "objectness", "classes"], ["output"], axis=2),
    ]
    classes = np.zeros((1, 21, 80), np.float32)
    classes[:, :, CAR] = 1
    places = np.zeros((1, 21, 4), np.float32)
    places[:, :, :2] = 0.5
    return save(
        tmp_path_factory.mktemp("detector") / "blue_spots.onnx",
        nodes,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 21, 85])],
        {
            "from": np.array([0, 4, 4], np.int64),
            "to": np.array([1, 32, 32], np.int64),
            "axes": np.array([1, 2, 3], np.int64),
            "steps": np.array([1, 8, 8], np.int64),
            "full": np.array(255, np.float32),
            "column": np.array([1, 16, 1], np.int64),
            "coarse": np.zeros((1, 5, 1), np.float32),
            "places": places,
            "classes": classes,
        },
    )
