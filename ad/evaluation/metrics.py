"""Statistics of in-context episodes: pure functions of returns, lengths and successes [K, S, E].

K tasks, S evaluation seeds, E in-context episodes. A score is computed for each task first (over
its seeds), then averaged over tasks. NaN means unknown: the world has no optimal return or no
success, or the task was never solved. Such tasks are left out of that score's mean; the score is
None if all tasks are.

Intervals: the tasks of one run share one trained model, so `bootstrap` resamples tasks only, and
the `ci95_method` of `results.json` says so. `ad.evaluation.scores.estimate` treats runs (trained
models), or splits, as independent: quote that one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ad.data.episodes import SMOOTHING, episodes_to, ratio
from envs.rng import derive_key

LAST = 10  # number of episodes in "the last ten episodes"; all of them where there are fewer
SOLVED = 0.8  # a task counts as solved from this mean success over the last ten episodes
RECOVERED = 0.8  # share of the mean before a change from which on a rollout has recovered
FALL = 0.95  # an episode whose return is at most this share of that of the one before falls
RESAMPLES = 10_000


@dataclass(frozen=True)
class TaskFacts:
    """Facts about K tasks, float [K] each, NaN where the world does not have them.

    success_ends: whether success ends an episode, which makes its length that of the path.
    """

    optimal_return: np.ndarray
    random_return: np.ndarray
    shortest: np.ndarray  # steps of the shortest successful episode
    success_ends: bool


@dataclass(frozen=True)
class Episodes:
    """The episodes that scores are computed from, float [K, S, E] each, NaN for unknown.

    lengths: env steps. successes: 0, 1, or the probability of a success. p_success: [K, E], the
    probability that a rollout has had a success by the end of each episode. reward_in_context: 1 if
    a reward above 0 was in the context when the episode began, otherwise 0. completed: the returns
    of all completed episodes, [K, S, M], NaN behind the last one of a rollout.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray
    p_success: np.ndarray
    reward_in_context: np.ndarray
    completed: np.ndarray
    facts: TaskFacts


def nauc(returns: np.ndarray, optimal_return: np.ndarray) -> np.ndarray:
    """Normalized area under the in-context curve: mean over episodes of return / optimal return.

    returns [..., E], optimal_return [...] -> [...]; NaN where the optimal return is unknown or not
    above 0, since a share of it would mean nothing.
    """
    return ratio(np.mean(returns, -1), np.where(optimal_return > 0, optimal_return, np.nan))


def normalized(values: np.ndarray, random: np.ndarray, optimal: np.ndarray) -> np.ndarray:
    """(R - R_random) / (R_optimal - R_random): 0 for the random policy, 1 for the optimal one."""
    return ratio(values - random, optimal - random)


def last(values: np.ndarray) -> np.ndarray:
    """Mean over the last ten episodes: [..., E] -> [...]."""
    return np.mean(values[..., -LAST:], -1)


