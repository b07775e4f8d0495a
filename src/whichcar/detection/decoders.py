"""Decode a detector's raw output into boxes: one function per output format.

All accept the arrays of one image and return `Decoded`; boxes are in pixels of the network's input.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
OVERLAP = 0.45  # as in YOLOX's ONNX demo
MOST = 3000  # detections compared at most; with a minimum score near 0, nearly all pairs of box and class pass
_LARGEST = 80.0  # exponent, within float32's range


class Decoded(NamedTuple):
    """Detections above a score: `boxes` (n, 4) left, top, right, bottom; `scores` (n,) 0..1; `classes` (n,) numbers."""

    boxes: npt.NDArray[Any]
    scores: npt.NDArray[Any]
    classes: npt.NDArray[Any]


def decode_grid(raw: Array, size: tuple[int, int], threshold: float) -> Decoded:
    """Decode YOLOX's raw grid (Ge et al. 2021): centres as offsets from a cell, logarithms of sides, both in strides.

    Args:
        raw: (cells, 5 + classes): x, y, log width, log height, objectness, class scores; the cells of stride 8 first,
            then 16, then 32 (and 64 if the count fits), each in row-major order.
        size: (height, width) of the network's input.
        threshold: detections with objectness x class score at or below it are left out.

    Overlapping boxes of one class are suppressed (`keep_best`).

    Raises:
        ValueError: the number of cells does not fit `size`.
    """
    if (cells_and_strides := cells_of(size, len(raw))) is None:
        raise ValueError(f"{len(raw)} cells do not fit an input of {size[0]} x {size[1]} with strides 8, 16 and 32")
    corners, strides = cells_and_strides
    likely = np.flatnonzero(raw[:, 4] > threshold)  # no class scores more than 1, so the others cannot reach it
    scores = raw[likely, 4:5] * raw[likely, 5:]
    rows, classes = np.nonzero(scores > threshold)
    cells = likely[rows]
    centre = (raw[cells, :2] + corners[cells]) * strides[cells]
    half = np.exp(np.minimum(raw[cells, 2:4], _LARGEST)) * strides[cells] / 2
    return _suppressed(np.concatenate([centre - half, centre + half], axis=1), scores[rows, classes], classes)


def decode_anchors(boxes: npt.NDArray[Any], scores: Array, threshold: float) -> Decoded:
    """Decode one box per anchor, as returned by YOLOv5 to YOLOv11.

    Args:
        boxes: (anchors, 4): centre x, centre y, width, height in pixels of the network's input.
        scores: (anchors, classes) 0..1.
        threshold: pairs of anchor and class scored at or below it are left out.

    Overlapping boxes of one class are suppressed (`keep_best`).
    """
    centre, half = boxes[:, :2], boxes[:, 2:4] / 2
    return decode_pairs(np.concatenate([centre - half, centre + half], axis=1), scores, threshold)


def decode_pairs(boxes: Array, scores: Array, threshold: float) -> Decoded:
    """Decode one box per anchor, given as corners, as returned by YOLO-NAS and DAMO-YOLO.

    Args:
        boxes: (anchors, 4): left, top, right, bottom in pixels of the network's input.
        scores: (anchors, classes) 0..1.
        threshold: pairs of anchor and class scored at or below it are left out.

    Overlapping boxes of one class are suppressed (`keep_best`).
    """
    rows, classes = np.nonzero(scores > threshold)
    return _suppressed(boxes[rows].astype(np.float32), scores[rows, classes].astype(np.float32), classes)


def _suppressed(boxes: Array, scores: Array, classes: npt.NDArray[np.int64]) -> Decoded:
    kept = keep_best(Decoded(boxes, scores, classes), OVERLAP)
    return Decoded(boxes[kept], scores[kept], classes[kept])


def decode_queries(logits: Array, boxes: Array, size: tuple[int, int], threshold: float) -> Decoded:
    """Decode RT-DETR, D-FINE and RF-DETR: one box per query, and a logit for each class.

    Args:
        logits: (queries, classes); their sigmoids are the scores.
        boxes: (queries, 4): centre x, centre y, width, height, as fractions of the input's sides.
        size: (height, width) of the network's input.
        threshold: pairs of query and class scored at or below it are left out.

    Only the best pairs are kept, at most one per query. These networks need no overlap suppression.
    """
    scores = 1 / (1 + np.exp(-np.maximum(logits.astype(np.float32), -_LARGEST)))
    queries, classes = np.nonzero(scores > threshold)
    best = np.argsort(-scores[queries, classes], kind="stable")[: len(logits)]
    queries, classes = queries[best], classes[best]
    sides = np.array([size[1], size[0]], np.float32)
    centre, half = boxes[queries, :2] * sides, boxes[queries, 2:4] * sides / 2
    return Decoded(np.concatenate([centre - half, centre + half], axis=1), scores[queries, classes], classes)


def decode_end_to_end(boxes: npt.NDArray[Any], scores: Array, classes: npt.NDArray[Any], threshold: float) -> Decoded:
    """Decode a network that includes non-maximum suppression.

    Args:
        boxes: (n, 4): left, top, right, bottom in pixels of the network's input.
        scores: (n,) 0..1.
        classes: (n,) integers of any type; negative ones mark padding.
        threshold: detections scored at or below it are left out.

    Raises:
        ValueError: a score is above 1, or a class is not an integer.
    """
    kept = (scores > threshold) & (classes >= 0)
    if (scores[kept] > 1.001).any() or (classes[kept] % 1 != 0).any():
        raise ValueError("it returned a score above 1, or a class that is not an integer")
    return Decoded(boxes[kept].astype(np.float32), scores[kept].astype(np.float32), classes[kept].astype(np.int64))


def keep_best(decoded: Decoded, overlap: float) -> npt.NDArray[np.int64]:
    """Return the rows to keep, best first: greedy non-maximum suppression per class, among the `MOST` best rows.

    Args:
        decoded: boxes, scores and classes.
        overlap: a box is dropped if its intersection over union with a better one of its class is above this.
    """
    rest = np.argsort(-decoded.scores, kind="stable")[:MOST]
    kept = []
    while len(rest):
        first, rest = rest[0], rest[1:]
        kept.append(first)
        same = decoded.classes[rest] == decoded.classes[first]
        rest = rest[~(same & (_overlaps(decoded.boxes[first], decoded.boxes[rest]) > overlap))]
    return np.array(kept, np.int64)


def _overlaps(box: Array, others: Array) -> Array:
    """Return the intersection over union of one box (4,) with each of the others (n, 4), as (n,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    overlaps: Array = shared / np.maximum(areas - shared, 1e-9)
    return overlaps


@lru_cache(maxsize=8)
def cells_of(size: tuple[int, int], count: int) -> tuple[Array, Array] | None:
    """Return each cell's column and row (count, 2) and its stride (count, 1); None if `count` does not fit."""
    for strides in ((8, 16, 32), (8, 16, 32, 64)):
        shapes = [(size[0] // stride, size[1] // stride) for stride in strides]
        if sum(rows * columns for rows, columns in shapes) == count:
            corners = [np.stack(np.meshgrid(np.arange(c), np.arange(r)), -1).reshape(-1, 2) for r, c in shapes]
            widths = [np.full((r * c, 1), stride) for (r, c), stride in zip(shapes, strides, strict=True)]
            return np.concatenate(corners).astype(np.float32), np.concatenate(widths).astype(np.float32)
    return None
