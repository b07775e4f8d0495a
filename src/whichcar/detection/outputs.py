"""How to decode a detector's outputs, recognised from their names, shapes and values on probe images.

Different projects' files have outputs of the same shapes with different meanings: probabilities or logits, pixels or
fractions of the image, 80 classes or COCO's 91 numbers. If the values do not decide, the user has to.
"""

from __future__ import annotations

import numpy as np

from whichcar.detection.coco import NAMES, UNUSED
from whichcar.detection.decoders import (
    Decoded,
    cells_of,
    decode_anchors,
    decode_end_to_end,
    decode_grid,
    decode_pairs,
    decode_queries,
)
from whichcar.detection.families import FAMILIES
from whichcar.detection.probe import (
    FRACTION,
    LABELS,
    SCORES,
    Decode,
    Outputs,
    Probe,
    Reading,
    Size,
    check_scores,
    chosen,
    classes_of,
    corners_in,
    only_table,
    real_rows,
    sides_of,
    table_of,
    unit_of,
    vectors_of,
)

_FARTHEST = 10.0  # cells; usual limit of the distance between a box's centre and its cell
_MOST_ROWS = 1000  # for detectors that include non-maximum suppression
_TRIPLE = "boxes, scores and labels"
# Families whose detectors may be exported with these outputs; TensorFlow's boxes have the top first.
_CORNERS = [name for name in FAMILIES if name != "tensorflow"]


def read_outputs(probe: Probe) -> Reading | None:
    """Return how to decode a detector's outputs; None if their format is unsupported.

    Raises:
        ValueError: their shapes fit a supported format, but their values do not.
    """
    for kind in (_tensorflow, _end_to_end, _scored_boxes, _rows_of_six, _rows_of_seven, _pairs, _grid, _anchors):
        if reading := kind(probe):
            return reading
    return None


def _tensorflow(probe: Probe) -> Reading | None:
    """Match TensorFlow's names: boxes are top, left, bottom, right, as fractions; classes are COCO's numbers."""
    boxes, scores, labels = "detection_boxes", "detection_scores", "detection_classes"
    if not {boxes, scores, labels} <= probe.first.keys():
        return None

    def decode(outputs: Outputs, size: Size, score: float) -> Decoded:
        corners = outputs[boxes][:, [1, 0, 3, 2]] * sides_of(size)
        return decode_end_to_end(corners, outputs[scores], outputs[labels], score)

    return Reading("detection_boxes, detection_scores and detection_classes", {"tensorflow": decode}, probe.names)


def _end_to_end(probe: Probe) -> Reading | None:
    """Match boxes (n, 4), scores (n,) and labels (n,), often with their count."""
    boxes = table_of(probe.first, 4)
    if boxes is None or (found := vectors_of(probe, boxes)) is None:
        return None
    scores, labels, count = found
    if scores is None:
        return None
    check_scores(probe.all(scores, count))
    unit = corners_in(probe.all(boxes, count), probe.size)

    def decode(outputs: Outputs, size: Size, score: float) -> Decoded:
        rows = real_rows(outputs, count)
        corners = outputs[boxes][rows] * (sides_of(size) if unit == "fractions" else 1)
        found = decode_end_to_end(corners, outputs[scores][rows], outputs[labels][rows], score)
        if unit != "fractions" and len(found.boxes) and np.abs(found.boxes).max() <= FRACTION:
            raise ValueError("its boxes are fractions of the image, where pixels were expected; export it with pixels")
        return found

    if count == "num_predictions":
        return Reading(_TRIPLE, {"yolo-nas": decode}, probe.names)
    families, likely = _families_of_labels(probe, boxes, scores, labels, count)
    return Reading(_TRIPLE, dict.fromkeys(families, decode), probe.names, likely)


