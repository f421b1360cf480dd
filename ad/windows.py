"""Training windows from histories: every k-th episode, whole, never across two streams.

With a history stride k a stream is read as k sequences (phases): phase p is its episodes p, p + k,
p + 2k, … end to end, so that learning goes k times faster in it and every episode is still used. A
window is `context_length` consecutive decisions of one sequence.
"""

from collections.abc import Iterable

import numpy as np

from ad.errors import ConfigError
from ad.histories import episodes
from ad.transitions import PROBABILITIES

KEPT = ("observation", "action", "reward", "next_observation", "time")


class HistoryWindows:
    """Sequences of many histories in flat arrays, from which windows are drawn.

    `histories`: [streams, T] arrays by field, one a task; probabilities, uint8 [streams, T, A], may
    be among them and are then in the windows too, [B, T + 1, A]. `history_part`: the share (start,
    stop) of each stream to use, in whole episodes. `rewards`: the reward values, ascending; rewards
    are kept as indices. `none`: for each field the index that stands for "before the history
    began".
    """

    def __init__(
        self,
        histories: Iterable[dict[str, np.ndarray]],
        context_length: int,
        history_stride: int,
        rewards: np.ndarray,
        none: dict[str, int],
        history_part: tuple[float, float] = (0.0, 1.0),
    ):
        self.context_length, self.none = context_length, none
        parts, lengths = [], []
        for history in histories:
            chosen, sequence_lengths = strided_order(history, history_stride, history_part)
            names = [name for name in (*KEPT, PROBABILITIES) if name in history]
            parts.append({name: _flat(history[name])[chosen] for name in names})
            parts[-1]["reward"] = np.searchsorted(rewards, parts[-1]["reward"]).astype(np.uint8)
            lengths.append(sequence_lengths)
        if not sum(map(len, lengths)):
            raise ConfigError("this part of the histories holds no whole episode to train on")
        self.data = {name: np.concatenate([part[name] for part in parts]) for name in names}
        self.lengths = np.concatenate(lengths)
        self.starts = np.cumsum(self.lengths) - self.lengths
        # A sequence shorter than a window still gives one, padded.
        self.choices = np.cumsum(np.maximum(self.lengths - context_length + 1, 1))

    def __len__(self) -> int:
        """Transitions held."""
        return len(self.data["action"])

    def sample(
        self, rng: np.random.Generator, count: int, from_start: float = 0.0
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """`count` windows: int64 [count, T + 1] by field (see `ad.tokens`); valid bool [count, T].

        All places are equally likely, but for a share `from_start` of windows, which begin where a
        sequence begins (all sequences equally likely).
        """
        place = rng.integers(self.choices[-1], size=count)
        sequence = np.searchsorted(self.choices, place, side="right")
        offset = place - np.where(sequence > 0, self.choices[sequence - 1], 0)
        first = rng.random(count) < from_start
        sequence = np.where(first, rng.integers(len(self.lengths), size=count), sequence)
        return self.windows(sequence, np.where(first, 0, offset))

    def windows(
        self, sequence: np.ndarray, offset: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The windows whose first decision is `offset` [B] of the `sequence` [B] of that number."""
        step = offset[:, None] + np.arange(-1, self.context_length)  # [B, T + 1]
        valid = step[:, 1:] < self.lengths[sequence, None]
        index = self.starts[sequence, None] + np.clip(step, 0, self.lengths[sequence, None] - 1)
        window = {name: self.data[name][index].astype(np.int64) for name in KEPT}
        for name, array in window.items():
            array[:, 0] = np.where(offset == 0, self.none[name], array[:, 0])
        if PROBABILITIES in self.data:
            window[PROBABILITIES] = self.data[PROBABILITIES][index]  # targets, never read as input
        return window | {"step": np.maximum(step, 0)}, valid


def strided_order(
    history: dict[str, np.ndarray], history_stride: int, history_part: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Indices into the flattened [streams, T] arrays, sequence by sequence, and their lengths."""
    done = history["terminated"] | history["truncated"]
    episode = episodes(done, history["reward"])
    lowest, highest = (share * done.shape[1] for share in history_part)
    inside = (episode.start >= lowest) & (episode.stop <= highest)
    stream, start = episode.stream[inside], episode.start[inside]
    length = episode.stop[inside] - start
    first_of_stream = np.searchsorted(stream, stream, side="left")
    number = np.arange(len(stream)) - first_of_stream  # of the episode in its stream
    key = stream * history_stride + number % history_stride
    order = np.argsort(key, kind="stable")
    begin = (stream * done.shape[1] + start)[order]
    length = length[order]
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    sequence_lengths = np.bincount(key[order], weights=length).astype(np.int64)
    return np.repeat(begin, length) + within, sequence_lengths[sequence_lengths > 0]


def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, *array.shape[2:])
