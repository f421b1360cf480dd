"""Training windows from histories: every k-th episode, whole, of one actor.

With a history stride k, an actor's transitions are read as k sequences (phases). Phase p is the
episodes p, p + k, p + 2k, ... one after the other: the agent learns k times faster in a sequence
than in the history, and every episode is used. A window is `context_length` consecutive transitions
of one sequence, so it never crosses from one actor or task to another.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ad.data.episodes import episodes, index_in_actor
from ad.errors import ConfigError

WINDOW_FIELDS = ("observation", "action", "reward", "next_observation", "time")


class WindowSampler:
    """The sequences of many histories in flat arrays, and the drawing of windows from them.

    `histories` are arrays [actors, T] by field, a dict for each task. `history_part` is the
    fraction (start, stop) of each actor's transitions to use; other episodes are left out.
    `rewards` are the reward values, ascending: a reward is kept as an index into them.
    `padding_index` is, for each field, the index that stands before the first transition.

    Raises ConfigError if there is no whole episode.
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
            strided = strided_episodes(history, history_stride, history_part)
            order = strided.order
            parts.append({name: history[name].reshape(-1)[order] for name in WINDOW_FIELDS})
            parts[-1]["reward"] = np.searchsorted(rewards, parts[-1]["reward"]).astype(np.uint8)
            lengths.append(strided.sequence_lengths())
        if not sum(map(len, lengths)):
            raise ConfigError("this part of the histories holds no whole episode to train on")
        self.data = {name: np.concatenate([part[name] for part in parts]) for name in WINDOW_FIELDS}
        self.lengths = np.concatenate(lengths)
        self.starts = np.cumsum(self.lengths) - self.lengths
        # A sequence shorter than a window still gives one window, which is padded.
        self.num_starts = np.cumsum(np.maximum(self.lengths - context_length + 1, 1))

    def __len__(self) -> int:
        """Return the number of transitions."""
        return len(self.data["action"])

    def sample(
        self, rng: np.random.Generator, count: int, from_start: float = 0.0
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Draw `count` windows: (int64 [count, T + 1] by field, valid bool [count, T]).

        A fraction `from_start` of them begins at the first transition of a sequence, with all
        sequences equally likely. The others begin anywhere, with all places equally likely.
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
        """Return the windows that begin at transition `offset` [B] of the sequences `sequence` [B].

        Entries 1 to T of a window are its transitions. Entry 0 is the transition before them; where
        there is none, it is the padding index. `step` is a transition's number in its sequence.
        """
        step = offset[:, None] + np.arange(-1, self.context_length)  # [B, T + 1]
        valid = step[:, 1:] < self.lengths[sequence, None]
        index = self.starts[sequence, None] + np.clip(step, 0, self.lengths[sequence, None] - 1)
        window = {name: self.data[name][index].astype(np.int64) for name in WINDOW_FIELDS}
        for name, array in window.items():
            array[:, 0] = np.where(offset == 0, self.padding_index[name], array[:, 0])
        return window | {"step": np.maximum(step, 0)}, valid


@dataclass(frozen=True)
class StridedEpisodes:
    """The whole episodes of a history [actors, T], ordered by sequence.

    `sequence` is the number of an episode's sequence (actor and phase), `start` the index of its
    first transition in the flattened arrays, `length` its number of transitions.
    """

    sequence: np.ndarray
    start: np.ndarray
    length: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """Indices of all transitions in the flattened arrays, sequence by sequence."""
        within = np.arange(self.length.sum())
        within -= np.repeat(np.cumsum(self.length) - self.length, self.length)
        return np.repeat(self.start, self.length) + within

    def sequence_lengths(self) -> np.ndarray:
        """Return the number of transitions of each sequence that has an episode."""
        totals = np.bincount(self.sequence, weights=self.length).astype(np.int64)
        return totals[np.bincount(self.sequence) > 0]


def strided_episodes(
    history: dict[str, np.ndarray], history_stride: int, history_part: tuple[float, float]
) -> StridedEpisodes:
    """Return the episodes that lie in `history_part` whole, ordered by sequence."""
    done = history["terminated"] | history["truncated"]
    episode = episodes(done, history["reward"])
    lowest, highest = (fraction * done.shape[1] for fraction in history_part)
    inside = (episode.start >= lowest) & (episode.stop <= highest)
    actor, start = episode.actor[inside], episode.start[inside]
    sequence = actor * history_stride + index_in_actor(actor) % history_stride
    order = np.argsort(sequence, kind="stable")
    fields = (sequence, actor * done.shape[1] + start, episode.stop[inside] - start)
    return StridedEpisodes(*(field[order] for field in fields))