def _families_of_labels(
    probe: Probe, boxes: str, scores: str, labels: str, count: str | None
) -> tuple[list[str], tuple[str, ...]]:
    """Return the families whose numbering fits the labels, and the likely ones among these."""
    corners, found = probe.all(boxes, count), probe.all(labels, count)
    real = (probe.all(scores, count) > 0) & (corners[:, 2:] != corners[:, :2]).any(axis=1)
    seen = set(found[real].astype(int).tolist())
    if max(seen, default=0) >= len(NAMES) and not probe.names:
        return [name for name in _CORNERS if FAMILIES[name].classes > len(NAMES)], ("torchvision",)
    if count is not None:
        return _CORNERS, ("yolo", "damo-yolo")
    decided = probe.sized or seen & UNUSED or probe.names
    return _CORNERS, ("rt-detr",) if decided else ("rt-detr", "torchvision")


def _scored_boxes(probe: Probe) -> Reading | None:
    """Match boxes with their score (n, 5), and labels (n,)."""
    boxes = table_of(probe.first, 5)
    if boxes is None or (found := vectors_of(probe, boxes)) is None or found[0] is not None:
        return None
    check_scores(probe.all(boxes)[:, 4])
    if corners_in(probe.all(boxes)[:, :4], probe.size) == "fractions":
        return None
    labels = found[1]

    def decode(outputs: Outputs, _: Size, score: float) -> Decoded:
        return decode_end_to_end(outputs[boxes][:, :4], outputs[boxes][:, 4], outputs[labels], score)

    likely = ("mmdet", "rtmdet", "yolox")
    return Reading("boxes with scores, and labels", dict.fromkeys(_CORNERS, decode), probe.names, likely)


def _rows_of_six(probe: Probe) -> Reading | None:
    """Match rows of left, top, right, bottom, score and class, the same number for each image."""
    rows = only_table(probe.first)
    if rows is None or not probe.batched or probe.first[rows].shape[1] != 6 or len(probe.first[rows]) > _MOST_ROWS:
        return None
    check_scores(probe.all(rows)[:, 4])
    if corners_in(probe.all(rows)[:, :4], probe.size) == "fractions":
        return None

    def decode(outputs: Outputs, _: Size, score: float) -> Decoded:
        return decode_end_to_end(outputs[rows][:, :4], outputs[rows][:, 4], outputs[rows][:, 5], score)

    return Reading("rows of box, score and class", {"yolo": decode}, probe.names)


def _rows_of_seven(probe: Probe) -> Reading | None:
    """Match rows of image and corners, then class and score (YOLOv6, YOLOv7) or score and class (YOLO-NAS)."""
    rows = only_table(probe.first)
    if rows is None or probe.batched or probe.first[rows].shape[1] != 7:
        return None

    def decode(outputs: Outputs, scores: int, labels: int, threshold: float) -> Decoded:
        own = outputs[rows][outputs[rows][:, 0] == 0]  # with a fixed batch size, the other images are padding
        return decode_end_to_end(own[:, 1:5], own[:, scores], own[:, labels], threshold)

    orders: dict[str, Decode] = {
        "yolo": lambda outputs, _, score: decode(outputs, 6, 5, score),
        "yolo-nas": lambda outputs, _, score: decode(outputs, 5, 6, score),
    }
    seen = probe.all(rows)
    fitting = [name for name, score in (("yolo", 6), ("yolo-nas", 5)) if not (seen[:, score] > 1).any()]
    named = "yolo-nas" if "flat" in rows else "yolo" if rows in ("output", "outputs", "output0") else None
    likely = [name for name in fitting if named in (None, name)]
    if not likely:
        raise ValueError(f"{rows} holds neither classes and scores nor scores and classes")
    return Reading("rows of image, box, class and score", {name: orders[name] for name in likely}, probe.names)


