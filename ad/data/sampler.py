"""Training windows from histories: every k-th episode, whole, of one actor.

With a history stride k, an actor's transitions are read as k sequences (phases). Phase p is the
episodes p, p + k, p + 2k, ... one after the other: the agent learns k times faster in a sequence
than in the history, and every episode is used. A window is consecutive transitions of one sequence,
so it never crosses from one actor or task to another; its first ones may be those of good episodes
before it (`retrieved`). For a method whose context ends with its episode, each episode is a
sequence.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ad.data.derived import DERIVED, Derive, Sequences
from ad.data.episodes import best_first, episodes, index_in_actor
from ad.data.spec import OBSERVATIONS, Spec, field_name
from ad.errors import ConfigError
from ad.runtime.arrays import FlatArray
from envs.oracle import TaskOracle

Batch = dict[str, np.ndarray]  # fields of windows, [B, T + 1, ...] each


class TaskHistory(NamedTuple):
    """The recorded transitions [actors, T, ...] of one task by field, the task, and its world."""

    arrays: Mapping[str, np.ndarray]
    task: np.ndarray  # int [D]
    world: TaskOracle


class Windows(Protocol):
    """A sampler of training windows: a WindowSampler, or one that changes what another draws."""

    def sample(self, rng: np.random.Generator, count: int) -> Batch:
        """Draw `count` windows."""


class WindowSampler:
    """The sequences of many histories in flat arrays, and the drawing of windows from them.

    `fields` are the fields of a window: stored ones ("observation" and "next_observation" stand for
    all their parts) and computed ones, from whole sequences by DERIVED or `derived`. `history_part`
    is the fraction (start, stop) of each actor's transitions to use; other episodes are left out,
    and so are those that are not among the `best_fraction` of a task by their return. A fraction
    `from_start` of windows begins at the first transition of a sequence, with all sequences equally
    likely; a fraction `to_end` ends with an episode, with all episodes equally likely, as far as
    its sequence is long enough; the others begin anywhere, with all places equally likely.
    `within_episodes`: whether windows stay inside an episode. The first `retrieved` transitions of
    a window are those of the episodes with the highest returns before its other transitions
    (`best_first`), if there are as many. The flat arrays are in memory, or in temporary files in
    the folder `files_in`, which the system removes when the process ends.

    Raises ConfigError if there is no whole episode.
    """

    def __init__(
        self,
        histories: Iterable[TaskHistory],
        spec: Spec,
        fields: Sequence[str],
        context_length: int,
        history_stride: int,
        *,
        history_part: tuple[float, float] = (0.0, 1.0),
        from_start: float = 0.0,
        to_end: float = 0.0,
        best_fraction: float = 1.0,
        within_episodes: bool = False,
        retrieved: int = 0,
        derived: Mapping[str, Derive] | None = None,
        files_in: Path | None = None,
    ):
        self.context_length, self.from_start, self.to_end = context_length, from_start, to_end
        self.retrieved = retrieved
        derived = DERIVED | dict(derived or {})
        self.padding = spec.padding
        self.dtypes = {name: part.window_dtype for name, part in spec.observation_fields.items()}
        names = [path for name in fields for path in _paths(spec, name)]
        flat = {name: FlatArray(files_in) for name in names}
        lengths, episode_lengths, episode_returns = [], [], []
        for arrays, task, world in histories:
            strided = strided_episodes(arrays, history_stride, history_part, best_fraction)
            ordered = _Ordered(arrays, strided.order)
            steps = arrays["terminated"].shape[1]
            moment = ordered.order % steps / steps
            sequences = Sequences(ordered, strided.sequence_lengths(), task, world, moment)
            for name, array in flat.items():
                array.append(derived[name](sequences) if name in derived else ordered[name])
            lengths.append(strided.length if within_episodes else sequences.lengths)
            episode_lengths.append(strided.length)
            episode_returns.append(strided.returns)
        if not sum(map(len, lengths)):
            raise ConfigError("this part of the histories holds no whole episode to train on")
        self.data = {name: array.close() for name, array in flat.items()}
        self.lengths = np.concatenate(lengths)
        self.starts = np.cumsum(self.lengths) - self.lengths
        # A sequence shorter than a window still gives one window, which is padded.
        self.num_starts = np.cumsum(np.maximum(self.lengths - context_length + 1, 1))
        self.episode_ends = np.cumsum(np.concatenate(episode_lengths))
        self.episode_returns = np.concatenate(episode_returns)

    def __len__(self) -> int:
        """Return the number of transitions."""
        return int(self.lengths.sum())

    def sample(self, rng: np.random.Generator, count: int) -> Batch:
        """Draw `count` windows, as `windows` returns them."""
        place = rng.integers(self.num_starts[-1], size=count)
        sequence = np.searchsorted(self.num_starts, place, side="right")
        offset = place - np.where(sequence > 0, self.num_starts[sequence - 1], 0)
        u = rng.random(count)
        first, last = u < self.from_start, u >= 1 - self.to_end
        sequence = np.where(first, rng.integers(len(self.lengths), size=count), sequence)
        offset = np.where(first, 0, offset)
        if self.to_end:
            end = self.episode_ends[rng.integers(len(self.episode_ends), size=count)]
            ending = np.searchsorted(self.starts, end - 1, side="right") - 1
            sequence = np.where(last, ending, sequence)
            latest = np.maximum(end - self.starts[ending] - self.context_length, 0)
            offset = np.where(last, latest, offset)
        return self.windows(sequence, offset)

    def windows(self, sequence: np.ndarray, offset: np.ndarray) -> Batch:
        """Return the windows that begin at transition `offset` [B] of the sequences `sequence` [B].

        Entries 1 to T of a window are its transitions, entry 0 is the transition before them.
        `valid`, bool [B, T + 1], is false for an entry 0 that does not exist, which holds
        `Spec.padding`, and after the end of a sequence. `step` is a transition's number in its
        sequence. Integers are int64, but for the arrays of an observation. With `retrieved`, a
        field of that name says which entries are. A rollout retrieves episodes only when its window
        is full: it never decides in their places.
        """
        step = offset[:, None] + np.arange(-1, self.context_length)  # [B, T + 1]
        length = self.lengths[sequence, None]
        begin = self.starts[sequence, None]
        index, retrieves = begin + np.clip(step, 0, length - 1), np.zeros(len(offset), bool)
        for window in range(len(index) if self.retrieved else 0):
            place = index[window, 1 + self.retrieved]
            if (best := self._best_before(place, begin[window, 0])) is not None:
                index[window, 1 : 1 + self.retrieved] = best
                step[window, 0], step[window, 1 : 1 + self.retrieved] = -1, best - begin[window]
                retrieves[window] = offset[window] > 0  # at 0 they are its own first ones
        valid, batch = (step >= 0) & (step < length), {}
        for name, values in self.data.items():
            default = np.int64 if values.dtype.kind in "iu" else values.dtype
            window = values[index].astype(self.dtypes.get(name, default), copy=False)
            window[~valid[:, 0], 0] = self.padding.get(name, 0)
            batch[name] = window
        if self.retrieved:
            batch["retrieved"] = np.zeros_like(valid)
            batch["retrieved"][retrieves, 1 : 1 + self.retrieved] = True
        return batch | {"step": np.maximum(step, 0), "valid": valid}

    def _best_before(self, place: int, begin: int) -> np.ndarray | None:
        """Return the `retrieved` transitions of the best episodes from `begin` to before `place`.

        All are places in the flat arrays. None if these episodes have fewer transitions.
        """
        first, last = np.searchsorted(self.episode_ends, [begin, place], side="right")
        ends = np.concatenate([[begin], self.episode_ends[first:last]])
        if ends[-1] - begin < self.retrieved:
            return None
        returns = np.repeat(self.episode_returns[first:last], np.diff(ends))
        return begin + best_first(returns[None], self.retrieved)[0]


class _Ordered(Mapping):
    """The arrays [actors, T, ...] of a history as [M, ...], in the order of its sequences."""

    def __init__(self, arrays: Mapping[str, np.ndarray], order: np.ndarray):
        self.arrays, self.order = arrays, order

    def __getitem__(self, name: str) -> np.ndarray:
        array = self.arrays[name]
        return array.reshape(-1, *array.shape[2:])[self.order]

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def _paths(spec: Spec, name: str) -> list[str]:
    """Return the stored fields that the field `name` of a method stands for."""
    return [field_name(name, part) for part in spec.observation] if name in OBSERVATIONS else [name]


def bytes_of_transition(arrays: Mapping[str, np.ndarray], spec: Spec, fields: Sequence[str]) -> int:
    """Return at most how many bytes a transition takes in the flat arrays of a WindowSampler.

    `arrays` [actors, T, ...] are the arrays of a history; a derived field is a number or a mask.
    """
    total = 0
    for path in (path for name in fields for path in _paths(spec, name)):
        if path in arrays:
            array = arrays[path]
            total += array.itemsize * math.prod(array.shape[2:])
        else:
            total += max(8, spec.num_actions)
    return total


@dataclass(frozen=True)
class StridedEpisodes:
    """The whole episodes of a history [actors, T], ordered by sequence.

    `sequence` is the number of an episode's sequence (actor and phase), `start` the index of its
    first transition in the flattened arrays, `length` its number of transitions, `returns` its
    return.
    """

    sequence: np.ndarray
    start: np.ndarray
    length: np.ndarray
    returns: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """Indices of all transitions in the flattened arrays, sequence by sequence."""
        before = np.cumsum(self.length) - self.length
        return np.arange(self.length.sum()) + np.repeat(self.start - before, self.length)

    def sequence_lengths(self) -> np.ndarray:
        """Return the number of transitions of each sequence that has an episode."""
        totals = np.bincount(self.sequence, weights=self.length).astype(np.int64)
        return totals[np.bincount(self.sequence) > 0]


def strided_episodes(
    history: Mapping[str, np.ndarray],
    history_stride: int,
    history_part: tuple[float, float],
    best_fraction: float = 1.0,
) -> StridedEpisodes:
    """Return the episodes that lie in `history_part` whole, ordered by sequence.

    Of these, the `best_fraction` with the highest returns are kept, and all that tie with them.
    """
    done = history["terminated"] | history["truncated"]
    episode = episodes(done, history["reward"])
    lowest, highest = (fraction * done.shape[1] for fraction in history_part)
    inside = (episode.start >= lowest) & (episode.stop <= highest)
    if best_fraction < 1 and inside.any():
        returns = np.sort(episode.returns[inside])[::-1]
        inside &= episode.returns >= returns[math.ceil(best_fraction * len(returns)) - 1]
    actor, start = episode.actor[inside], episode.start[inside]
    sequence = actor * history_stride + index_in_actor(actor) % history_stride
    order = np.argsort(sequence, kind="stable")
    length, returns = episode.stop[inside] - start, episode.returns[inside]
    fields = (sequence, actor * done.shape[1] + start, length, returns)
    return StridedEpisodes(*(field[order] for field in fields))