def mean_of_known(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Return the mean of the finite entries over `axis`, NaN where there are none."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis), known.sum(axis))


def last_completed(completed: np.ndarray) -> np.ndarray:
    """Return the return of the last completed episode: [..., M], NaN behind it -> [...]."""
    place = np.isfinite(completed).sum(-1, keepdims=True) - 1
    return np.take_along_axis(completed, place, -1)[..., 0]


def falls(completed: np.ndarray) -> np.ndarray:
    """Return the share of completed episodes whose return falls: [..., M] -> [...].

    It falls if it is at most FALL of the return of the episode before. The first episode counts,
    but cannot fall. A return of 0 after one of 0 falls. NaN where a return is below 0.
    """
    fallen = completed[..., 1:] <= FALL * completed[..., :-1]
    counted = np.isfinite(completed).sum(-1) * ~(completed < 0).any(-1)
    return ratio(fallen.sum(-1), counted)


def path_ratio(lengths: np.ndarray, successes: np.ndarray, facts: TaskFacts) -> np.ndarray:
    """Mean length of the successful episodes among the last ten / shortest length: [K].

    lengths (steps), successes (0/1/NaN) [K, S, E]. NaN for a task without a success among the last
    ten episodes, so read the ratio together with the success, and NaN where success does not end an
    episode, whose length then is not that of the path.
    """
    if not facts.success_ends:
        return np.full(len(lengths), np.nan)
    lengths, successes = lengths[..., -LAST:], successes[..., -LAST:]
    mean_length = ratio((lengths * successes).sum((1, 2)), successes.sum((1, 2)))
    return ratio(mean_length, facts.shortest)


def episodes_to_80pct(curve: np.ndarray, optimal_return: np.ndarray) -> int | None:
    """Return the first episode, from 1, whose smoothed mean return is 80 % of the mean optimum.

    curve [E], optimal_return [K]. None if there is none, or if the optimum is not above 0.
    """
    optimum = optimal_return.mean()
    return episodes_to(curve, 0.8 * optimum if optimum > 0 else np.nan)


def bootstrap(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval of the mean over tasks: scores [K, ...] -> (low, high) [...].

    Draws 10,000 resamples of the tasks, the same for every column. Equal scores, or a single task,
    give low = high.
    """
    num_tasks = len(scores)
    rng = np.random.default_rng(derive_key(0, "bootstrap over tasks"))
    weights = rng.multinomial(num_tasks, np.full(num_tasks, 1 / num_tasks), RESAMPLES)  # [R, K]
    columns = scores.reshape(num_tasks, -1)
    finite = np.isfinite(columns)
    means = ratio(weights @ np.where(finite, columns, 0.0), weights @ finite)  # [R, columns]
    quantiles = (partial(np.quantile, q=q) for q in (0.025, 0.975))
    interval = [_reduce_columns(quantile, means) for quantile in quantiles]
    bounds = [_reduce_columns(reduce, columns) for reduce in (np.min, np.max)]
    low, high = np.clip(interval, *bounds)  # rounding must not leave the range of the scores
    return low.reshape(scores.shape[1:]), high.reshape(scores.shape[1:])


def first_success(p_success: np.ndarray) -> np.ndarray:
    """Return the mean number of the first successful episode, from 1: [K, E] -> [K].

    A rollout without a success counts as E, the last episode, so the mean is a lower bound. NaN
    where successes are unknown.
    """
    return 1 + (1 - p_success[:, :-1]).sum(1) + 0 * p_success[:, -1]


def success_by(p_success: np.ndarray, episode: int) -> np.ndarray:
    """Return the probability of a success by the end of `episode`, from 1: [K, E] -> [K].

    NaN where there are fewer episodes.
    """
    known = episode <= p_success.shape[1]
    return p_success[:, episode - 1] if known else np.full(len(p_success), np.nan)


def success_seen(successes: np.ndarray, reward_in_context: np.ndarray) -> np.ndarray:
    """Compute the success of episodes that begin with a reward in the context, float [K].

    successes (0/1/NaN) and reward_in_context (0/1) are [K, S, E]. NaN for a task without such an
    episode.
    """
    hits = (successes * reward_in_context).sum((1, 2))
    return ratio(hits, reward_in_context.sum((1, 2)))


def regret(returns: np.ndarray, optimal_return: np.ndarray) -> np.ndarray:
    """Return the mean of optimal return - return, both [K, S, E] and of the present task: [K]."""
    return (optimal_return - returns).mean((1, 2))


def at_changes(shares: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
    """Return means over the changes of each task's rollouts, float [K] each, NaN without any.

    shares: return / optimal return, [K, S, E]. present: an index of the task of each episode,
    [K, S, E], which changes where it differs from the one before. By name: `share_before_change`
    and `share_after_change`, over up to SMOOTHING episodes on either side, and of the changes with
    a share above 0 before and SMOOTHING episodes or more behind, `recovered`, how many reach
    RECOVERED of that share again before the next change, as the mean over SMOOTHING episodes, and
    `recovery_episodes`, after how many. One that does not counts all episodes that there were, so
    that their mean is then a lower bound.
    """
    names = ("share_before_change", "share_after_change", "recovered", "recovery_episodes")
    means = []
    for own_shares, own_present in zip(shares, present, strict=True):
        changes = [
            _change(own, *ends)
            for own, tasks in zip(own_shares, own_present, strict=True)
            for ends in zip(*(first_episodes(tasks)[n:] for n in range(3)), strict=False)
        ]
        means.append(mean_of_known(np.array(changes).reshape(-1, len(names)), 0))
    return dict(zip(names, np.array(means).T, strict=True))


def first_episodes(present: np.ndarray) -> list[int]:
    """Return the episodes at which each task of `present` [E] begins, and E at the end."""
    return [0, *np.flatnonzero(np.diff(present)) + 1, len(present)]


def _change(shares: np.ndarray, start: int, change: int, stop: int) -> tuple[float, ...]:
    """Return the numbers of `at_changes` for the change at episode `change` of `shares` [E]."""
    before, after = shares[max(start, change - SMOOTHING) : change].mean(), shares[change:stop]
    means = before, after[:SMOOTHING].mean()
    if not before > 0 or len(after) < SMOOTHING:
        return *means, np.nan, np.nan
    for episodes in range(SMOOTHING, len(after) + 1):
        if after[episodes - SMOOTHING : episodes].mean() >= RECOVERED * before - 1e-9:
            return *means, 1.0, float(episodes)
    return *means, 0.0, float(len(after))


def json_number(value: float) -> float | None:
    """Return `value` as JSON has it: a Python float, or None for NaN."""
    return None if np.isnan(value) else float(value)


def solved(success: np.ndarray) -> int | None:
    """Return the number of tasks with a `success` [K] of at least SOLVED; None if unknown."""
    return None if np.isnan(success).all() else int((success >= SOLVED - 1e-9).sum())


def mean(score: np.ndarray) -> float:
    """Return the mean of the finite entries of `score` [K]; NaN if there are none."""
    finite = score[np.isfinite(score)]
    return finite.mean() if len(finite) else np.nan


def _reduce_columns(reduce: Callable, table: np.ndarray) -> np.ndarray:
    """Reduce the finite entries of each column, [R, C] -> [C]; NaN where a column has none."""
    columns = (column[np.isfinite(column)] for column in table.T)
    return np.array([reduce(column) if len(column) else np.nan for column in columns])
