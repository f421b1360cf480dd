"""Whole episodes in recorded transitions, and small statistics of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from envs.oracle import TaskOracle

SMOOTHING = 5  # episodes in the trailing mean of `episodes_to`


@dataclass
class Episodes:
    """M whole episodes, in the order of their actors and then of time: arrays [M]."""

    actor: np.ndarray
    start: np.ndarray  # the first transition
    stop: np.ndarray  # the transition after the last one
    returns: np.ndarray  # undiscounted


def episodes(done: np.ndarray, reward: np.ndarray) -> Episodes:
    """Return the whole episodes of `done` and `reward` [actors, T].

    An unfinished last episode is left out.
    """
    actor, last = np.nonzero(done)
    stop = last + 1
    is_first = np.r_[True, actor[1:] != actor[:-1]][: len(actor)]
    start = np.where(is_first, 0, np.r_[0, stop[:-1]][: len(stop)])
    total = np.pad(np.cumsum(reward, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    return Episodes(actor, start, stop, total[actor, stop] - total[actor, start])


def returns_of(history: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the returns [M] of the whole episodes of a history, arrays [actors, T] by field."""
    return episodes(history["terminated"] | history["truncated"], history["reward"]).returns


def nan_if_none(values: np.ndarray | None, shape: int | tuple[int, ...]) -> np.ndarray:
    """Return a fact of a world as float64, or NaN of `shape` for None, which means unknown."""
    return np.full(shape, np.nan) if values is None else np.asarray(values, np.float64)


def success_or_nan(world: TaskOracle, returns: np.ndarray) -> np.ndarray:
    """Return whether episodes with these `returns` are successes: 1, 0 or NaN for unknown."""
    return np.where(np.isnan(returns), np.nan, nan_if_none(world.success(returns), returns.shape))


def index_in_actor(actor: np.ndarray) -> np.ndarray:
    """Return the index of each episode within its actor; `actor` [M] is ascending."""
    return np.arange(len(actor)) - np.searchsorted(actor, actor)


def best_first(returns: np.ndarray, count: int) -> np.ndarray:
    """Return the places of `count` transitions of the episodes with the highest returns, in order.

    `returns` [N, L] are those of the episode of each transition; the result is int [N, count],
    ascending. Of equal episodes the newest come first, and of the last episode that has room its
    newest transitions.
    """
    newest_first = np.argsort(-returns[:, ::-1], axis=1, kind="stable")
    return np.sort(returns.shape[1] - 1 - newest_first[:, :count], axis=1)


def episodes_to(curve: np.ndarray, target: float, smoothing: int = SMOOTHING) -> int | None:
    """Return the first episode, from 1, at which the smoothed `curve` [E] is >= `target`.

    The curve is smoothed by a trailing mean over `smoothing` episodes. None if it never gets there,
    or if `target` is NaN.
    """
    padded = np.concatenate([np.zeros(1), np.cumsum(curve)])
    stop = np.arange(1, len(curve) + 1)
    start = np.maximum(stop - smoothing, 0)
    reached = (padded[stop] - padded[start]) / (stop - start) >= target - 1e-9
    return int(reached.argmax()) + 1 if reached.any() else None


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b as floats of their broadcast shape, NaN where b is 0."""
    a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)
