"""Whether one of two classifiers is better on the same images: McNemar's test and a confidence interval."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whichcar.errors import DataError
from whichcar.evaluation.result import read_result
from whichcar.evaluation.upgrade import read_predictions
from whichcar.files import PREDICTIONS, RESULT, checksum
from whichcar.metrics import LEVEL
from whichcar.text import reason_of, shell_command

FEW = 25  # discordant images, below which the chi-squared distribution is too coarse
Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class Paired:
    """McNemar's table of two classifiers: the images that only one of them predicted correctly.

    `gained` images only the first predicted correctly, `lost` only the second, of `total` images that both predicted.
    `by_path`: the files differ, since some are crops of the others; they were matched by their paths in the split.
    """

    total: int
    gained: int
    lost: int
    by_path: bool = False

    @property
    def difference(self) -> float:
        """The first's accuracy less the second's, -1..1."""
        return (self.gained - self.lost) / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the true difference.

        Wald's interval with an image added to either kind of discordant ones: Bonett and Price, "Adjusted Wald
        confidence interval for a difference of binomial proportions based on paired data", Journal of Educational and
        Behavioral Statistics 37 (2012), 479-488; recommended by Fagerland, Lydersen and Laake, "Recommended tests and
        confidence intervals for paired binomial proportions", Statistics in Medicine 33 (2014), 2850-2875. It is not
        empty where the two never differ.
        """
        total = self.total + 2
        gained, lost = (self.gained + 1) / total, (self.lost + 1) / total
        half = Z * math.sqrt((gained + lost - (gained - lost) ** 2) / total)
        return max(-1.0, gained - lost - half), min(1.0, gained - lost + half)

    @property
    def test(self) -> str:
        """The form of McNemar's test that `p_value` is of: `exact` for few discordant images, else `chi-squared`."""
        return "exact" if self.gained + self.lost < FEW else "chi-squared"

    @property
    def p_value(self) -> float:
        """How often equally good classifiers would differ at least this much, 0..1.

        McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12 (1947), 153-157, without correction for continuity. The exact form is two-sided: twice the
        binomial tail, at most 1.
        """
        discordant = self.gained + self.lost
        if discordant == 0:
            return 1.0
        if self.test == "exact":
            tail = sum(math.comb(discordant, count) for count in range(min(self.gained, self.lost) + 1))
            return min(1.0, tail / math.ldexp(1, discordant - 1))
        # The square of a normal variable is chi-squared with one degree of freedom.
        return math.erfc(abs(self.gained - self.lost) / math.sqrt(2 * discordant))

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference shown`, of the first."""
        if self.p_value >= LEVEL:
            return "no difference shown"
        return "better" if self.difference > 0 else "worse"


def paired(first: Path, second: Path) -> Paired:
    """Compare two evaluated experiments on the images that both predicted.

    Args:
        first, second: folders with the result.json and predictions.csv of one evaluation.

    Raises:
        DataError: one has not been evaluated, the two were measured on other images, or have none in common that
            could be read.
    """
    second_result, first_result = read_result(second), read_result(first)
    other_files = first_result["data"]["fingerprint"] != second_result["data"]["fingerprint"]
    other_images = DataError(
        f"{first}: measured on other images ({_images(first_result)}) than {second} ({_images(second_result)}); "
        "only the same files, or crops of them that `whichcar crop` wrote under the same paths, can be matched: "
        "evaluate both on the same ones, with `whichcar evaluate --data DIR`"
    )
    if other_files and not (_is_crop(first_result) or _is_crop(second_result)):
        raise other_images
    correct, others = _correct(first, first_result), _correct(second, second_result)
    both = correct.keys() & others.keys()
    if other_files and len(both) < min(len(correct), len(others)):  # crops may lack images, but have no others
        raise other_images
    if not both:
        raise DataError(f"{first}: no image was predicted both here and by {second}; evaluate both again")
    return Paired(
        total=len(both),
        gained=sum(correct[path] and not others[path] for path in both),
        lost=sum(others[path] and not correct[path] for path in both),
        by_path=other_files,
    )


def _is_crop(result: dict[str, Any]) -> bool:
    """True when `whichcar crop` wrote the images of a result."""
    from whichcar.inference.input_crop import is_cropped

    return is_cropped(Path(result["data"]["root"]).absolute())


def _again(folder: Path) -> str:
    return shell_command(["whichcar", "evaluate", folder])


def _images(result: dict[str, Any]) -> str:
    data = result["data"]
    return f"{data['images']} {data['split']} of {data['root']}"


def _correct(folder: Path, result: dict[str, Any]) -> dict[str, bool]:
    """Return whether each image that could be read was predicted correctly, by its path relative to the data's root."""
    table = folder / PREDICTIONS
    try:
        correct = {row["path"]: row["correct"] == "1" for row in read_predictions(table) if not row["error"]}
    except FileNotFoundError:
        raise DataError(f"{table}: is not there; make it again with: {_again(folder)}") from None
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(f"{table}: not readable ({reason_of(error)}); make it again with: {_again(folder)}") from error
    top_1 = result["top_1"]
    if (len(correct), sum(correct.values())) != (top_1["total"], top_1["correct"]):
        raise DataError(
            f"{table}: {sum(correct.values())} of {len(correct)} correct, but {RESULT} says {top_1['correct']} of "
            f"{top_1['total']}; make both again with: {_again(folder)}"
        )
    expected = result.get("predictions", {}).get("blake2b")  # results of earlier versions have none
    if expected is not None and expected != checksum(table):
        raise DataError(f"{table}: is not the table of {RESULT} next to it; make both again with: {_again(folder)}")
    return correct
