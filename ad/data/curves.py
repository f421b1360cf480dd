"""Learning curves of source agents over strided episodes, as training windows show them.

With a history stride k, strided episode j is one of the episodes jk, ..., jk + k - 1 of an actor:
which one depends on the phase (`ad.data.sampler`). A point j of a curve is the mean over all phases
and actors of an agent. The curve ends with the last strided episode that all of them have.
"""

import math

import numpy as np

from ad.data.episodes import episodes, episodes_to, index_in_actor, ratio, success_or_nan
from ad.data.schema import TransitionChunk
from envs.oracle import TaskOracle

CONVERGED = 0.9  # fraction of the final return
FINAL = 0.1  # fraction of a curve, at its end, whose mean is the final value
MIN_EPISODES = 100  # in a mean return whose standard error is below 0.05
COLUMNS = ("count", "return", "length", "success", "success_length")


class LearningCurves:
    """Sums over the strided episodes of K agents with N actors each, for their learning curves.

    `world` says which episodes are successes. `steps` is the largest number of transitions of an
    actor.
    """

    def __init__(
        self, world: TaskOracle, num_agents: int, num_envs: int, steps: int, history_stride: int
    ):
        self.world, self.shape, self.stride = world, (num_agents, num_envs), history_stride
        self.max_episodes = steps // history_stride + 1  # if each has one step
        self.sums = {name: np.zeros(num_agents * self.max_episodes) for name in COLUMNS}
        num_actors = num_agents * num_envs
        self.num_played = np.zeros(num_actors, np.int64)
        self.unfinished = {"return": np.zeros(num_actors), "length": np.zeros(num_actors)}

    def add(self, chunk: TransitionChunk) -> None:
        """Count the episodes that end in `chunk` [T, K, N], which follows the last one in time."""
        fields = ("reward", "terminated", "truncated")
        num_actors = len(self.num_played)
        reward, terminated, truncated = (
            chunk.arrays[name].reshape(len(chunk), num_actors).T for name in fields
        )  # [K N, T]
        whole = episodes(terminated | truncated, reward)
        number = index_in_actor(whole.actor)  # within this chunk
        values = {"return": whole.returns, "length": (whole.stop - whole.start).astype(float)}
        ended = np.bincount(whole.actor, minlength=num_actors)
        totals = {"return": reward.sum(1, dtype=float), "length": float(len(chunk))}
        for name, value in values.items():
            rest = totals[name] - np.bincount(whole.actor, value, minlength=num_actors)
            value += np.where(number == 0, self.unfinished[name][whole.actor], 0)
            self.unfinished[name] = rest + np.where(ended, 0, self.unfinished[name])
        self._count(whole.actor, self.num_played[whole.actor] + number, **values)
        self.num_played += ended

    def curves(self) -> dict[str, np.ndarray]:
        """Return means [K, J] of return, length, success and success_length (0 for a failure).

        Success and success_length are NaN if the world cannot tell.
        J is the length of the longest curve; the shorter ones end in NaN.
        """
        sums = {
            name: total.reshape(len(self.num_played) // self.shape[1], -1)
            for name, total in self.sums.items()
        }
        whole = sums["count"] == self.shape[1] * self.stride
        length = max(int(whole.sum(1).max()), 1)
        return {
            name: np.where(whole, ratio(sums[name], sums["count"]), np.nan)[:, :length]
            for name in COLUMNS[1:]
        }

    def _count(self, actor: np.ndarray, number: np.ndarray, **values: np.ndarray) -> None:
        """Add episodes to the sums; `number` counts the episodes of an actor."""
        success = success_or_nan(self.world, values["return"])
        values |= {"success": success, "success_length": success * values["length"]}
        index = actor // self.shape[1] * self.max_episodes + number // self.stride
        for name, total in self.sums.items():
            total += np.bincount(index, values.get(name), minlength=len(total))


def area(curve: dict[str, np.ndarray]) -> np.ndarray:
    """Return the mean return [K] of each curve, weighted by the env steps of its episodes."""
    return ratio(np.nansum(curve["return"] * curve["length"], 1), np.nansum(curve["length"], 1))


def final_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last tenth of each curve: [K, J] -> [K]; NaN for an empty one."""
    ends = np.isfinite(values).sum(1)
    return np.array(
        [
            row[end - max(int(FINAL * end), 1) : end].mean() if end else np.nan
            for row, end in zip(values, ends, strict=True)
        ]
    )


def episodes_to_converge(returns: np.ndarray, episodes_each: int) -> np.ndarray:
    """Return the first strided episode, from 1, at 0.9 of a curve's final return: [K, J] -> [K].

    `episodes_each` is the number of episodes in the mean of a point. Where it is small, a trailing
    mean over several points is compared. NaN for an empty curve.
    """
    smoothing = math.ceil(MIN_EPISODES / episodes_each)
    episode = [
        episodes_to(row[np.isfinite(row)], CONVERGED * end, smoothing)
        for row, end in zip(returns, final_mean(returns), strict=True)
    ]
    return np.array([np.nan if number is None else number for number in episode], float)


def steps_until(lengths: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Return the transitions in the first `episode` [K] strided episodes: lengths [K, J] -> [K]."""
    inside = np.arange(lengths.shape[1]) < episode[:, None]
    return np.where(np.isfinite(episode), np.nansum(np.where(inside, lengths, 0), 1), np.nan)