def _pairs(probe: Probe) -> Reading | None:
    """Match boxes (n, 4), and a logit or probability for every class (n, classes)."""
    boxes = table_of(probe.first, 4)
    if boxes is None:
        return None
    length = len(probe.first[boxes])
    classes = {
        name: class_names for name, values in probe.first.items()
        if name != boxes and values.ndim == 2 and len(values) == length
        and (class_names := classes_of(values.shape[1], probe.names))
    }  # fmt: skip
    scores = chosen(classes, SCORES + LABELS)
    if scores is None:
        return None
    values = probe.all(scores)
    fractions = np.abs(probe.all(boxes)).max(initial=0) <= FRACTION
    if ((values < 0) | (values > 1)).any():
        if not fractions:
            raise ValueError(f"{scores} are logits and {boxes} are in pixels, which no supported family returns")
        family = "rt-detr" if len(classes[scores]) == len(NAMES) or probe.names else "rf-detr"
        return Reading(
            "logits and boxes",
            {family: lambda outputs, size, score: decode_queries(outputs[scores], outputs[boxes], size, score)},
            classes[scores],
        )
    if fractions:
        raise ValueError(
            f"{scores} are probabilities and {boxes} are fractions of the image, which no supported family returns"
        )
    corners_in(probe.all(boxes), probe.size)

    def decode(outputs: Outputs, _: Size, score: float) -> Decoded:
        return decode_pairs(outputs[boxes], outputs[scores], score)

    return Reading("probabilities and boxes", dict.fromkeys(("yolo-nas", "damo-yolo"), decode), classes[scores])


def _grid(probe: Probe) -> Reading | None:
    """Match a row for each cell or anchor (n, 5 + classes): box, objectness, classes."""
    rows = only_table(probe.first)
    if rows is None or not (classes := classes_of(probe.first[rows].shape[1] - 5, probe.names, dense=True)):
        return None
    count, values = len(probe.first[rows]), probe.all(rows)
    check_scores(values[:, 4:])
    one_each, three_each = cells_of(probe.size, count), cells_of(probe.size, count // 3)
    if one_each is not None and np.median(np.abs(values[:, :2])) <= _FARTHEST:
        return _raw_grid(rows, classes)
    if one_each is None and (three_each is None or count % 3):
        raise ValueError(f"{rows} has {count} rows, which do not fit an input of {probe.size[0]} x {probe.size[1]}")
    # YOLOv6 has no objectness and returns 1 for it.
    family = "yolox" if one_each is not None and (values[:, 4] != 1).any() else "yolo"
    scale = unit_of(values[:, :4])

    def decode(outputs: Outputs, size: Size, score: float) -> Decoded:
        boxes, scores = outputs[rows][:, :4], outputs[rows][:, 4:5] * outputs[rows][:, 5:]
        return decode_anchors(boxes * (sides_of(size) if scale == "fractions" else 1), scores, score)

    return Reading("a decoded grid", {family: decode}, classes)


def _raw_grid(rows: str, classes: tuple[str, ...]) -> Reading:
    return Reading(
        "a raw grid", {"yolox": lambda outputs, size, score: decode_grid(outputs[rows], size, score)}, classes
    )


PACKAGED = _raw_grid("output", NAMES)  # the result of `read_outputs` for the packaged detector


def _anchors(probe: Probe) -> Reading | None:
    """Match a column or row for each anchor, (4 + classes, n) or (n, 4 + classes): box and classes."""
    rows = only_table(probe.first)
    if rows is None:
        return None
    shape = probe.first[rows].shape
    across = next((axis for axis in (0, 1) if classes_of(shape[axis] - 4, probe.names, dense=True)), None)
    if across is None:
        return None
    classes = classes_of(shape[across] - 4, probe.names, dense=True)
    values = np.concatenate([outputs[rows] if across else outputs[rows].T for outputs in probe.outputs])
    check_scores(values[:, 4:])
    fractions = unit_of(values[:, :4]) == "fractions"

    def decode(outputs: Outputs, size: Size, score: float) -> Decoded:
        table = outputs[rows] if across else outputs[rows].T
        return decode_anchors(table[:, :4] * (sides_of(size) if fractions else 1), table[:, 4:], score)

    return Reading("boxes and probabilities", {"rt-detr" if fractions else "yolo": decode}, classes)
