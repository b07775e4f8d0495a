from __future__ import annotations

import numpy as np
import pytest

from whichcar import metrics

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1], [0.2, 0.3, 0.5]])
LABELS = np.array([0, 1, 1, 0])


def test_top_k_accuracy_counts_the_true_class_among_the_k_best() -> None:
    assert metrics.top_k_accuracy(SCORES, LABELS, 1) == 0.5
    assert metrics.top_k_accuracy(SCORES, LABELS, 2) == 0.75
    assert metrics.top_k_accuracy(SCORES, LABELS, 3) == 1.0


def test_a_constant_model_is_never_right() -> None:
    assert metrics.top_k_accuracy(np.ones((10, 4)), np.arange(10) % 4, 1) == 0.0
    assert metrics.top_k_accuracy(np.ones((10, 4)), np.arange(10) % 4, 3) == 0.0


def test_scores_that_are_no_numbers_are_misses() -> None:
    scores = np.array([[np.nan, np.nan], [0.9, np.nan], [np.nan, 0.9], [0.1, 0.9]])
    assert metrics.ranks(scores, np.array([0, 0, 0, 1])).tolist() == [2, 2, 2, 1]
    assert metrics.top_k_accuracy(scores, np.array([0, 0, 0, 1])) == 0.25


def test_a_prediction_is_the_best_class_and_among_equal_ones_not_the_true_one() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2]], np.float32)
    assert metrics.predictions(scores, np.array([1, 0, 1])).tolist() == [0, 1, 0]
    assert scores[1, 0] == np.float32(0.4)
    half = np.float32(0.5)
    assert metrics.predictions(np.array([[np.nextafter(half, 0), half]], np.float32), np.array([1])).tolist() == [1]


def test_no_images_give_zero_and_not_an_error() -> None:
    assert metrics.top_k_accuracy(np.zeros((0, 3)), np.zeros(0, int)) == 0.0
    assert metrics.log_loss(np.zeros(0)) == 0.0
    assert metrics.Proportion(0, 0).value == 0.0
    assert metrics.Proportion(0, 0).interval == (0.0, 1.0)
    assert metrics.reliability(np.zeros(0), np.zeros(0, bool)) == []


def test_the_exact_interval_has_the_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    published = {
        (81, 263): (0.2527, 0.3676),
        (15, 148): (0.0578, 0.1617),
        (0, 20): (0, 0.1684),
        (1, 29): (0.0009, 0.1776),
    }
    for (correct, total), (low, high) in published.items():
        assert metrics.clopper_pearson(correct, total) == pytest.approx((low, high), abs=5e-5)
    assert metrics.clopper_pearson(20, 20) == pytest.approx((1 - 0.1684, 1.0), abs=5e-5)


def test_the_exact_interval_and_its_binomial_tail_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for correct, total, tail in ((1, 1, 0.05), (59, 59, 0.05), (1240, 1301, 0.05), (8000, 8041, 0.025), (3, 900, 0.1)):
        exact = stats.binomtest(correct, total).proportion_ci(1 - 2 * tail, "exact")
        assert metrics.clopper_pearson(correct, total, tail) == pytest.approx((exact.low, exact.high), abs=1e-9)
        for share in (0.001, 0.5, 0.95, 0.9999):
            expected = stats.binom.sf(correct - 1, total, share)
            assert metrics.binomial_tail(correct, total, share) == pytest.approx(expected, rel=1e-8, abs=1e-300)


def test_a_binomial_tail_has_its_ends() -> None:
    ends = ((0, 5, 0.1), (6, 5, 0.9), (1, 5, 0.0), (5, 5, 1.0))
    assert [metrics.binomial_tail(*case) for case in ends] == [1, 0, 0, 1]


def test_confusion_has_true_classes_in_rows_and_answers_in_columns() -> None:
    matrix = metrics.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_recall_precision_and_f1_of_each_class() -> None:
    matrix = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])
    first, second, absent = metrics.per_class(matrix, ["a", "b", "c"])
    assert (first.recall, first.precision) == (0.8, pytest.approx(8 / 9))
    assert first.f1 == pytest.approx(2 * 0.8 * (8 / 9) / (0.8 + 8 / 9))
    assert (second.total, second.correct, second.predicted) == (4, 3, 5)
    assert (absent.recall, absent.precision, absent.f1) == (0.0, 0.0, 0.0)


def test_most_confused_pairs_come_most_first_and_without_right_answers() -> None:
    matrix = np.array([[50, 3, 0], [0, 9, 3], [1, 0, 9]])
    pairs = metrics.most_confused(matrix, ["a", "b", "c"])
    assert [(p.label, p.predicted, p.count, p.total) for p in pairs] == [
        ("b", "c", 3, 12),
        ("a", "b", 3, 53),
        ("c", "a", 1, 10),
    ]
    assert len(metrics.most_confused(matrix, ["a", "b", "c"], limit=1)) == 1


def test_reliability_compares_claimed_with_true_shares() -> None:
    rows = metrics.reliability(np.array([0.55, 0.59, 0.95, 1.0]), np.array([True, False, True, True]))
    assert [(round(p, 3), share, count) for p, share, count in rows] == [(0.57, 0.5, 2), (0.975, 1.0, 2)]


def test_the_calibration_error_weighs_bins_by_their_images() -> None:
    probability, correct = np.array([0.9, 0.9, 0.9, 0.5]), np.array([True, True, False, False])
    assert metrics.calibration_error(probability, correct) == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.5)
    assert metrics.calibration_error(np.zeros(0), np.zeros(0, bool)) == 0


def test_coverage_counts_the_most_certain_images_and_equal_ones_together() -> None:
    probability, correct = np.array([0.1, 0.8, 0.9, 0.8]), np.array([False, False, True, True])
    rows = metrics.coverage(probability, correct, steps=4)
    assert [(row.least, row.accuracy.correct, row.accuracy.total) for row in rows] == [
        (0.9, 1, 1),
        (0.8, 2, 3),
        (0.1, 2, 4),
    ]
    assert len(metrics.coverage(np.linspace(0, 1, 1000), np.ones(1000, bool))) == 100
    assert metrics.coverage(np.zeros(0), np.zeros(0, bool)) == []


def test_log_loss_is_the_mean_surprise_at_the_label() -> None:
    assert metrics.log_loss(np.array([0.5, 0.25])) == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert metrics.log_loss(np.array([0.0])) == pytest.approx(-np.log(1e-7))
    assert f"{metrics.log_loss(np.ones(3)):.4f}" == "0.0000", "it is part of a file's name, without a minus sign"
