"""Small ONNX files with the inputs and outputs that projects give their exported detectors: they see what is red.

Each graph finds the red pixels in what it is fed, as its project feeds it; a wrong order of channels, range of values
or way of fitting the image into the input shows as another box, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 96
CELLS = 144 + 36 + 9  # of strides 8, 16 and 32
CAR = 2
SURE = 0.9
_CENTRED = np.array([[0.5, 0, -1, 0], [0, 0.5, 0, -1], [0.5, 0, 1, 0], [0, 0.5, 0, 1]], np.float32)
_MEAN, _DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


class Graph:
    """A graph under construction; `box` (1, 1, 4) are corners in pixels of the input, `score` (1, 1)."""

    def __init__(
        self, dtype: int = TensorProto.FLOAT, last: bool = False, bgr: bool = False, full: bool = False,
        standardised: bool = False, batch: int | str = 1, shape: Sequence[int | str] | None = None,
    ) -> None:  # fmt: skip
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        fixed = [batch, SIDE, SIDE, 3] if last else [batch, 3, SIDE, SIDE]
        self.inputs = [helper.make_tensor_value_info("images", dtype, shape or fixed)]
        self.outputs: list[onnx.ValueInfoProto] = []
        self.metadata: dict[str, str] = {}
        seen = self.add("Cast", "images", to=TensorProto.FLOAT)
        if last:
            seen = self.add("Transpose", seen, perm=[0, 3, 1, 2])
        if standardised:
            mean, deviation = (values[:: -1 if bgr else 1].reshape(1, 3, 1, 1) for values in (_MEAN, _DEVIATION))
            seen = self.add("Add", self.add("Mul", seen, deviation), mean)
        if full:
            seen = self.add("Div", seen, np.float32(255))
        first = self.add("Slice", seen, np.int64([0]), np.int64([1]), np.int64([0]))
        channels = [self.add("Gather", first, np.int64([number]), axis=1) for number in (0, 1, 2)]
        self._find(*(channels[::-1] if bgr else channels))

    def _find(self, red: str, green: str, blue: str) -> None:
        strong = self.add("Greater", red, np.float32(0.6))
        for weak in (green, blue):
            strong = self.add("And", strong, self.add("Less", weak, np.float32(0.4)))
        mask = self.add("Cast", strong, to=TensorProto.FLOAT)
        self.all_red = self.add("Greater", self.add("ReduceMean", mask, axes=[1, 2, 3], keepdims=0), np.float32(0.9))
        columns = self.add("ReduceMax", mask, axes=[1, 2], keepdims=0)  # (1, width)
        rows = self.add("ReduceMax", mask, axes=[1, 3], keepdims=0)
        edges = []
        for source, last in ((columns, 0), (rows, 0), (columns, 1), (rows, 1)):
            edge = self.add("ArgMax", source, axis=1, keepdims=1, select_last_index=last)
            edges.append(self.add("Add", self.add("Cast", edge, to=TensorProto.FLOAT), np.float32(last)))
        self.box = self.add("Unsqueeze", self.add("Concat", *edges, axis=1), np.int64([1]))
        self.score = self.add("Mul", self.add("ReduceMax", columns, axes=[1], keepdims=1), np.float32(SURE))

    def add(self, kind: str, *inputs: str | np.ndarray, **attributes: object) -> str:
        names = []
        for value in inputs:
            if isinstance(value, str):
                names.append(value)
            else:
                self.constants.append(numpy_helper.from_array(np.asarray(value), f"c{len(self.constants)}"))
                names.append(self.constants[-1].name)
        self.nodes.append(helper.make_node(kind, names, [f"n{len(self.nodes)}"], **attributes))
        return str(self.nodes[-1].output[0])

    def joined(self, first: str, rest: np.ndarray, axis: int = 1) -> str:
        return self.add("Concat", first, rest.astype(np.float32), axis=axis)

    def centred(self, unit: float = 1) -> str:
        """(1, 1, 4): centre and sides."""
        return self.add("MatMul", self.box, _CENTRED / np.float32(unit))

    def scores(self, classes: int = 80, place: int = CAR) -> str:
        """(1, 1, classes)."""
        chosen = np.zeros((1, 1, classes), np.float32)
        chosen[..., place] = 1
        return self.add("Mul", self.add("Unsqueeze", self.score, np.int64([2])), chosen)

    def only_if_seen(self, rows: str) -> str:
        """(1, columns) becomes (0, columns) where nothing is seen."""
        kept = self.add("Reshape", self.add("Greater", self.score, np.float32(0.5)), np.int64([1]))
        return self.add("Compress", rows, kept, axis=0)

    def give(self, name: str, value: str, dtype: int = TensorProto.FLOAT, rank: int = 3) -> None:
        self.nodes.append(helper.make_node("Cast", [value], [name], to=dtype))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, [f"{name}_{axis}" for axis in range(rank)]))

    def save(self, path: Path) -> Path:
        graph = helper.make_graph(self.nodes, "detector", self.inputs, self.outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, self.metadata)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return path


def filler(count: int, columns: int, unit: float = 1) -> np.ndarray:
    """(1, count, columns): boxes all over the input that are scored 0."""
    rows = np.zeros((1, count, columns), np.float32)
    rows[0, :, :2] = np.linspace(0.1, 0.6, count)[:, None] * SIDE / unit
    rows[0, :, 2:4] = 0.9 * SIDE / unit
    return rows


def yolox_decoded() -> Graph:
    graph = Graph(bgr=True, full=True)
    row = graph.add("Concat", graph.centred(), np.ones((1, 1, 1), np.float32), graph.scores(), axis=2)
    graph.give("output", graph.joined(row, filler(CELLS - 1, 85)))
    return graph


def yolov5() -> Graph:
    graph = Graph()
    row = graph.add("Concat", graph.centred(), np.ones((1, 1, 1), np.float32), graph.scores(), axis=2)
    graph.give("output0", graph.joined(row, filler(3 * CELLS - 1, 85)))
    return graph


def yolov6() -> Graph:
    graph = Graph()
    row = graph.add("Concat", graph.centred(), np.ones((1, 1, 1), np.float32), graph.scores(), axis=2)
    rest = filler(CELLS - 1, 85)
    rest[..., 4] = 1
    graph.give("outputs", graph.joined(row, rest))
    return graph


def yolov8(across: bool = False, classes: Sequence[str] = (), unit: float = 1, **kinds: object) -> Graph:
    graph = Graph(**kinds)  # type: ignore[arg-type]
    count, place = len(classes) or 80, list(classes).index("car") if classes else CAR
    row = graph.add("Concat", graph.centred(unit), graph.scores(count, place), axis=2)
    table = graph.joined(row, filler(CELLS - 1, 4 + count, unit))
    graph.give("output0", table if across else graph.add("Transpose", table, perm=[0, 2, 1]))
    if classes:
        graph.metadata = {"names": str(dict(enumerate(classes))), "task": "detect"}
    return graph


def yolov10() -> Graph:
    graph = Graph()
    score = graph.add("Unsqueeze", graph.score, np.int64([2]))
    row = graph.add("Concat", graph.box, score, np.full((1, 1, 1), CAR, np.float32), axis=2)
    graph.give("output0", graph.joined(row, np.zeros((1, 299, 6))))
    return graph


def seven(name: str, score_first: bool = False) -> Graph:
    graph = Graph()
    label = np.full((1, 1, 1), CAR, np.float32)
    score = graph.add("Unsqueeze", graph.score, np.int64([2]))
    last = (score, label) if score_first else (label, score)
    row = graph.add("Concat", np.zeros((1, 1, 1), np.float32), graph.box, *last, axis=2)
    graph.give(name, graph.only_if_seen(graph.add("Squeeze", row, np.int64([0]))), rank=2)
    return graph


def counted(count: str, boxes: str, scores: str, labels: str, **kinds: object) -> Graph:
    """Padded with -1, as YOLO-NAS does."""
    graph = Graph(**kinds)  # type: ignore[arg-type]
    seen = graph.add("Cast", graph.add("Greater", graph.score, np.float32(0.5)), to=TensorProto.INT64)
    graph.give(count, seen, TensorProto.INT64, 2)
    graph.give(boxes, graph.joined(graph.box, np.full((1, 99, 4), -1)))
    graph.give(scores, graph.joined(graph.score, np.full((1, 99), -1)), rank=2)
    graph.give(labels, graph.add("Identity", np.int64([[CAR] + [-1] * 99])), TensorProto.INT64, 2)
    return graph


def corners_and_scores(full: bool = False) -> Graph:
    """The raw outputs of YOLO-NAS, and those of DAMO-YOLO, which takes values of 0..255."""
    graph = Graph(full=full)
    rest = filler(CELLS - 1, 4)
    graph.give("scores", graph.joined(graph.scores(), np.full((1, CELLS - 1, 80), 0.001)))
    graph.give("boxes", graph.joined(graph.box, rest))
    return graph


def queries(classes: int = 80, masks: bool = False, dtype: int = TensorProto.FLOAT, **kinds: object) -> Graph:
    graph = Graph(dtype, **kinds)  # type: ignore[arg-type]
    place = CAR if classes == 80 else CAR + 1
    logits = graph.add("Sub", graph.add("Mul", graph.scores(classes, place), np.float32(10)), np.float32(6))
    rest = filler(299, 4, SIDE)
    graph.give("logits", graph.joined(logits, np.full((1, 299, classes), -6)), dtype)
    graph.give("pred_boxes", graph.joined(graph.centred(SIDE), rest), dtype)
    if masks:
        graph.give("masks", graph.add("Identity", np.zeros((1, 300, 8, 8), np.float32)), rank=4)
    return graph


def end_to_end(
    labels: Sequence[int] = (CAR, 0), sizes: str = "", batched: bool = True, unit: float = 1,
    label_type: int = TensorProto.INT64, names: Sequence[str] = ("boxes", "scores", "labels"), **kinds: object,
) -> Graph:  # fmt: skip
    """Boxes, scores and labels of 80 or 91 classes: the car, and an object of another class scored 0.2."""
    graph = Graph(**kinds)  # type: ignore[arg-type]
    if sizes:
        size = helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2])
        graph.inputs.insert(0 if sizes == "first" else 1, size)
    count = len(labels)
    numbers = np.int64([labels])
    boxes = graph.joined(graph.add("Div", graph.box, np.float32(unit)), filler(count - 1, 4, unit))
    scores = graph.joined(graph.score, np.full((1, count - 1), 0.2))
    values = [(boxes, TensorProto.FLOAT), (scores, TensorProto.FLOAT), (graph.add("Identity", numbers), label_type)]
    for name, (value, dtype), rank in zip(names, values, (3, 2, 2), strict=True):
        one = value if batched else graph.add("Squeeze", value, np.int64([0]))
        graph.give(name, one, dtype, rank - (not batched))
    return graph


def torchvision(label: int = 3) -> Graph:
    """Nothing at all where nothing is seen."""
    graph = Graph()
    graph.give("boxes", graph.only_if_seen(graph.add("Squeeze", graph.box, np.int64([0]))), rank=2)
    graph.give("labels", graph.only_if_seen(graph.add("Identity", np.int64([label]))), TensorProto.INT64, 1)
    graph.give("scores", graph.only_if_seen(graph.add("Squeeze", graph.score, np.int64([0]))), rank=1)
    return graph


def mmdetection(**kinds: object) -> Graph:
    graph = Graph(**kinds)  # type: ignore[arg-type]
    row = graph.add("Concat", graph.box, graph.add("Unsqueeze", graph.score, np.int64([2])), axis=2)
    graph.give("dets", graph.joined(row, np.zeros((1, 99, 5))))
    graph.give("labels", graph.add("Identity", np.int64([[CAR] + [0] * 99])), TensorProto.INT64, 2)
    return graph


def tensorflow() -> Graph:
    graph = Graph(TensorProto.UINT8, last=True, full=True, shape=["n", "h", "w", 3])
    swapped = graph.add("Gather", graph.add("Div", graph.box, np.float32(640)), np.int64([1, 0, 3, 2]), axis=2)
    graph.give("num_detections", graph.add("Identity", np.float32([100])), rank=1)
    graph.give("detection_boxes", graph.joined(swapped, np.zeros((1, 99, 4))))
    graph.give("detection_scores", graph.joined(graph.score, np.zeros((1, 99))), rank=2)
    graph.give("detection_classes", graph.add("Identity", np.float32([[3] + [1] * 99])), rank=2)
    graph.give("raw_detection_boxes", graph.joined(swapped, np.zeros((1, 9, 4))))
    return graph


# The family that each is recognised as.
RECOGNISED: dict[str, tuple[str, Callable[[], Graph]]] = {
    "YOLOX, decoded": ("yolox", yolox_decoded),
    "YOLOv5": ("yolo", yolov5),
    "YOLOv6": ("yolo", yolov6),
    "YOLOv8": ("yolo", yolov8),
    "YOLOv8, transposed": ("yolo", lambda: yolov8(across=True)),
    "YOLOv8 of two classes": ("yolo", lambda: yolov8(classes=("truck", "car"))),
    "YOLOv8, float16": ("yolo", lambda: yolov8(dtype=TensorProto.FLOAT16)),
    "YOLOv8, channels last": ("yolo", lambda: yolov8(last=True)),
    "RT-DETR of Ultralytics": ("rt-detr", lambda: yolov8(across=True, unit=SIDE)),
    "YOLOv10": ("yolo", yolov10),
    "YOLOv7, end to end": ("yolo", lambda: seven("output")),
    "YOLO-NAS, flat": ("yolo-nas", lambda: seven("graph2_flat_predictions", score_first=True)),
    "YOLO-NAS, batch": (
        "yolo-nas",
        lambda: counted(
            "num_predictions", "pred_boxes", "pred_scores", "pred_classes", dtype=TensorProto.UINT8, full=True
        ),
    ),
    "D-FINE": ("rt-detr", queries),
    "D-FINE, all axes open": ("rt-detr", lambda: queries(shape=["batch", "num_channels", SIDE, SIDE])),
    "RF-DETR": ("rf-detr", lambda: queries(91, standardised=True)),
    "RF-DETR with masks, float16": ("rf-detr", lambda: queries(91, True, TensorProto.FLOAT16, standardised=True)),
    "RT-DETR, end to end": ("rt-detr", end_to_end),
    "D-FINE's own export": ("rt-detr", lambda: end_to_end((CAR, 3), sizes="last")),
    "D-FINE's own export, sizes first": ("rt-detr", lambda: end_to_end((CAR, 3), sizes="first")),
    "float labels": ("rt-detr", lambda: end_to_end(label_type=TensorProto.FLOAT)),
    "boxes as shares": ("rt-detr", lambda: end_to_end(unit=SIDE)),
    "labels of 91": ("torchvision", lambda: end_to_end((3, 90))),
    "TensorFlow": ("tensorflow", tensorflow),
}
# Those of several families, and the family to ask for.
ASKED: dict[str, tuple[str, Callable[[], Graph]]] = {
    "YOLO-NAS, raw": ("yolo-nas", corners_and_scores),
    "DAMO-YOLO": ("damo-yolo", lambda: corners_and_scores(full=True)),
    "YOLOv6, with their number": ("yolo", lambda: counted("num_dets", "det_boxes", "det_scores", "det_classes")),
    "DAMO-YOLO, with their number": (
        "damo-yolo", lambda: counted("num_dets", "det_boxes", "det_scores", "det_classes", full=True)
    ),
    "torchvision": ("torchvision", torchvision),
    "labels that may be of 80 or 91": ("rt-detr", lambda: end_to_end((CAR, 3))),
    "MMDetection": ("mmdet", lambda: mmdetection(standardised=True)),
    "RTMDet": ("rtmdet", lambda: mmdetection(standardised=True, bgr=True)),
    "YOLOX of MMDetection": ("yolox", lambda: mmdetection(full=True, bgr=True)),
}  # fmt: skip
