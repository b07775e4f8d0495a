from __future__ import annotations

import math

import numpy as np
import pytest

from whichcar.detection.coco import NAMES, names_of
from whichcar.detection.decoders import Decoded, decode_end_to_end, decode_grid, decode_pairs, decode_queries, keep_best


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def grid_by_hand(raw: np.ndarray, size: tuple[int, int], threshold: float) -> list[tuple[float, int, list[float]]]:
    """YOLOX's decoding cell by cell, as its paper describes it: (score, class, box) above the threshold."""
    found, at = [], 0
    for stride in (8, 16, 32):
        for y in range(size[0] // stride):
            for x in range(size[1] // stride):
                row = raw[at]
                at += 1
                centre_x, centre_y = (row[0] + x) * stride, (row[1] + y) * stride
                width, height = math.exp(row[2]) * stride, math.exp(row[3]) * stride
                box = [centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2]
                found += [(float(row[4] * s), c, box) for c, s in enumerate(row[5:]) if row[4] * s > threshold]
    assert at == len(raw)
    return found


def random_grid(seed: int, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in (8, 16, 32))
    raw = rng.normal(0.5, 1, (cells, 85)).astype(np.float32)
    raw[:, 4:] = rng.random((cells, 81)) ** 6
    return raw


@pytest.mark.parametrize("seed", range(3))
def test_a_grid_is_decoded_as_cell_by_cell(seed: int) -> None:
    raw, size = random_grid(seed), (64, 96)
    expected = sorted(grid_by_hand(raw, size, 0.5), reverse=True)
    assert len(expected) > 20
    kept: list[tuple[float, int, list[float]]] = []
    for one in expected:
        if all(one[1] != other[1] or overlap(np.array(one[2]), np.array(other[2])) <= 0.45 for other in kept):
            kept.append(one)
    found = decode_grid(raw, size, 0.5)
    assert len(found.scores) == len(kept)
    for (score, number, box), *mine in zip(kept, found.scores, found.classes, found.boxes, strict=True):
        assert mine[0] == pytest.approx(score, rel=1e-5)
        assert mine[1] == number
        np.testing.assert_allclose(mine[2], box, rtol=1e-4, atol=1e-3)


def test_a_grid_that_does_not_fit_the_input_is_refused() -> None:
    with pytest.raises(ValueError, match="100 cells do not fit an input of 64 x 96"):
        decode_grid(np.zeros((100, 85), np.float32), (64, 96), 0.5)


def test_a_grid_may_have_a_fourth_stride() -> None:
    cells = 16 * 16 + 8 * 8 + 4 * 4 + 2 * 2
    raw = np.zeros((cells, 85), np.float32)
    raw[-1] = 1  # the last cell of stride 64: centre (1 + 1) * 64, sides e * 64
    found = decode_grid(raw, (128, 128), 0.5)
    low, high = 128 - 32 * math.e, 128 + 32 * math.e
    np.testing.assert_allclose(found.boxes[0], [low, low, high, high], rtol=1e-5)


def test_of_overlapping_boxes_of_a_class_the_best_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [0, 0, 10, 10], [40, 40, 50, 50]], np.float32)
    found = Decoded(boxes, np.array([0.6, 0.9, 0.7, 0.5]), np.array([2, 2, 7, 2]))
    assert keep_best(found, 0.45).tolist() == [1, 2, 3]


def test_a_minimum_score_of_zero_ends() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 400, (3549, 2))
    boxes = np.concatenate([corners, corners + 16], axis=1).astype(np.float32)
    scores = rng.random((3549, 80), np.float32)
    found = decode_pairs(boxes, scores, 0.0)
    assert len(found.boxes) <= 3000
    assert found.scores[0] == scores.max()


def test_nothing_found_is_no_rows() -> None:
    found = decode_grid(np.zeros((126, 85), np.float32), (64, 96), 0.5)
    assert found.boxes.shape == (0, 4)
    assert len(found.scores) == len(found.classes) == 0


def test_queries_are_decoded_pair_by_pair() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(-1, 1, (30, 80)).astype(np.float32)
    boxes = rng.random((30, 4)).astype(np.float32)
    pairs = sorted(((1 / (1 + math.exp(-logits[q, c])), q, c) for q in range(30) for c in range(80)), reverse=True)[:30]
    expected = [pair for pair in pairs if pair[0] > 0.5]
    found = decode_queries(logits, boxes, (100, 200), 0.5)
    assert len(expected) == len(found.scores) == 30
    for (score, query, number), *mine in zip(expected, found.scores, found.classes, found.boxes, strict=True):
        x, y, width, height = boxes[query]
        assert mine[0] == pytest.approx(score, rel=1e-5)
        assert mine[1] == number
        edges = [(x - width / 2) * 200, (y - height / 2) * 100, (x + width / 2) * 200, (y + height / 2) * 100]
        np.testing.assert_allclose(mine[2], edges, rtol=1e-4, atol=1e-3)


def test_rows_of_padding_are_left_out_of_an_end_to_end_answer() -> None:
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = decode_end_to_end(boxes, np.array([0.9, 0.4, 0.9], np.float32), np.array([2, 2, -1]), 0.5)
    assert found.boxes.tolist() == [[0, 1, 2, 3]]


def test_all_numberings_of_coco_name_cars_and_trucks() -> None:
    short, long = names_of(80), names_of(91)
    assert short is not None
    assert long is not None
    assert (short[2], short[7], short[79]) == ("car", "truck", "toothbrush")
    # COCO's own category numbers, here and there among those that name nothing.
    named = {1: "person", 3: "car", 8: "truck", 11: "fire hydrant", 13: "stop sign", 25: "giraffe", 27: "backpack"}
    named |= {
        28: "umbrella",
        31: "handbag",
        44: "bottle",
        46: "wine glass",
        65: "bed",
        67: "dining table",
        70: "toilet",
    }
    named |= {72: "tv", 82: "refrigerator", 84: "book", 90: "toothbrush", 0: "", 12: "", 45: "", 66: "", 83: ""}
    assert {number: long[number] for number in named} == named
    assert tuple(filter(None, long)) == NAMES
    assert names_of(90) == long[1:]
    assert names_of(20) is None
