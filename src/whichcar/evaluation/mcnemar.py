"""Two classifiers on the same images: McNemar's test and a confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from whichcar.metrics import LEVEL

FEW = 25  # discordant images below which the chi-squared approximation is too coarse
Z = 1.959964  # z-score of a 95 % interval


@dataclass(frozen=True, slots=True)
class Paired:
    """McNemar's table of two classifiers: the images that only one of them predicted correctly.

    Of `total` images that both predicted, only the first was correct on `gained` and only the second on `lost`.
    `by_path`: the images were matched by their paths in the split, since one set consists of crops of the other.
    """

    total: int
    gained: int
    lost: int
    by_path: bool = False

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second, -1..1."""
        return (self.gained - self.lost) / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the true difference.

        Wald's interval with one image added to each kind of discordant image: Bonett and Price, "Adjusted Wald
        confidence interval for a difference of binomial proportions based on paired data", Journal of Educational and
        Behavioral Statistics 37 (2012), 479-488; recommended by Fagerland, Lydersen and Laake, "Recommended tests and
        confidence intervals for paired binomial proportions", Statistics in Medicine 33 (2014), 2850-2875. It is not
        empty even if the two never differ.
        """
        total = self.total + 2
        gained, lost = (self.gained + 1) / total, (self.lost + 1) / total
        half = Z * math.sqrt((gained + lost - (gained - lost) ** 2) / total)
        return max(-1.0, gained - lost - half), min(1.0, gained - lost + half)

    @property
    def test(self) -> str:
        """Form of McNemar's test used for `p_value`: `exact` for few discordant images, else `chi-squared`."""
        return "exact" if self.gained + self.lost < FEW else "chi-squared"

    @property
    def p_value(self) -> float:
        """Probability that equally good classifiers would differ at least this much, 0..1.

        McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12 (1947), 153-157, without continuity correction. The exact form is two-sided: twice the
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
        """Verdict on the first: `better`, `worse` or `no difference shown`."""
        if self.p_value >= LEVEL:
            return "no difference shown"
        return "better" if self.difference > 0 else "worse"
