"""Scores of in-context learning: pure functions of returns, lengths and successes [K, S, E].

K tasks, S evaluation seeds, E in-context episodes. A score is computed for each task first (over
its seeds), then averaged over tasks. NaN means unknown: the world cannot tell its optimal return or
its successes, or the task was never solved. Such tasks are left out of that score's mean; the score
is None if all tasks are.

Intervals: the tasks of one run share one trained model, so `summarize` resamples tasks only, and
its `ci95_method` says so. `across_runs` treats runs (trained models), or splits, as independent:
quote that one.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import stdtrit

from ad.data.episodes import episodes_to, ratio
from ad.evaluation.comparisons import group_means
from envs.oracle import Reference
from envs.rng import derive_key

LAST = 10  # number of episodes in "the last ten episodes"; all of them where there are fewer
SOLVED = 0.8  # a task counts as solved from this mean success over the last ten episodes
RESAMPLES = 10_000
SCORES = (
    "nauc",
    "success_last10",
    "return_last10",
    "share_of_optimum_last10",
    "normalized_return_last10",
    "length_last10",
    "path_ratio_last10",
)
FOUND_BY = (1, 5, 10, 25)  # episodes by whose end a rollout has had its first success or not
SEARCH_SCORES = (*(f"found_by_{episode}" for episode in FOUND_BY), "first_success")


@dataclass(frozen=True)
class TaskFacts:
    """Properties of K tasks that a world can tell, float [K] each, NaN where it cannot.

    success_ends: whether success ends an episode, which makes its length that of the path.
    """

    optimal_return: np.ndarray
    random_return: np.ndarray
    shortest: np.ndarray  # steps of the shortest successful episode
    success_ends: bool


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


def path_ratio(lengths: np.ndarray, successes: np.ndarray, shortest: np.ndarray) -> np.ndarray:
    """Mean length of the successful episodes among the last ten / shortest length: [K].

    lengths (steps), successes (0/1/NaN) [K, S, E]; shortest (steps) [K]. NaN for a task without a
    success among the last ten episodes, so read the ratio together with the success. The length of
    an episode is that of its path only where success ends the episode.
    """
    lengths, successes = lengths[..., -LAST:], successes[..., -LAST:]
    mean_length = ratio((lengths * successes).sum((1, 2)), successes.sum((1, 2)))
    return ratio(mean_length, shortest)


def episodes_to_80pct(curve: np.ndarray, optimal_return: np.ndarray) -> int | None:
    """Return the first episode, from 1, whose smoothed mean return is 80 % of the mean optimum.

    curve [E], optimal_return [K]. None if there is none, or if the optimum is not above 0.
    """
    optimum = optimal_return.mean()
    return episodes_to(curve, 0.8 * optimum if optimum > 0 else np.nan)


def bootstrap(scores: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval of the mean over tasks: scores [K, ...] -> (low, high) [...].

    Draws 10,000 resamples of the tasks, the same for every column. Equal scores, or a single task,
    give low = high.
    """
    num_tasks = len(scores)
    rng = np.random.default_rng(derive_key(seed, "bootstrap over tasks"))
    weights = rng.multinomial(num_tasks, np.full(num_tasks, 1 / num_tasks), RESAMPLES)  # [R, K]
    columns = scores.reshape(num_tasks, -1)
    finite = np.isfinite(columns)
    means = ratio(weights @ np.where(finite, columns, 0.0), weights @ finite)  # [R, columns]
    quantiles = (partial(np.quantile, q=q) for q in (0.025, 0.975))
    interval = [_reduce_columns(quantile, means) for quantile in quantiles]
    bounds = [_reduce_columns(reduce, columns) for reduce in (np.min, np.max)]
    low, high = np.clip(interval, *bounds)  # rounding must not leave the range of the scores
    return low.reshape(scores.shape[1:]), high.reshape(scores.shape[1:])


