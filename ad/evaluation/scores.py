"""Scores, estimates and comparisons: what a number is called, how certain it is, what it beats.

SCORES declares every score once. `estimate` and `compare` take plain numbers, one for each
independent run (a trained model): no other module computes an interval or a p value over runs. The
interval of one run, over its tasks, is `metrics.bootstrap`.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy.special import stdtr, stdtrit

from ad.evaluation import metrics
from ad.evaluation.metrics import Episodes

UNKNOWN = "–"  # in place of a number that does not exist
LEVEL = 0.05  # "better" and "worse" need a corrected p value below it
BETTER, WORSE, NOT_SIGNIFICANT = "better", "worse", "not significant"
FOUND_BY = (1, 5, 10, 25)  # episodes of the scores `found_by_<episode>`
CURVE_EPISODES = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500)
Label = TypeVar("Label", bound=Hashable)


@dataclass(frozen=True)
class Score:
    """A number that says how good a run is.

    heading: its name in tables. note: what it is, as a sentence. format: a format specification of
    Python. low, high: the bounds of its expectation, None for no bound. tables: the tables of a
    report that have it as a column: "run", "task", "search" or "change". per_task: what computes it
    for each task, float [K]; None for a score that is computed elsewhere.
    """

    name: str
    heading: str
    note: str
    format: str = ".3f"
    low: float | None = None
    high: float | None = None
    tables: tuple[str, ...] = ()
    per_task: Callable[[Episodes], np.ndarray] | None = None


UNIT: dict[str, Any] = {"low": 0, "high": 1}  # the bounds of a share
RUN, TASK, SEARCH, CHANGE = ("run",), ("task",), ("search",), ("change",)
LAST_10 = "Last 10: mean over the last ten episodes, or all episodes where there are fewer."
SHARE = "Share of optimum: return / optimal return."
SUCCESS_BY = (
    "Success by episode n: the share of pairs of task and rollout with a success in one of the "
    "first n episodes."
)
# Scores of contexts in which the task changes, from `metrics.regret` and `metrics.at_changes`.
REGRET = "Regret: mean over episodes of optimal return - return, both of the present task."
AT_CHANGE = (
    "Before / after a change: return / optimal return of the present task, as the mean over the "
    "last and the first five episodes."
)
RECOVERY = (
    "Recovered: the share of changes after which the mean of five episodes reaches 80 % of the "
    "share before, ahead of the next change; changes with fewer than five episodes behind them, or "
    "with a share of 0 before them, do not count. Episodes to recover: how many that takes; one "
    "that does not recover counts all episodes up to the next change, so the mean is a lower "
    "bound, and always 5 where five episodes lie between changes. Little is soon recovered, by "
    "random actions too: read both beside the share before a change."
)
SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(
            "nauc",
            "NAUC",
            "NAUC: mean over all in-context episodes of return / optimal return.",
            high=1,
            tables=RUN + TASK,
            per_task=lambda e: metrics.nauc(e.returns.mean(1), e.facts.optimal_return),
        ),
        Score(
            "success_last10",
            "success, last 10",
            LAST_10,
            **UNIT,
            tables=RUN + TASK,
            per_task=lambda e: metrics.last(e.successes).mean(1),
        ),
        Score(
            "return_last10",
            "return, last 10",
            LAST_10,
            format=".2f",
            tables=RUN + TASK,
            per_task=lambda e: metrics.last(e.returns).mean(1),
        ),
        Score(
            "return_completed",
            "return, completed episodes",
            "Return, completed episodes: the mean return of the completed episodes of a rollout.",
            per_task=lambda e: metrics.mean_of_known(e.completed, -1).mean(1),
        ),
        Score(
            "return_last",
            "return, last episode",
            "Return, last episode: that of the last completed episode of a rollout.",
            per_task=lambda e: metrics.last_completed(e.completed).mean(1),
        ),
        Score(
            "falls",
            "episodes that fall",
            "Episodes that fall: the share of completed episodes whose return is at most 95 % of "
            "that of the episode before.",
            **UNIT,
            per_task=lambda e: metrics.falls(e.completed).mean(1),
        ),
        Score(
            "share_of_optimum_last10",
            "share of optimum, last 10",
            SHARE,
            high=1,
            tables=RUN,
            per_task=lambda e: metrics.nauc(
                metrics.last(e.returns).mean(1, keepdims=True), e.facts.optimal_return
            ),
        ),
        Score(
            "normalized_return_last10",
            "between random and optimal",
            "Between random and optimal: 0 is the return of random actions, 1 the optimal return, "
            "over the last ten episodes.",
            high=1,
            per_task=lambda e: metrics.normalized(
                metrics.last(e.returns).mean(1), e.facts.random_return, e.facts.optimal_return
            ),
        ),
        Score(
            "optimal_return",
            "optimal return",
            "Optimal return: the return of the optimal policy.",
            format=".2f",
            tables=TASK,
        ),
        Score(
            "length_last10",
            "length, last 10",
            LAST_10,
            format=".1f",
            low=1,
            tables=TASK,
            per_task=lambda e: metrics.last(e.lengths).mean(1),
        ),
        Score(
            "optimal_length",
            "shortest length",
            "Shortest length: env steps of the shortest successful episode.",
            format=".1f",
            low=0,
            tables=TASK,
        ),
        Score(
            "path_ratio_last10",
            "path / shortest",
            "Path / shortest: mean length of the successful episodes among the last ten, divided "
            "by the shortest possible length.",
            format=".2f",
            low=1,
            tables=RUN + TASK,
            per_task=lambda e: metrics.path_ratio(e.lengths, e.successes, e.facts),
        ),
        Score(
            "episodes_to_80pct",
            "80 % at episode",
            "80 % at episode: the first episode at which the mean return of five episodes reaches "
            "80 % of the optimal return.",
            format=".0f",
            low=1,
            tables=RUN,
        ),
        Score(
            "tasks_solved",
            "tasks solved",
            "Tasks solved: tasks with a success of at least 0.8 over the last ten episodes.",
            format=".1f",
            low=0,
            tables=RUN,
        ),
        *(
            Score(
                f"found_by_{episode}",
                f"success by episode {episode}",
                SUCCESS_BY,
                **UNIT,
                tables=SEARCH,
                per_task=lambda e, episode=episode: metrics.success_by(e.p_success, episode),
            )
            for episode in FOUND_BY
        ),
        Score(
            "first_success",
            "first success, episode",
            "First success: the mean episode of the first success. A rollout without one counts "
            "as the last episode, so the mean is a lower bound.",
            format=".1f",
            low=1,
            tables=SEARCH,
            per_task=lambda e: metrics.first_success(e.p_success),
        ),
        Score(
            "success_seen",
            "success, reward in context",
            "Success, reward in context: of the episodes that began with a reward in the context.",
            **UNIT,
            tables=SEARCH,
            per_task=lambda e: metrics.success_seen(e.successes, e.reward_in_context),
        ),
        *(
            Score(
                f"success_fifth_{k}",
                f"success, fifth {k} of 5",
                "Success by fifths: the mean success of each fifth of the in-context episodes.",
                **UNIT,
            )
            for k in range(1, 6)
        ),
        *(
            Score(f"at_{episode}", f"share of optimum, episode {episode}", SHARE, high=1)
            for episode in CURVE_EPISODES
        ),
        Score("regret", "regret", REGRET, low=0, tables=CHANGE),
        Score("share_before_change", "before a change", AT_CHANGE, high=1, tables=CHANGE),
        Score("share_after_change", "after a change", AT_CHANGE, high=1, tables=CHANGE),
        Score("recovered", "recovered", RECOVERY, **UNIT, tables=CHANGE),
        Score(
            "recovery_episodes", "episodes to recover", RECOVERY, format=".1f", low=1, tables=CHANGE
        ),
        Score("train_nauc", "NAUC, train tasks", "The NAUC on train tasks.", high=1),
        Score("train_success_last10", "success, last 10, train tasks", LAST_10, **UNIT),
        Score("source_return", "return of the source, last 10", LAST_10, format=".2f"),
        Score("source_share", "share of optimum of the source", LAST_10, high=1),
        Score(
            "random_return", "return of random actions", "Random: uniform actions.", format=".2f"
        ),
        Score(
            "held_out_accuracy",
            "accuracy, held-out actors",
            "Accuracy: how often the most likely action is that of an actor outside the training.",
            **UNIT,
        ),
        Score("train_s", "training, s", "Seconds of training.", format=".0f", low=0),
    )
}


def columns(*tables: str) -> list[Score]:
    """Return the scores that are columns of one of the `tables` of a report, in their order."""
    return [score for score in SCORES.values() if set(tables) & set(score.tables)]


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval from `low` to `high`, over `n` independent values.

    The mean is None if no value is known; low and high are None where there is no interval, as with
    one value.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0

    def text(self, format: str) -> str:
        """Return "mean [low, high]", the mean alone without an interval, a dash without a mean."""
        if self.mean is None or self.low is None or self.high is None:
            return number(self.mean, format)
        return f"{self.mean:{format}} [{self.low:{format}}, {self.high:{format}}]"


@dataclass(frozen=True)
class Deviation:
    """A standard deviation over runs, pooled within groups, and its degrees of freedom."""

    value: float
    freedom: int

    def estimate(
        self, mean: float, *counts: int, low: float | None = None, high: float | None = None
    ) -> Estimate:
        """Return `mean` with its interval by Student's t, within `low` and `high`.

        counts: the number of runs of each mean in `mean`, two for the difference of two means. The
        standard error is value * sqrt(sum of 1 / count).
        """
        return _bounded(mean, self.half_width(*counts), counts[0], low, high)

    def half_width(self, *counts: int) -> float:
        """Return half the width of the 95 % interval of the `estimate` with these counts."""
        return float(stdtrit(self.freedom, 0.975)) * self._error(counts)

    def p_value(self, mean: float, *counts: int) -> float:
        """Return the two-sided p value of `mean` by Student's t, against 0."""
        error = self._error(counts)
        if error == 0:
            return float(mean == 0)
        return float(2 * stdtr(self.freedom, -abs(mean) / error))

    def _error(self, counts: Sequence[int]) -> float:
        return self.value * sum(1 / count for count in counts) ** 0.5


