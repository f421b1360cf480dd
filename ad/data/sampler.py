"""Training windows from histories: every k-th episode, whole, never across two streams.

With a history stride k a stream is read as k sequences (phases): phase p is its episodes p, p + k,
p + 2k, … end to end, so that learning goes k times faster in it and every episode is still used. A
window is `context_length` consecutive decisions of one sequence.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ad.data import curves as learning_curves
from ad.data.episodes import episodes
from ad.data.schema import PROBABILITIES
from ad.errors import ConfigError

KEPT = ("observation", "action", "reward", "next_observation", "time")


class HistoryWindows:
    """Sequences of many histories in flat arrays, from which windows are drawn.

    `histories`: [streams, T] arrays by field, one a task; probabilities, uint8 [streams, T, A], may
    be among them and are then in the windows too, [B, T + 1, A]. `history_part`: the share (start,
    stop) of each stream to use, in whole episodes. `rewards`: the reward values, ascending; rewards
    are kept as indices. `padding_index`: for each field the index that stands for "before the
    history began". `rise_level`: the share of its final return at which a history
    no longer rises, where windows are to be drawn from the rise.
    """

    def __init__(
        self,
        histories: Iterable[dict[str, np.ndarray]],
        context_length: int,
        history_stride: int,
        rewards: np.ndarray,
        padding_index: dict[str, int],
        history_part: tuple[float, float] = (0.0, 1.0),
        rise_level: float | None = None,
    ):
        self.context_length, self.padding_index = context_length, padding_index
        parts, lengths, rising = [], [], []
        for history in histories:
            kept = strided_episodes(history, history_stride, history_part)
            chosen = kept.order
            names = [name for name in (*KEPT, PROBABILITIES) if name in history]
            parts.append({name: _flat(history[name])[chosen] for name in names})
            parts[-1]["reward"] = np.searchsorted(rewards, parts[-1]["reward"]).astype(np.uint8)
            lengths.append(kept.sequence_lengths())
            if rise_level is not None:
                streams = len(history["reward"])
                rising.append(kept.rising_lengths(streams, history_stride, rise_level))
        if not sum(map(len, lengths)):
            raise ConfigError("this part of the histories holds no whole episode to train on")
        self.data = {name: np.concatenate([part[name] for part in parts]) for name in names}
        self.lengths = np.concatenate(lengths)
        self.starts = np.cumsum(self.lengths) - self.lengths
        # A sequence shorter than a window still gives one, padded.
        choices = np.maximum(self.lengths - context_length + 1, 1)
        self.choices = np.cumsum(choices)
        if rise_level is not None:
            self.rising_choices = np.cumsum(np.minimum(np.concatenate(rising), choices))
            if not self.rising_choices[-1]:
                raise ConfigError("no history is long enough to tell where it rises")

    def __len__(self) -> int:
        """Transitions held."""
        return len(self.data["action"])

    def sample(
        self, rng: np.random.Generator, count: int, from_start: float = 0.0, from_rise: float = 0.0
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """`count` windows: int64 [count, T + 1] by field (see `ad.models.tokenizer`); valid
        bool [count, T].

        All places are equally likely, but for a share `from_start` of windows, which begin where a
        sequence begins (all sequences equally likely), and a share `from_rise`, which begin where
        its history still rises (all such places equally likely; this needs a `rise_level`).
        """
        sequence, offset = _places(self.choices, rng, count)
        u = rng.random(count)
        first = u < from_start
        sequence = np.where(first, rng.integers(len(self.lengths), size=count), sequence)
        offset = np.where(first, 0, offset)
        if from_rise:
            rising = ~first & (u < from_start + from_rise)
            places = _places(self.rising_choices, rng, count)
            sequence, offset = np.where(rising, places, (sequence, offset))
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
        if PROBABILITIES in self.data:
            window[PROBABILITIES] = self.data[PROBABILITIES][index]  # targets, never read as input
        return window | {"step": np.maximum(step, 0)}, valid


@dataclass(frozen=True)
class StridedEpisodes:
    """Whole episodes of a history [streams, T] as strided sequences, one after the other.

    Of each episode: `key` of its sequence (stream and phase), `place` in it, `begin` in the
    flattened arrays, `length`, `returns`.
    """

    key: np.ndarray
    place: np.ndarray
    begin: np.ndarray
    length: np.ndarray
    returns: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """Indices of all transitions in the flattened arrays."""
        within = np.arange(self.length.sum())
        within -= np.repeat(np.cumsum(self.length) - self.length, self.length)
        return np.repeat(self.begin, self.length) + within

    def sequence_lengths(self) -> np.ndarray:
        """Transitions of each sequence that there is."""
        return self._of_sequences(self.length)

    def rising_lengths(self, streams: int, history_stride: int, level: float) -> np.ndarray:
        """Of these, how many belong to episodes up to the end of the history's rise.

        The rise ends with the first strided episode at which the mean return over all phases and
        streams is at the share `level` of its final value; where few episodes make the mean too
        unsure for that, all of the history counts as its rise.
        """
        count = np.bincount(self.place)
        whole = count == streams * history_stride
        curve = np.where(whole, np.bincount(self.place, self.returns) / count, np.nan)[None]
        end = learning_curves.rise(curve, streams * history_stride, level)[0]
        if whole.any():
            end = np.nan_to_num(end, nan=np.inf)
        return self._of_sequences(np.where(self.place < end, self.length, 0))

    def _of_sequences(self, values: np.ndarray) -> np.ndarray:
        totals = np.bincount(self.key, weights=values).astype(np.int64)
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
    fields = (
        key,
        number // history_stride,
        stream * done.shape[1] + start,
        episode.stop[inside] - start,
        episode.returns[inside],
    )
    return StridedEpisodes(*(field[order] for field in fields))


def _places(
    choices: np.ndarray, rng: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sequence and offset of `count` random places; `choices`: the running sum of their numbers."""
    place = rng.integers(choices[-1], size=count)
    sequence = np.searchsorted(choices, place, side="right")
    return sequence, place - np.where(sequence > 0, choices[sequence - 1], 0)


def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, *array.shape[2:])
