"""Learning curves of source agents, as a history stride shows them to a student.

With a history stride k, episode j of a strided history is one of the episodes jk, ..., jk + k - 1
of a stream, according to its phase. A curve is the mean over all phases and streams of an agent, so
it is what the student's windows show of that agent, without their noise. It ends with the last
strided episode that all streams and phases have.
"""

import math

import numpy as np

from ad.data.episodes import episodes, episodes_to, ratio
from ad.data.schema import TransitionChunk

RISEN = 0.9  # of the final return: there a rise is over
END = 0.1  # the last share of a curve, whose mean is "final"
SEEN = 100  # episodes at least, of which a mean return is believed: its error is below 0.05
KINDS = ("count", "return", "length", "success", "success_length")


class LearningCurves:
    """Takes in what K agents of E actors each play and keeps means over strided episodes.

    `steps`: how many every lane takes at most.
    """

    def __init__(self, num_agents: int, num_envs: int, steps: int, history_stride: int):
        self.shape, self.stride = (num_agents, num_envs), history_stride
        self.most = steps // history_stride + 1  # strided episodes of one step each
        self.sums = {name: np.zeros(num_agents * self.most) for name in KINDS}
        lanes = num_agents * num_envs
        self.played = np.zeros(lanes, np.int64)
        self.open = {"return": np.zeros(lanes), "length": np.zeros(lanes)}

    def add(self, block: TransitionChunk) -> None:
        """Count the episodes that end in a block [T, K, E], the next one in time."""
        fields = ("reward", "terminated", "truncated")
        lanes = len(self.played)
        reward, terminated, truncated = (
            block.arrays[name].reshape(len(block), lanes).T for name in fields
        )  # [K E, T]
        whole = episodes(terminated | truncated, reward)
        before = np.searchsorted(whole.stream, whole.stream)  # episodes of the lanes before
        place = np.arange(len(whole.stream)) - before
        values = {"return": whole.returns, "length": (whole.stop - whole.start).astype(float)}
        ended = np.bincount(whole.stream, minlength=lanes)
        totals = {"return": reward.sum(1, dtype=float), "length": float(len(block))}
        for name, value in values.items():
            rest = totals[name] - np.bincount(whole.stream, value, minlength=lanes)
            value += np.where(place == 0, self.open[name][whole.stream], 0)
            self.open[name] = rest + np.where(ended, 0, self.open[name])
        self._count(whole.stream, self.played[whole.stream] + place, **values)
        self.played += ended

    def curves(self) -> dict[str, np.ndarray]:
        """Means [K, J] of return, length, success and success_length (0 for a failure).

        NaN behind the end of an agent's curve; J is where the longest one ends.
        """
        sums = {
            name: total.reshape(len(self.played) // self.shape[1], -1)
            for name, total in self.sums.items()
        }
        whole = sums["count"] == self.shape[1] * self.stride
        length = max(int(whole.sum(1).max()), 1)
        return {
            name: np.where(whole, ratio(sums[name], sums["count"]), np.nan)[:, :length]
            for name in KINDS[1:]
        }

    def _count(self, lane: np.ndarray, number: np.ndarray, **values: np.ndarray) -> None:
        """Add episodes, each the `number`-th of its lane."""
        success = (values["return"] > 0).astype(float)
        values |= {"success": success, "success_length": success * values["length"]}
        place = lane // self.shape[1] * self.most + number // self.stride
        for name, total in self.sums.items():
            total += np.bincount(place, values.get(name), minlength=len(total))


def area(curve: dict[str, np.ndarray]) -> np.ndarray:
    """Area under each curve over environment steps, by their number: the mean return [K]."""
    return ratio(np.nansum(curve["return"] * curve["length"], 1), np.nansum(curve["length"], 1))


def final_mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last tenth of each curve: [K, J] -> [K]."""
    ends = np.isfinite(values).sum(1)
    return np.array(
        [
            row[end - max(int(END * end), 1) : end].mean() if end else np.nan
            for row, end in zip(values, ends, strict=True)
        ]
    )


def episodes_to_converge(returns: np.ndarray, episodes_each: int) -> np.ndarray:
    """The first strided episode, from 1, at which each curve [K, J] is at 0.9 of its final return.

    `episodes_each`: how many episodes a point of the curve is the
    mean of; where they are few, a trailing mean over more points is meant. NaN without a curve.
    """
    smoothing = math.ceil(SEEN / episodes_each)
    episode = [
        episodes_to(row[np.isfinite(row)], RISEN * end, smoothing)
        for row, end in zip(returns, final_mean(returns), strict=True)
    ]
    return np.array([np.nan if number is None else number for number in episode], float)


def steps_until(lengths: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Transitions in the first `episode` [K] strided episodes: lengths [K, J] -> [K]."""
    inside = np.arange(lengths.shape[1]) < episode[:, None]
    return np.where(np.isfinite(episode), np.nansum(np.where(inside, lengths, 0), 1), np.nan)