def task_scores(
    returns: np.ndarray, lengths: np.ndarray, successes: np.ndarray, facts: TaskFacts
) -> dict[str, np.ndarray]:
    """Compute the scores named in SCORES, float [K] each; the other arguments are [K, S, E]."""
    return_last10 = last(returns).mean(1)
    paths = path_ratio(lengths, successes, facts.shortest)
    normalized_last10 = normalized(return_last10, facts.random_return, facts.optimal_return)
    return {
        "nauc": nauc(returns.mean(1), facts.optimal_return),
        "success_last10": last(successes).mean(1),
        "return_last10": return_last10,
        "share_of_optimum_last10": nauc(return_last10[:, None], facts.optimal_return),
        "normalized_return_last10": normalized_last10,
        "length_last10": last(lengths).mean(1),
        "path_ratio_last10": paths if facts.success_ends else np.full(len(paths), np.nan),
    }


def search_scores(found: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the scores named in SEARCH_SCORES, float [K] each: how soon a task is first solved.

    found [K, E]: the probability that a rollout has had a success by the end of each episode.

    `found_by_<e>` is that probability at episode e, NaN where there are fewer episodes.
    `first_success` is the mean of the first successful episode, from 1; a rollout without a success
    counts as E, the last episode, so the mean is a lower bound.
    """
    episodes = found.shape[1]
    unknown = np.full(len(found), np.nan)
    shares = [found[:, e - 1] if e <= episodes else unknown for e in FOUND_BY]
    first = 1 + (1 - found[:, :-1]).sum(1) + 0 * found[:, -1]  # NaN where it is unknown
    return dict(zip(SEARCH_SCORES, (*shares, first), strict=True))


def success_seen(successes: np.ndarray, reward_in_context: np.ndarray) -> np.ndarray:
    """Compute the success of episodes that begin with a reward in the context, float [K].

    successes (0/1/NaN) and reward_in_context (0/1) are [K, S, E]. NaN for a task without such an
    episode.
    """
    hits = (successes * reward_in_context).sum((1, 2))
    return ratio(hits, reward_in_context.sum((1, 2)))


def summarize(
    returns: np.ndarray,
    lengths: np.ndarray,
    successes: np.ndarray,
    facts: TaskFacts,
    tasks: Sequence[str],
    reward_in_context: np.ndarray,
) -> dict:
    """Return a split's entry in `results.json`: means over tasks, 95 % intervals, `per_task`.

    returns, lengths (steps), successes (0/1/NaN) and reward_in_context (0/1) are [K, S, E]; `tasks`
    are the names of the K tasks.
    """
    scores = task_scores(returns, lengths, successes, facts)
    scores |= search_scores(np.maximum.accumulate(successes, axis=2).mean(1))
    scores["success_seen"] = success_seen(successes, reward_in_context)
    columns = {"optimal_return": facts.optimal_return, "optimal_length": facts.shortest}
    curve = returns.mean((0, 1))
    return {
        **{name: json_number(_mean(score)) for name, score in scores.items()},
        **{name: json_number(column.mean()) for name, column in columns.items()},
        "return_first10": json_number(curve[:LAST].mean()),
        "episodes_to_80pct": episodes_to_80pct(curve, facts.optimal_return),
        "tasks_solved": _solved(scores["success_last10"]),
        "num_tasks": len(tasks),
        "num_seeds": returns.shape[1],
        "num_episodes": returns.shape[2],
        "ci95": _intervals(scores),
        "ci95_method": _interval_method(len(tasks)),
        "per_task": [
            {"task": name, **{key: json_number(v[k]) for key, v in (scores | columns).items()}}
            for k, name in enumerate(tasks)
        ],
    }


def summarize_reference(reference: Reference, optimal_return: np.ndarray) -> dict:
    """Return a reference's entry in `results.json`; optimal_return is [K]."""
    returns, successes = reference.returns, reference.successes
    found = np.full_like(returns, np.nan) if reference.found is None else reference.found
    return {
        "nauc": json_number(_mean(nauc(returns, optimal_return))),
        "success_last10": json_number(_mean(last(successes))),
        "return_last10": json_number(_mean(last(returns))),
        "share_of_optimum_last10": json_number(_mean(nauc(last(returns)[:, None], optimal_return))),
        "episodes_to_80pct": episodes_to_80pct(returns.mean(0), optimal_return),
        "num_episodes": returns.shape[1],
        **{name: json_number(_mean(score)) for name, score in search_scores(found).items()},
    }


def across_runs(summaries: Sequence[dict], splits: Sequence[Hashable] = ()) -> dict[str, dict]:
    """Mean and 95 % interval of each score over runs (trained models): name -> `over_splits`.

    summaries: the entry of one split in `results.json` of each run. splits: what names the split of
    each run. Where there are several, the interval is for a new split, since the runs of a split
    share their tasks.
    """
    names = [*SCORES, "episodes_to_80pct", "tasks_solved"]
    return {name: over_splits([s[name] for s in summaries], splits) for name in names}


def over_splits(values: Sequence[float | None], splits: Sequence[Hashable]) -> dict:
    """Mean of a score of several runs and its 95 % interval, as `t_interval` returns them.

    values: one for each run, None where it is unknown; splits: what names the split of each run, or
    empty. The independent values are the means of the splits where there are several, otherwise the
    runs; n is their number.
    """
    known = [k for k, value in enumerate(values) if value is not None]
    scores = [values[k] for k in known]
    if len(set(splits)) < 2:
        return t_interval(scores)
    means = group_means(scores, [splits[k] for k in known])
    over = t_interval(list(means.values()))
    if over["n"] < 2:
        return over
    return over | {"method": f"t-interval over the means of {len(means)} splits"}


def t_interval(values: list[float]) -> dict:
    """Mean and 95 % interval by Student's t of independent values: mean, lo, hi, n, method.

    With a single value, lo and hi are None; with none, the mean is None too.
    """
    n = len(values)
    mean = float(np.mean(values)) if n else None
    if n < 2:
        return {"mean": mean, "lo": None, "hi": None, "n": n, "method": "one run" if n else "none"}
    half = stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n)
    method = f"t-interval over {n} runs"
    return {"mean": mean, "lo": mean - half, "hi": mean + half, "n": n, "method": method}