@dataclass(frozen=True)
class Comparison:
    """The mean score of a group minus that of its baseline, and the corrected p value.

    p and the interval of `difference` are None where the standard deviation is unknown.
    """

    difference: Estimate
    p: float | None = None

    @property
    def verdict(self) -> str | None:
        """Return BETTER, WORSE or NOT_SIGNIFICANT; None without a p value."""
        if self.p is None or self.difference.mean is None:
            return None
        if self.p >= LEVEL:
            return NOT_SIGNIFICANT
        return BETTER if self.difference.mean > 0 else WORSE

    def text(self, format: str = "+.3f") -> str:
        """Return the difference, its interval and its p value as text."""
        text = self.difference.text(format)
        if self.p is None:
            return text
        return f"{text}, p < 0.001" if self.p < 0.001 else f"{text}, p {self.p:.2g}"


def estimate(
    values: Sequence[float | None] | np.ndarray,
    splits: Sequence[Hashable] = (),
    low: float | None = None,
    high: float | None = None,
    least: int = 2,
) -> Estimate:
    """Return the mean of independent values; of `least` or more, its 95 % interval (Student's t).

    values: one for each run, None where it is unknown. splits: the name of the split of each run,
    or empty. Runs on one split share their tasks, so that the independent values are the means of
    the splits where there are several; `n` is their number. Means of splits that agree by chance do
    not make the interval narrower than that of the runs. It is cut at the bounds `low` and `high`
    of the score, but always contains the mean.
    """
    known = [k for k, value in enumerate(values) if value is not None]
    runs = scores = [float(value) for value in values if value is not None]
    if len(set(splits)) > 1:
        scores = list(split_means(runs, [splits[k] for k in known]).values())
    n = len(scores)
    if n < least:
        return Estimate(float(np.mean(scores)) if scores else None, n=n)
    spread = [(pool([own]), len(own)) for own in (scores, runs)]
    half = max(own.half_width(count) for own, count in spread if own is not None)
    return _bounded(float(np.mean(scores)), half, n, low, high)


