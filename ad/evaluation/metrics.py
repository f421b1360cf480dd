"""Scores of in-context learning: pure functions of returns, lengths and successes [N, S, E].

N tasks, S evaluation seeds, E in-context episodes. A score is taken per task first (over its
seeds), then averaged over tasks. NaN stands for "unknown" (a world that cannot tell its optimum, a
task that was never solved): such tasks are left out of that score's mean, and a score without any
is None.

Intervals. The tasks of one run share one trained model, so `summarize` resamples tasks only, and
says so; `across_runs` treats runs (trained models) as the independent units: quote that one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ad.data.episodes import episodes_to, ratio
from envs.rng import derive_key

LAST = 10  # "the last ten episodes"; all of them where there are fewer
SOLVED = 0.8  # success over the last ten from which a task counts as solved
RESAMPLES = 10_000
SCORES = (
    "nauc",
    "success_last10",
    "return_last10",
    "normalized_return_last10",
    "length_last10",
    "path_ratio_last10",
)
CONTEXT_SCORES = ("success_seen", "success_unseen", "success_unseen_last10", "unseen")


@dataclass(frozen=True)
class TaskFacts:
    """What a world knows of N tasks, float [N] each, NaN where it does not.

    success_ends: whether an episode ends on success, so that its length is that of its path.
    """

    optimal_return: np.ndarray
    random_return: np.ndarray
    shortest: np.ndarray  # steps
    success_ends: bool


def nauc(returns: np.ndarray, optimal_return: np.ndarray) -> np.ndarray:
    """Normalised area under the in-context curve: mean over episodes of return / optimal return.

    returns [..., E], optimal_return [...] -> [...]; NaN where the optimum is 0 or unknown.
    """
    return ratio(np.mean(returns, -1), optimal_return)


def normalized(values: np.ndarray, random: np.ndarray, optimal: np.ndarray) -> np.ndarray:
    """0 for the random policy, 1 for the optimal one: (R - R_random) / (R_optimal - R_random)."""
    return ratio(values - random, optimal - random)


def last(values: np.ndarray) -> np.ndarray:
    """Mean over the last ten episodes: [..., E] -> [...]."""
    return np.mean(values[..., -LAST:], -1)


def path_ratio(lengths: np.ndarray, successes: np.ndarray, shortest: np.ndarray) -> np.ndarray:
    """Mean length of the successful ones among the last ten episodes over the shortest: [N].

    lengths, successes [N, S, E] in steps and 0/1, shortest [N]. Only where success ends the episode
    is its length that of the path. NaN for a task without a success: read it beside the success.
    """
    lengths, successes = lengths[..., -LAST:], successes[..., -LAST:]
    mean_length = ratio((lengths * successes).sum((1, 2)), successes.sum((1, 2)))
    return ratio(mean_length, shortest)


def bootstrap(scores: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval of the mean over tasks: scores [N, ...] -> (low, high) [...].

    Tasks are resampled 10,000 times, the same ones for every column. Equal scores, or a single
    task, give an interval of no width.
    """
    num_tasks = len(scores)
    rng = np.random.default_rng(derive_key(seed, "bootstrap over tasks"))
    weights = rng.multinomial(num_tasks, np.full(num_tasks, 1 / num_tasks), RESAMPLES)  # [R, N]
    columns = scores.reshape(num_tasks, -1)
    known = np.isfinite(columns)
    means = ratio(weights @ np.where(known, columns, 0.0), weights @ known)  # [R, columns]
    interval = [_columns(lambda x, q=q: np.quantile(x, q), means) for q in (0.025, 0.975)]
    bounds = [_columns(reduce, columns) for reduce in (np.min, np.max)]  # rounding stays inside
    low, high = np.clip(interval, *bounds)
    return low.reshape(scores.shape[1:]), high.reshape(scores.shape[1:])


def task_scores(
    returns: np.ndarray, lengths: np.ndarray, successes: np.ndarray, facts: TaskFacts
) -> dict[str, np.ndarray]:
    """The scores of `SCORES` for each task, float [N] each; the arguments are [N, S, E]."""
    return_last10 = last(returns).mean(1)
    paths = path_ratio(lengths, successes, facts.shortest)
    normalized_last10 = normalized(return_last10, facts.random_return, facts.optimal_return)
    return {
        "nauc": nauc(returns.mean(1), facts.optimal_return),
        "success_last10": last(successes).mean(1),
        "return_last10": return_last10,
        "normalized_return_last10": normalized_last10,
        "length_last10": last(lengths).mean(1),
        "path_ratio_last10": paths if facts.success_ends else np.full(len(paths), np.nan),
    }


def context_scores(successes: np.ndarray, reward_in_context: np.ndarray) -> dict[str, np.ndarray]:
    """Success by what the context held when an episode began, float [N] each, of [N, S, E].

    What a student does with a reward in its context shows how it exploits, what it does without one
    how it explores; `unseen` is the share of episodes without. NaN where a task has no such.
    """
    without = 1 - reward_in_context

    def success(among: np.ndarray, part: slice = slice(None)) -> np.ndarray:
        hits = (successes * among)[..., part].sum((1, 2))
        return ratio(hits, among[..., part].sum((1, 2)))

    scores = success(reward_in_context), success(without), success(without, slice(-LAST, None))
    return dict(zip(CONTEXT_SCORES, (*scores, without.mean((1, 2))), strict=True))


