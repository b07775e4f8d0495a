from __future__ import annotations

import numpy as np
import pytest

from whichcar.evaluation.macro import macro


def test_every_class_that_has_images_counts_the_same() -> None:
    found = macro(np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]]))
    assert found.recall.value == pytest.approx((0.8 + 0.75) / 2)
    assert found.precision.value == pytest.approx((8 / 9 + 3 / 5) / 2)
    assert found.f1.value == pytest.approx((16 / 19 + 6 / 9) / 2)


def test_an_interval_covers_the_true_value_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    recalls, images, hits = np.array([0.9, 0.6, 0.8]), 80, 0
    for _ in range(100):
        right = rng.binomial(images, recalls)
        matrix = np.diag(right) + np.roll(np.diag(images - right), 1, axis=1)
        low, high = macro(matrix).recall.interval
        hits += low <= recalls.mean() <= high
    assert 89 <= hits <= 100


def test_the_interval_is_the_same_every_time() -> None:
    matrix = np.array([[8, 2], [1, 3]])
    assert macro(matrix) == macro(matrix)
    low, high = macro(matrix).f1.interval
    assert low < macro(matrix).f1.value < high


def test_no_images_say_nothing() -> None:
    assert macro(np.zeros((2, 2), np.int64)).f1.interval == (0, 1)