def known_of(values: Sequence[float | None]) -> str:
    """Return " (2 of 3)" if some of the values of runs are unknown, but not all; else ""."""
    known = sum(value is not None for value in values)
    return f" ({known} of {len(values)})" if 0 < known < len(values) else ""


def split_means(values: Sequence[float], splits: Sequence[Label]) -> dict[Label, float]:
    """Return the mean of the values of each split, in the order of their first values."""
    members: dict[Label, list[float]] = {}
    for value, split in zip(values, splits, strict=True):
        members.setdefault(split, []).append(value)
    return {split: float(np.mean(own)) for split, own in members.items()}


def compare(
    groups: Mapping[Label, Sequence[float]],
    baseline: Label | Mapping[Label, Label] | None,
    pooled: Iterable[Sequence[float]] | None = None,
    least: int = 1,
) -> dict[Label, Comparison]:
    """Compare the scores of each group's runs with the scores of its baseline.

    groups: label -> one score for each run. baseline: the label of the baseline, or that of each
    group where they differ (a group that it does not name has none); None where the scores are
    differences already, as with paired runs, which are compared with 0.
    pooled: the groups whose standard deviation within a group all comparisons share: a few runs
    estimate the deviation of one group poorly, so that the luckiest group would look the most
    certain. None for the deviation of the two groups that are compared.

    The p values are corrected for all comparisons of the call (`holm`). A group without runs, or
    without a baseline that has runs, has no comparison. With fewer than `least` runs in it or its
    baseline there is neither an interval nor a p value.
    """
    shared, estimates, p_values = None if pooled is None else pool(pooled), {}, {}
    for label, own in groups.items():
        other = baseline.get(label) if isinstance(baseline, Mapping) else baseline
        base = [] if baseline is None else groups.get(other, [])
        if not len(own) or label == other or (baseline is not None and not len(base)):
            continue
        difference = float(np.mean(own) - (np.mean(base) if len(base) else 0))
        counts = [len(group) for group in (own, base) if len(group)]
        deviation = pool([own, base]) if pooled is None else shared
        estimates[label] = Estimate(difference, n=len(own))
        if deviation and min(counts) >= least:
            estimates[label] = deviation.estimate(difference, *counts)
            p_values[label] = deviation.p_value(difference, *counts)
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {label: Comparison(own, corrected.get(label)) for label, own in estimates.items()}