def summarize(
    returns: np.ndarray,
    lengths: np.ndarray,
    successes: np.ndarray,
    facts: TaskFacts,
    tasks: Sequence[str],
    reward_in_context: np.ndarray,
) -> dict:
    """A split's entry in `results.json`: means over tasks, 95 % intervals, and a row per task.

    returns, lengths (steps), successes (0/1) and reward_in_context (0/1) [N, S, E]; `facts` and
    the names `tasks` of N tasks.
    """
    scores = task_scores(returns, lengths, successes, facts)
    scores |= context_scores(successes, reward_in_context)
    columns = {"optimal_return": facts.optimal_return, "optimal_length": facts.shortest}
    curve = returns.mean((0, 1))
    return {
        **{name: json_number(_mean(score)) for name, score in scores.items()},
        **{name: json_number(column.mean()) for name, column in columns.items()},
        "return_first10": json_number(curve[:LAST].mean()),
        "episodes_to_80pct": episodes_to(curve, 0.8 * facts.optimal_return.mean()),
        "tasks_solved": int((scores["success_last10"] >= SOLVED - 1e-9).sum()),
        "num_tasks": len(tasks),
        "num_seeds": returns.shape[1],
        "num_episodes": returns.shape[2],
        "ci95": _intervals(scores),
        "ci95_method": _method(len(tasks)),
        "per_task": [
            {"task": name, **{key: json_number(row[n]) for key, row in (scores | columns).items()}}
            for n, name in enumerate(tasks)
        ],
    }


def summarize_reference(
    returns: np.ndarray, successes: np.ndarray, optimal_return: np.ndarray
) -> dict:
    """A reference's entry in `results.json`, from expected returns and successes [K, E]."""
    return {
        "nauc": json_number(_mean(nauc(returns, optimal_return))),
        "success_last10": json_number(last(successes).mean()),
        "return_last10": json_number(last(returns).mean()),
        "episodes_to_80pct": episodes_to(returns.mean(0), 0.8 * optimal_return.mean()),
        "num_episodes": returns.shape[1],
    }


def across_runs(summaries: Sequence[dict]) -> dict[str, dict]:
    """Mean and 95 % t-interval over runs (trained models) of each score: name -> mean, lo, hi, n.

    summaries: the same split's entry of `results.json` of each run. A run without the score is not
    counted in n; with a single one there is no interval (lo and hi None) and `method` says so.
    """
    names = [*SCORES, *CONTEXT_SCORES, "episodes_to_80pct", "tasks_solved"]
    values = {name: [summary[name] for summary in summaries] for name in names}
    return {name: t_interval([v for v in row if v is not None]) for name, row in values.items()}


def t_interval(values: list[float]) -> dict:
    """Mean and 95 % t-interval of one score of independent runs, as in `across_runs`."""
    n = len(values)
    mean = float(np.mean(values)) if n else None
    if n < 2:
        return {"mean": mean, "lo": None, "hi": None, "n": n, "method": "one run" if n else "none"}
    half = stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n)
    method = f"t-interval over {n} runs"
    return {"mean": mean, "lo": mean - half, "hi": mean + half, "n": n, "method": method}


def welch_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float] | None:
    """Mean of `a` less that of `b`, with its 95 % interval (Welch 1947): (difference, low, high).

    a, b: a score of independent runs. None where one of them has fewer than two.
    """
    if min(len(a), len(b)) < 2:
        return None
    mean, (u, v) = np.mean(a) - np.mean(b), (np.var(x, ddof=1) / len(x) for x in (a, b))
    if u + v == 0:
        return float(mean), float(mean), float(mean)
    freedom = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
    half = stdtrit(freedom, 0.975) * np.sqrt(u + v)
    return float(mean), float(mean - half), float(mean + half)


def json_number(value: float) -> float | None:
    """A number for JSON: a Python float, None for NaN."""
    return None if np.isnan(value) else float(value)


def _intervals(scores: dict[str, np.ndarray]) -> dict[str, list[float] | None]:
    low, high = bootstrap(np.stack(list(scores.values()), axis=1))
    bounds = zip(scores, low.tolist(), high.tolist(), strict=True)
    return {name: None if np.isnan(a) else [a, b] for name, a, b in bounds}


def _method(num_tasks: int) -> str:
    if num_tasks == 1:
        return "one task: no interval, low = high"
    return (
        f"percentile bootstrap over {num_tasks} tasks of one trained model, {RESAMPLES:,} resamples"
        " (low = high where all tasks score the same)"
    )


def _mean(score: np.ndarray) -> float:
    known = score[np.isfinite(score)]
    return known.mean() if len(known) else np.nan


def _columns(reduce, table: np.ndarray) -> np.ndarray:
    """`reduce` over the known entries of each column, [R, C] -> [C]; NaN where there is none."""
    columns = (column[np.isfinite(column)] for column in table.T)
    return np.array([reduce(column) if len(column) else np.nan for column in columns])
