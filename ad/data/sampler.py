"""Training windows from histories: every k-th episode, whole, never across two streams.

With a history stride k a stream is read as k sequences (phases): phase p is its episodes p, p + k,
p + 2k, … end to end, so that learning goes k times faster in it and every episode is still used. A
window is `context_length` consecutive decisions of one sequence.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ad.data.episodes import episodes
from ad.errors import ConfigError

KEPT = ("observation", "action", "reward", "next_observation", "time")


class WindowSampler:
    """Sequences of many histories in flat arrays, from which windows are drawn.

    `histories`: [streams, T] arrays by field, one a task. `history_part`: the share (start, stop)
    of each stream to use, in whole episodes. `rewards`: the reward values, ascending; rewards are
    kept as indices. `padding_index`: for each field the index that stands for "before the history
    began".
    """

    def __init__(
        self,
        histories: Iterable[dict[str, np.ndarray]],
        context_length: int,
        history_stride: int,
        rewards: np.ndarray,
        padding_index: dict[str, int],
        history_part: tuple[float, float] = (0.0, 1.0),
    ):
        self.context_length, self.padding_index = context_length, padding_index
        parts, lengths = [], []
        for history in histories:
            kept = strided_episodes(history, history_stride, history_part)
            chosen = kept.order
            parts.append({name: history[name].reshape(-1)[chosen] for name in KEPT})
            parts[-1]["reward"] = np.searchsorted(rewards, parts[-1]["reward"]).astype(np.uint8)
            lengths.append(kept.sequence_lengths())
        if not sum(map(len, lengths)):
            raise ConfigError("this part of the histories holds no whole episode to train on")
        self.data = {name: np.concatenate([part[name] for part in parts]) for name in KEPT}
        self.lengths = np.concatenate(lengths)
        self.starts = np.cumsum(self.lengths) - self.lengths
        # A sequence shorter than a window still gives one, padded.
        self.num_starts = np.cumsum(np.maximum(self.lengths - context_length + 1, 1))

    def __len__(self) -> int:
        """Transitions held."""
        return len(self.data["action"])

    def sample(
        self, rng: np.random.Generator, count: int, from_start: float = 0.0
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """`count` windows: int64 [count, T + 1] by field (see `ad.models.tokenizer`); valid
        bool [count, T].

        All places are equally likely, but for a share `from_start` of windows, which begin where a
        sequence begins (all sequences equally likely).
        """
        place = rng.integers(self.num_starts[-1], size=count)
        sequence = np.searchsorted(self.num_starts, place, side="right")
        offset = place - np.where(sequence > 0, self.num_starts[sequence - 1], 0)
        first = rng.random(count) < from_start
        sequence = np.where(first, rng.integers(len(self.lengths), size=count), sequence)
        offset = np.where(first, 0, offset)
        return self.windows(sequence, offset)

    def windows(
        self, sequence: np.ndarray, offset: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The windows whose first decision is `offset` [B] of the `sequence` [B] of that number."""
        step = offset[:, None] + np.arange(-1, self.context_length)  # [B, T + 1]
        valid = step[:, 1:] < self.lengths[sequence, None]
        index = self.starts[sequence, None] + np.clip(step, 0, self.lengths[sequence, None] - 1)
        window = {name: self.data[name][index].astype(np.int64) for name in KEPT}
        for name, array in window.items():
            array[:, 0] = np.where(offset == 0, self.padding_index[name], array[:, 0])
        return window | {"step": np.maximum(step, 0)}, valid


@dataclass(frozen=True)
class StridedEpisodes:
    """Whole episodes of a history [streams, T] as strided sequences, one after the other.

    Of each episode: `key` of its sequence (stream and phase), `begin` in the flattened arrays,
    `length`.
    """

    key: np.ndarray
    begin: np.ndarray
    length: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """Indices of all transitions in the flattened arrays."""
        within = np.arange(self.length.sum())
        within -= np.repeat(np.cumsum(self.length) - self.length, self.length)
        return np.repeat(self.begin, self.length) + within

    def sequence_lengths(self) -> np.ndarray:
        """Transitions of each sequence that there is."""
        totals = np.bincount(self.key, weights=self.length).astype(np.int64)
        return totals[np.bincount(self.key) > 0]


def strided_episodes(
    history: dict[str, np.ndarray], history_stride: int, history_part: tuple[float, float]
) -> StridedEpisodes:
    """The episodes of a history that are whole inside `history_part`, by sequence."""
    done = history["terminated"] | history["truncated"]
    episode = episodes(done, history["reward"])
    lowest, highest = (share * done.shape[1] for share in history_part)
    inside = (episode.start >= lowest) & (episode.stop <= highest)
    stream, start = episode.stream[inside], episode.start[inside]
    first_of_stream = np.searchsorted(stream, stream, side="left")
    number = np.arange(len(stream)) - first_of_stream  # of the episode in its stream
    key = stream * history_stride + number % history_stride
    order = np.argsort(key, kind="stable")
    fields = (key, stream * done.shape[1] + start, episode.stop[inside] - start)
    return StridedEpisodes(*(field[order] for field in fields))