def pool(groups: Iterable[Sequence[float]]) -> Deviation | None:
    """Pool the standard deviation within `groups`, each the scores of one setting's runs.

    value^2 = sum over groups of (x - mean of the group)^2 / freedom, with freedom = sum of
    (runs - 1). None if no group has two runs.
    """
    several = [np.asarray(group, float) for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    if not freedom:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
    return Deviation((squares / freedom) ** 0.5, freedom)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct `p_values` [M] for M comparisons (Holm 1979), in their order.

    With p_(1) <= ... <= p_(M), the corrected p_(i) is the largest of min(1, (M - j + 1) p_(j)) over
    j <= i. The probability of any false rejection stays below the level, also where the
    comparisons depend on each other, as comparisons with one baseline do.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(np.minimum(steps, 1))
    return corrected.tolist()


def number(value: float | None, format: str) -> str:
    """Format `value`; a dash if it is None."""
    return UNKNOWN if value is None else f"{value:{format}}"


def _bounded(mean: float, half: float, n: int, low: float | None, high: float | None) -> Estimate:
    """Return the estimate mean ± half, cut at `low` and `high` where these are beyond the mean."""
    below, above = mean - half, mean + half
    if low is not None:
        below = max(below, min(low, mean))
    if high is not None:
        above = min(above, max(high, mean))
    return Estimate(mean, below, above, n)
