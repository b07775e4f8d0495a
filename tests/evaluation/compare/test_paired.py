"""McNemar's test and the interval, held against SciPy and a book's example."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from whichcar.errors import DataError
from whichcar.evaluation.compare.paired import paired
from whichcar.evaluation.evaluate import evaluate
from whichcar.evaluation.mcnemar import Paired
from whichcar.files import checksum


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (3, 3), (1, 8), (12, 12), (0, 24), (24, 0), (7, 17)])
def test_few_discordant_images_get_the_exact_test(gained: int, lost: int) -> None:
    from scipy.stats import binomtest  # loaded by one process of the tests alone

    pair = Paired(1000, gained, lost)
    assert pair.test == "exact"
    assert pair.p_value == pytest.approx(binomtest(gained, gained + lost).pvalue, rel=1e-12)


@pytest.mark.parametrize(("gained", "lost"), [(12, 13), (5, 20), (100, 60), (173, 185), (700, 30)])
def test_many_get_the_chi_squared_test(gained: int, lost: int) -> None:
    from scipy.stats import chi2

    pair = Paired(1629, gained, lost)
    assert pair.test == "chi-squared"
    expected = chi2.sf((gained - lost) ** 2 / (gained + lost), df=1)
    assert pair.p_value == pytest.approx(expected, rel=1e-9)


def test_classifiers_that_never_differ_are_not_distinguished() -> None:
    pair = Paired(50, 0, 0)
    assert (pair.difference, pair.p_value, pair.verdict) == (0.0, 1.0, "no difference shown")
    assert pair.interval[0] < 0 < pair.interval[1]


def test_interval_and_test_are_those_of_the_book() -> None:
    # Complete response before and after a therapy, 161 patients (Cavo and others 2012), the example of Fagerland,
    # Lydersen and Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8, by their own program.
    pair = Paired(161, 6, 16)
    assert [round(edge, 4) for edge in pair.interval] == [-0.1195, -0.0032]
    assert round(pair.p_value, 6) == 0.052479


def test_the_interval_holds_the_true_difference_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(1)
    only_first, only_second, total = 0.12, 0.07, 300
    drawn = rng.multinomial(total, [only_first, only_second, 1 - only_first - only_second], 4000)
    intervals = np.array([Paired(total, int(gained), int(lost)).interval for gained, lost, _ in drawn])
    difference = only_first - only_second
    holding = ((intervals[:, 0] <= difference) & (difference <= intervals[:, 1])).mean()
    assert 0.94 < holding < 0.965  # a standard deviation is 0.0035


def test_the_interval_stays_within_what_is_possible() -> None:
    assert Paired(2, 2, 0).interval[1] <= 1
    assert Paired(2, 0, 2).interval[0] >= -1


def test_the_verdict_follows_the_p_value() -> None:
    assert [Paired(100, *counts).verdict for counts in ((6, 0), (0, 6), (5, 0), (60, 40), (61, 40), (40, 61))] == [
        *("better", "worse", "no difference shown", "better", "better", "worse")
    ]


def test_two_evaluations_are_compared_image_by_image(experiment: Path, tmp_path: Path) -> None:
    evaluate(experiment)
    table = (experiment / "predictions.csv").read_text(encoding="utf-8")
    other = tmp_path / "other"
    other.mkdir()
    result = json.loads((experiment / "result.json").read_text(encoding="utf-8"))
    (other / "result.json").write_text(json.dumps(result), encoding="utf-8")
    # The same number right, of others: one right answer and the wrong one change places.
    lines = table.splitlines()
    places = [[number for number, line in enumerate(lines) if line.split(",")[4] == flag] for flag in ("1", "0")]
    for number, flag in ((places[0][0], "0"), (places[1][0], "1")):
        lines[number] = ",".join([*lines[number].split(",")[:4], flag, *lines[number].split(",")[5:]])
    (other / "predictions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"predictions\.csv: is not the table of result\.json next to it; make both"):
        paired(experiment, other)
    result["predictions"]["blake2b"] = checksum(other / "predictions.csv")
    (other / "result.json").write_text(json.dumps(result), encoding="utf-8")
    assert paired(experiment, other) == Paired(5, 1, 1)  # the sixth image cannot be read
    assert paired(experiment, experiment) == Paired(5, 0, 0)


def test_a_table_that_is_not_the_results_is_refused(experiment: Path) -> None:
    evaluate(experiment)
    table = experiment / "predictions.csv"
    whole = table.read_text(encoding="utf-8")
    table.write_text("\n".join(whole.splitlines()[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"predictions\.csv: .* of 4 correct, but result\.json says 4 of 5; make both again"
    ):
        paired(experiment, experiment)
    table.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"predictions\.csv: not readable"):
        paired(experiment, experiment)
    table.unlink()
    with pytest.raises(DataError, match=r"predictions\.csv: is not there; make it again with: whichcar evaluate"):
        paired(experiment, experiment)
