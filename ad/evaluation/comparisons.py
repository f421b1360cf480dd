"""Compare settings by one score of independent runs: a pooled deviation, Student's t and Holm.

A few training seeds estimate the standard deviation of one setting poorly, so that the luckiest
setting would look the most certain. All settings share one standard deviation instead.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.05  # better and worse need a corrected p value below it
BETTER, WORSE, NOT_TOLD_APART = "better", "worse", "not told apart"


@dataclass(frozen=True)
class PooledDeviation:
    """A standard deviation over runs that is pooled within settings, with its degrees of freedom.

    `counts` is the number of runs of each mean in an estimate: one number for a mean, two for the
    difference of two means. Its standard error is deviation * sqrt(sum of 1 / count).
    """

    deviation: float
    freedom: int

    def interval(self, estimate: float, *counts: int) -> tuple[float, float]:
        """Return the 95 % interval of `estimate` by Student's t: (low, high)."""
        half = float(stdtrit(self.freedom, 0.975)) * self._error(counts)
        return estimate - half, estimate + half

    def p_value(self, estimate: float, *counts: int) -> float:
        """Return the two-sided p value of `estimate` by Student's t, against 0."""
        error = self._error(counts)
        if error == 0:
            return float(estimate == 0)
        return float(2 * stdtr(self.freedom, -abs(estimate) / error))

    def _error(self, counts: Sequence[int]) -> float:
        return self.deviation * sum(1 / count for count in counts) ** 0.5


@dataclass(frozen=True)
class Comparison:
    """The mean score of a setting minus that of the reference.

    bounds: the 95 % interval of the difference. p: its p value, corrected for all comparisons. Both
    are None where the standard deviation is unknown.
    """

    difference: float
    bounds: tuple[float, float] | None = None
    p: float | None = None

    @property
    def verdict(self) -> str | None:
        """Return "better", "worse" or "not told apart"; None without a p value."""
        if self.p is None:
            return None
        if self.p >= LEVEL:
            return NOT_TOLD_APART
        return BETTER if self.difference > 0 else WORSE

    def __str__(self) -> str:
        """Return the text of the comparison in a table."""
        text = f"{self.difference:+.3f}"
        if self.bounds is None or self.p is None:
            return text
        p = "p < 0.001" if self.p < 0.001 else f"p {self.p:.2g}"
        return f"{text} [{self.bounds[0]:+.3f}, {self.bounds[1]:+.3f}], {p}"


def group_means(values: Sequence[float], groups: Sequence[Hashable]) -> dict[Hashable, float]:
    """Return the mean of the values of each group, in the order of their first values."""
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    return {group: float(np.mean(own)) for group, own in members.items()}


def pool(groups: Iterable[Sequence[float]]) -> PooledDeviation | None:
    """Pool the standard deviation within `groups`, the scores of each setting's runs.

    deviation^2 = sum over groups of (x - mean of the group)^2 / freedom, with freedom = sum of
    (runs - 1). None if no group has two runs.
    """
    several = [np.asarray(group, float) for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    if not freedom:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
    return PooledDeviation((squares / freedom) ** 0.5, freedom)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct `p_values` [M] for M comparisons (Holm 1979), in their order.

    With p_(1) <= ... <= p_(M), the corrected p_(i) is the largest of min(1, (M - j + 1) p_(j)) over
    j <= i. The probability of any false rejection stays below the level, also where the
    comparisons depend on each other, as those with one reference do.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(np.minimum(steps, 1))
    return corrected.tolist()
