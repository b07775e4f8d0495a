"""A trained network as an ONNX file: uint8 RGB in, probabilities out, and everything between them in the graph."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whichcar import files
from whichcar.errors import CheckpointError, MissingExtraError
from whichcar.training.hardware import TENSORFLOW, prepare, quiet
from whichcar.training.network.backbones import HEAD
from whichcar.training.network.resnet50 import load_saved_model, training_copy
from whichcar.training.run.signals import interrupts_kept

if TYPE_CHECKING:
    import keras
    import onnx

OPSET = 18  # ONNX 1.13; supported since ONNX Runtime 1.14 and OpenVINO 2023.1
INPUT, OUTPUT = "images", "probabilities"
EXTRA = "export"


def check_installed() -> None:
    """Check, before long work, that the conversion can run.

    Raises:
        MissingExtraError: the extra `export` is not installed.
    """
    for package in ("onnx", "tf2onnx", "tensorflow", "keras", "h5py"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, EXTRA)


def use_tensorflow(checkpoint: Path) -> None:
    """Run Keras on TensorFlow, the backend that models are exported from.

    Args:
        checkpoint: the checkpoint, for messages.

    Raises:
        CheckpointError: Keras already runs on another backend.
    """
    hardware = prepare("float32", TENSORFLOW)
    if hardware.backend != TENSORFLOW:
        raise CheckpointError(
            f"{checkpoint}: is exported with Keras on TensorFlow, and here Keras runs on {hardware.backend}; "
            f"export it in a process of its own, with KERAS_BACKEND={TENSORFLOW}"
        )


def float32_copy(checkpoint: Path) -> keras.Model:
    """Load a checkpoint as the model to export: in float32, for images of its size, without a resizing layer.

    Args:
        checkpoint: a `.keras` or `.h5` file.

    Returns:
        A model from (n, height, width, 3) RGB in 0..255 to (n, classes) float32 probabilities.

    Raises:
        CheckpointError: the file holds no model, or Keras already runs on a backend other than TensorFlow.
    """
    use_tensorflow(checkpoint)
    import keras

    model = training_copy(load_saved_model(checkpoint), "float32", fused=True, front=keras.layers.Identity())
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            # Tensors would become inputs of the graph.
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    return model


def divide_logits(model: keras.Model, temperature: float) -> None:
    """Divide the logits of a model of `float32_copy` by a temperature, which becomes part of its head's weights."""
    head = model.get_layer(HEAD)
    head.set_weights([values / temperature for values in head.get_weights()])


@interrupts_kept()
def to_onnx(model: keras.Model, size: tuple[int, int], name: str) -> bytes:
    """Convert a model to ONNX.

    Args:
        model: of `float32_copy`.
        size: (height, width) of the images.
        name: the model's name in messages.

    Returns:
        An ONNX file of standard operators, from `images`, (n, height, width, 3) uint8, to `probabilities`, (n, classes)
        float32. Batch normalization is folded into the convolutions.

    Raises:
        CheckpointError: a layer, named in the message, has no counterpart in ONNX.
    """
    import keras
    import tensorflow as tf
    import tf2onnx

    # The weights are inputs of the converted function, so that TensorFlow and tf2onnx copy a graph without them.
    weights = {f"weight_{number}": variable for number, variable in enumerate(model.variables)}
    signature = [
        tf.TensorSpec((None, *size, 3), tf.uint8, name=INPUT),
        *(tf.TensorSpec(variable.shape, variable.dtype, name=key) for key, variable in weights.items()),
    ]

    def predict(images: tf.Tensor, *values: tf.Tensor) -> dict[str, tf.Tensor]:
        with keras.StatelessScope(state_mapping=list(zip(weights.values(), values, strict=True))):
            return {OUTPUT: model(images, training=False)}

    with quiet(), _inlined():  # tf2onnx warns of a failed optimization, and ONNX Runtime makes up for it
        function = tf.function(predict, input_signature=signature, autograph=False)
        handlers: dict[str, tuple[Any, list[Any]]] = {"Erfc": (_erfc, [])}
        converted, _ = tf2onnx.convert.from_function(function, signature, OPSET, custom_op_handlers=handlers)
    _check_operators(converted, model, name)
    return described(_optimized(_with_weights(converted, weights)))


def _check_operators(network: onnx.ModelProto, model: keras.Model, name: str) -> None:
    """Raise CheckpointError if an operation of a layer is still TensorFlow's, as ONNX has no such operator."""
    from onnx import defs

    layers = {layer.name for layer in model._flatten_layers(include_self=False)}
    for node in network.graph.node:
        if not defs.has(node.op_type, node.domain):
            # Operations are named after their layers, with numbers appended.
            parts = [form for part in node.name.split("/") for form in (part, re.sub(r"_\d+$", "", part))]
            layer = next((part for part in reversed(parts) if part in layers), node.name)
            raise CheckpointError(
                f"{name}: layer {layer!r} cannot be exported: ONNX has no {node.op_type}; predict with the checkpoint"
            )


def _with_weights(network: onnx.ModelProto, weights: Mapping[str, keras.Variable]) -> bytes:
    """Return an ONNX file in which the inputs with these names are replaced by constants."""
    from onnx import numpy_helper

    used = {name for node in network.graph.node for name in node.input}
    for entry in [entry for entry in network.graph.input if entry.name in weights]:
        network.graph.input.remove(entry)
        if entry.name in used:
            network.graph.initializer.append(numpy_helper.from_array(np.asarray(weights[entry.name]), entry.name))
    content: bytes = network.SerializeToString()
    return content


def _erfc(graph: Any, node: Any, *_: object) -> None:  # noqa: ANN401  (of tf2onnx)
    """Replace TensorFlow's erfc(x), which GELU uses and tf2onnx does not support, by 1 - erf(x)."""
    erf = graph.make_node("Erf", node.input)
    one = graph.make_const(f"{node.name}_one", np.array(1, np.float32))
    graph.replace_all_inputs(node.output[0], graph.make_node("Sub", [one.output[0], erf.output[0]]).output[0])
    graph.remove_node(node.name)


@contextmanager
def _inlined() -> Iterator[None]:
    """Trace called functions as part of their caller, since Keras compiles grouped convolutions separately."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _optimized(network: bytes) -> bytes:
    """Return the network as simplified by ONNX Runtime, with standard operators only."""
    import onnxruntime as ort

    with files.temporary_folder(2 * len(network)) as folder:
        path = folder / "network.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 3  # errors only: it warns about constants that it folds
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


def described(network: bytes) -> bytes:
    """Return the network named whichcar, without operator sets that ONNX Runtime declared but does not use."""
    import onnx

    model = onnx.load_from_string(network)
    used = {node.domain for node in model.graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in used | {"ai.onnx"}]:
        model.opset_import.remove(opset)
    model.graph.name = model.producer_name = "whichcar"
    model.producer_version = ""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    content: bytes = model.SerializeToString()
    return content
