"""The last feature map of a network whose logits are its average over the locations times a weight matrix.

A factor may come between the average and the weights: the scale of a cosine head, divided by the average's norm.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from whichcar.errors import CheckpointError
from whichcar.images.pixels import Pixels
from whichcar.inference.onnx_metadata import field, fields_of
from whichcar.onnx_session import open_session

Floats = npt.NDArray[np.float32]

_HEAD = ("Dropout", "UnitNormalization", "Rescaling", "Dense")
_POOLING, _PRODUCTS, _AFTER = ("ReduceMean", "GlobalAveragePool"), ("MatMul", "Gemm"), ("Add", "Softmax")
_GRAPH, _NODE, _OUTPUT = 7, 1, 12  # fields of ModelProto and of GraphProto in onnx.proto
_INPUTS, _OUTPUTS, _OPERATOR = 1, 2, 4  # of NodeProto
_EQUAL = 1e-3  # relative to the largest value


class FeatureMap(Protocol):
    """The last feature map; `weights` is (channels, classes) float32, without the bias."""

    weights: Floats

    def __call__(self, image: Pixels) -> tuple[Floats, Floats]:
        """Return the map times the factor, (rows, columns, channels), and the probabilities, (classes,).

        Args:
            image: (height, width, 3) uint8 RGB at the network's size.
        """


class KerasFeatureMap:
    """The last feature map of a Keras model from images (n, height, width, 3) to probabilities.

    Raises:
        CheckpointError: the feature map is followed by more than global average pooling and one layer.
    """

    def __init__(self, model: Any, name: str | Path) -> None:  # noqa: ANN401  (any Keras model)
        """Find the feature map; `name` is the checkpoint's name, for messages."""
        import keras

        pools = [layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)]
        after = model.layers[model.layers.index(pools[-1]) + 1 :] if pools else []
        kinds = [type(layer).__name__ for layer in after]
        if not after or kinds[-1] != "Dense" or kinds.count("Dense") != 1 or not set(kinds) <= set(_HEAD):
            raise _unsuited(name)
        self.weights = np.asarray(after[-1].kernel, np.float32)
        self._scales = [float(layer.scale) for layer in after if isinstance(layer, keras.layers.Rescaling)]
        self._is_cosine = "UnitNormalization" in kinds
        self._model = keras.Model(model.inputs, [pools[-1].input, model.outputs[0]])
        self._one_at_a_time = Lock()

    def __call__(self, image: Pixels) -> tuple[Floats, Floats]:
        """Run the model."""
        with self._one_at_a_time:
            outputs = self._model.predict_on_batch(image[None])
        features, probabilities = (np.asarray(output[0], np.float32) for output in outputs)
        factor = np.float32(np.prod(self._scales))
        if self._is_cosine:
            factor /= np.maximum(np.float32(1e-12), np.linalg.norm(features.mean(axis=(0, 1))))
        return factor * features, probabilities


class OnnxFeatureMap:
    """The last feature map of an ONNX file such as `Bundle.network`; int8 works too, since its head stays float32.

    Raises:
        CheckpointError: its nodes do not end in global average pooling, a product with weights and a softmax.
    """

    def __init__(self, network: bytes, name: str | Path) -> None:
        """Find the feature map; `name` is the bundle's name, for messages."""
        self._name = name
        nodes = _nodes(network)
        operators = [node.operator for node in nodes]
        pool, head = (_last(operators, kinds) for kinds in (_POOLING, _PRODUCTS))
        if not 0 <= pool < head or not set(operators[head + 1 :]) <= set(_AFTER) or operators[-1] != "Softmax":
            raise _unsuited(name)
        pooled = nodes[pool].outputs[0]
        if operators[pool + 1] == "Add" and nodes[pool + 1].inputs[0] == pooled:  # bias correction of int8
            pooled = nodes[pool + 1].outputs[0]
        self._names = (nodes[pool].inputs[0], pooled, nodes[head].inputs[0], nodes[-1].outputs[0])
        weights = nodes[head].inputs[1]
        more = dict.fromkeys((*self._names[:-1], weights))
        # A message field that occurs twice is parsed as one with both contents, so these become further outputs.
        added = field(_GRAPH, b"".join(field(_OUTPUT, field(1, output.encode())) for output in more))
        try:
            self._session = open_session(network + added, 1, name)
        except ValueError as error:
            raise CheckpointError(f"{name}: cannot be explained: {error}") from error
        self._input = self._session.get_inputs()[0]
        values = self._run(np.zeros(self._input.shape[1:], np.uint8), (*self._names, weights))
        shape = tuple(values[output].shape[-1] for output in self._names[2:])
        self.weights: Floats = values[weights] if values[weights].shape == shape else values[weights].T  # Gemm's transB
        if self.weights.shape != shape:
            raise _unsuited(name)

    def __call__(self, image: Pixels) -> tuple[Floats, Floats]:
        """Run the network."""
        values = self._run(image, self._names)
        features, pooled, product, probabilities = (values[name][0] for name in self._names)
        pooled, channels = pooled.ravel(), len(self.weights)
        if pooled.size != channels or features.ndim != 3:
            raise _unsuited(self._name)
        factor = product @ pooled / max(float(pooled @ pooled), 1e-12)
        if np.abs(product - factor * pooled).max() > _EQUAL * np.abs(product).max():
            raise _unsuited(self._name)
        places: Floats = features if features.shape[-1] == channels else np.moveaxis(features, 0, -1)
        return factor * (places + (pooled - places.mean(axis=(0, 1)))), probabilities

    def _run(self, image: Pixels, names: tuple[str, ...]) -> dict[str, Floats]:
        distinct = list(dict.fromkeys(names))
        count = self._input.shape[0] if isinstance(self._input.shape[0], int) else 1
        answers = self._session.run(distinct, {self._input.name: np.repeat(image[None], count, axis=0)})
        return dict(zip(distinct, answers, strict=True))


class _Node(NamedTuple):
    operator: str
    inputs: list[str]
    outputs: list[str]


def _nodes(network: bytes) -> list[_Node]:
    """Return the nodes of an ONNX file in the order of execution."""
    graphs = [content for number, content, _ in fields_of(network) if number == _GRAPH]
    messages = [content for graph in graphs for number, content, _ in fields_of(graph) if number == _NODE]
    return [_node(message) for message in messages]


def _node(message: memoryview) -> _Node:
    texts = [(number, content) for number, content, _ in fields_of(message) if number in (_INPUTS, _OUTPUTS, _OPERATOR)]
    inputs, outputs, operators = (
        [str(content, "utf-8") for number, content in texts if number == wanted]
        for wanted in (_INPUTS, _OUTPUTS, _OPERATOR)
    )
    return _Node("".join(operators), inputs, outputs)


def _last(operators: list[str], kinds: tuple[str, ...]) -> int:
    return max((number for number, operator in enumerate(operators) if operator in kinds), default=-1)


def _unsuited(name: str | Path) -> CheckpointError:
    return CheckpointError(
        f"{name}: cannot be explained: that takes a network that ends in an average over places and one layer, "
        "such as resnet50"
    )