def json_number(value: float) -> float | None:
    """Return `value` as JSON has it: a Python float, or None for NaN."""
    return None if np.isnan(value) else float(value)


def _intervals(scores: dict[str, np.ndarray]) -> dict[str, list[float] | None]:
    low, high = bootstrap(np.stack(list(scores.values()), axis=1))
    bounds = zip(scores, low.tolist(), high.tolist(), strict=True)
    return {name: None if np.isnan(a) else [a, b] for name, a, b in bounds}


def _interval_method(num_tasks: int) -> str:
    if num_tasks == 1:
        return "one task: no interval, low = high"
    return (
        f"percentile bootstrap over {num_tasks} tasks of one trained model, {RESAMPLES:,} resamples"
        " (low = high where all tasks score the same)"
    )


def _solved(success: np.ndarray) -> int | None:
    """Return the number of tasks solved, from their success [K]; None if none is known."""
    return None if np.isnan(success).all() else int((success >= SOLVED - 1e-9).sum())


def _mean(score: np.ndarray) -> float:
    finite = score[np.isfinite(score)]
    return finite.mean() if len(finite) else np.nan


def _reduce_columns(reduce: Callable, table: np.ndarray) -> np.ndarray:
    """Reduce the finite entries of each column, [R, C] -> [C]; NaN where a column has none."""
    columns = (column[np.isfinite(column)] for column in table.T)
    return np.array([reduce(column) if len(column) else np.nan for column in columns])
