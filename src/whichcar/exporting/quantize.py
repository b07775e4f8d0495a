"""Static int8 quantization by ONNX Runtime, calibrated on training images (Jacob et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from whichcar import files, progress
from whichcar.exporting.onnx import INPUT, described
from whichcar.exporting.verify import predicted
from whichcar.images.pixels import Pixels
from whichcar.inference.bundle import Bundle
from whichcar.inference.runtimes import OnnxRuntime, Probabilities
from whichcar.onnx_session import open_session
from whichcar.parallel import usable_cores
from whichcar.training.hardware import quiet

if TYPE_CHECKING:
    import onnx

IMAGES_AT_ONCE = 2  # all their activations are in memory
POOLING = ("ReduceMean", "GlobalAveragePool")
PRODUCTS = ("Conv", "Gemm", "MatMul", "Relu", "Clip")  # with the activations fused into them


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the ranges of activations are determined.

    `careful`: everything up to the first convolution, and all but `PRODUCTS`, stays float32, which is slower.
    """

    name: str
    method: str
    options: tuple[tuple[str, Any], ...] = ()
    careful: bool = False


# The best one differs from network to network.
CALIBRATIONS = (
    Calibration("minmax", "MinMax"),
    Calibration("percentile 99.999", "Percentile", (("CalibPercentile", 99.999),)),
    Calibration("entropy", "Entropy"),
)
CAREFUL = Calibration("minmax, careful", "MinMax", careful=True)


def candidates(bundle: Bundle, images: Pixels, path: Path) -> Iterator[tuple[Calibration, Bundle]]:
    """Yield int8 forms of a bundle, each with its calibration: the best of `CALIBRATIONS`, then `CAREFUL`.

    The best one has the lowest divergence from the float32 probabilities on images that were not used to calibrate it.

    Args:
        bundle: a bundle with a float32 network.
        images: (n, height, width, 3) uint8, training images; every fifth is used to compare, the others to calibrate.
        path: the bundle's path, for messages.
    """
    comparing = np.arange(len(images)) % 5 == 4
    calibrating, compared = (images[~comparing], images[comparing]) if comparing.any() else (images, images)
    reference = predicted(OnnxRuntime(bundle, path), compared)

    def made(calibration: Calibration) -> Bundle:
        return replace(bundle, precision="int8", network=quantized(bundle.network, calibrating, calibration))

    def distance(candidate: tuple[Calibration, Bundle]) -> float:
        return divergence(reference, predicted(OnnxRuntime(candidate[1], path), compared))

    yield min(((calibration, made(calibration)) for calibration in CALIBRATIONS), key=distance)
    yield CAREFUL, made(CAREFUL)


def quantized(network: bytes, images: Pixels, calibration: Calibration) -> bytes:
    """Return a network with int8 weights, one scale per channel, and uint8 activations.

    The head after global pooling stays float32: it takes no time, and rounding its probabilities costs the most
    accuracy. The mean that int8 adds to each feature is subtracted before the head (bias correction, Nagel et al.
    2019). Weights have 7 bits: with 8, sums of products saturate on processors without VNNI instructions.

    Args:
        network: the network from `to_onnx`.
        images: (n, height, width, 3) uint8, from which the ranges of the activations are determined.
        calibration: how the ranges are determined.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with (
        files.temporary_folder(3 * len(network)) as folder,
        progress.Bar(f"calibrating int8 ({calibration.name})", len(images)) as bar,
        quiet(),  # ONNX Runtime advises to preprocess the network, which `to_onnx` has done
    ):
        source, target = folder / "float32.onnx", folder / "int8.onnx"
        source.write_bytes(network)
        quantize_static(
            source,
            target,
            _Reader(images, bar),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS) if calibration.careful else [],
            nodes_to_exclude=_spared(onnx.load_from_string(network).graph, calibration.careful),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[calibration.method],
            extra_options={"CalibStridedMinMax": 1, **dict(calibration.options)},
        )
        return described(_corrected(target.read_bytes(), network, images))


class _Reader:
    """Feeds images to ONNX Runtime's calibration, a few at a time."""

    def __init__(self, images: Pixels, bar: progress.Bar) -> None:
        self._batches = [images[start : start + IMAGES_AT_ONCE] for start in range(0, len(images), IMAGES_AT_ONCE)]
        self._rest: Iterator[Pixels] = iter(self._batches)
        self._bar = bar

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._rest = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, Pixels] | None:
        batch = next(self._rest, None)
        if batch is None:
            return None
        self._bar.update(len(batch))
        return {INPUT: batch}


def _pooling(graph: onnx.GraphProto) -> int:
    """Return the index of the last pooling, after which the head begins, or the number of nodes if there is none."""
    return max((place for place, node in enumerate(graph.node) if node.op_type in POOLING), default=len(graph.node))


def _spared(graph: onnx.GraphProto, careful: bool) -> list[str]:
    """Return the names of the nodes that stay float32; nodes are in the order of execution."""
    first = next((place for place, node in enumerate(graph.node) if node.op_type == "Conv"), -1)
    return [node.name for node in (*graph.node[: first + 1 if careful else 0], *graph.node[_pooling(graph) :])]


def _corrected(network: bytes, float32: bytes, images: Pixels) -> bytes:
    """Return an int8 network whose pooled features have the same means over these images as in float32."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(network)
    place = _pooling(model.graph)
    if place == len(model.graph.node):
        return network
    pooling = model.graph.node[place]
    feature = pooling.output[0]
    shift = _means(float32, feature, images) - _means(network, feature, images)
    pooling.output[0] = f"{feature}_int8"
    added = helper.make_node("Add", [pooling.output[0], "shift"], [feature], "correction")
    model.graph.node.insert(place + 1, added)
    model.graph.initializer.append(numpy_helper.from_array(shift, "shift"))
    content: bytes = model.SerializeToString()
    return content


def _means(network: bytes, output: str, images: Pixels) -> npt.NDArray[np.float32]:
    """Return the mean over images of an intermediate result of a network, (1, ...) float32."""
    import onnx

    model = onnx.load_from_string(network)
    model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    session = open_session(model.SerializeToString(), usable_cores(), "calibration")
    parts = np.array_split(images, -(-len(images) // 16))
    values = np.concatenate([session.run([output], {INPUT: part})[0] for part in parts])
    means: npt.NDArray[np.float32] = values.mean(axis=0, keepdims=True)
    return means


def divergence(reference: Probabilities, probabilities: Probabilities) -> float:
    """Return the mean Kullback-Leibler divergence of `probabilities` from `reference`, both (n, classes)."""
    expected, found = np.maximum(reference, 1e-9), np.maximum(probabilities, 1e-9)
    return float((expected * np.log(expected / found)).sum(axis=1).mean())
