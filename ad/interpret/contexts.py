"""Contexts: windows that a model reads, and what is known of each of their entries.

They come from rollouts of the frozen model, or from the histories. Entry t of a window is decision
t, entry 0 the transition before them (`ad/models/tokenizer.py`).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from ad.config.schema import Experiment
from ad.data.dataset import TrainingSet, to_device
from ad.data.derived import Sequences
from ad.data.sampler import Batch
from ad.data.spec import Spec, field_name
from ad.errors import ConfigError
from ad.methods.base import Method
from ad.models.sequence_model import SequenceModel
from ad.rollout.rollout import Rollout
from ad.rollout.tasks import policy_of, rollout_envs
from envs.rng import derive_key
from envs.tasks import task_name

ASKED = "return_to_go"  # the only further input of a model that contexts have


class Span(NamedTuple):
    """The steps `start` to before `stop` of an environment; the first that is decided in them."""

    env: int
    start: int
    stop: int
    first_decided: int


@dataclass(frozen=True)
class Contexts:
    """B windows of T decisions and their labels, arrays [B, T + 1] unless stated.

    `window` holds the tensors [B, T + 1, ...] that a SequenceModel reads. `task`, int64 [B], is an
    index into the names `tasks`. `episode` is the number of an episode in its rollout or sequence,
    from 0, and -1 where an entry does not exist. Sums tell `num_episodes` of them apart, or none
    where it is 1: those of the histories are thousands. `decided`, bool, marks
    each decision in one window only: the one that the policy read when it made it. Equal
    observations have the same number `cell`. `asked` is the return that a rollout asked for in each
    episode, None if none was asked.
    """

    window: dict[str, torch.Tensor]
    task: np.ndarray
    tasks: list[str]
    episode: np.ndarray
    decided: np.ndarray
    cell: np.ndarray
    num_episodes: int
    asked: float | None = None

    def __len__(self) -> int:
        return len(self.task)

    @property
    def length(self) -> int:
        """T, the number of decisions of a window."""
        return self.episode.shape[1] - 1

    @property
    def valid(self) -> np.ndarray:
        """Whether an entry exists."""
        return self.window["valid"].cpu().numpy()

    @property
    def reward(self) -> np.ndarray:
        """The reward of each transition, 0 where there is none."""
        return np.nan_to_num(self.window["reward"].cpu().numpy())

    @property
    def time(self) -> np.ndarray:
        """The env steps of its episode before each decision."""
        return self.window["time"].cpu().numpy()

    @property
    def found(self) -> np.ndarray:
        """Whether a reward above 0 stands before an entry."""
        return _before(np.logical_or.accumulate(self.reward > 0, axis=1))

    @property
    def visited(self) -> np.ndarray:
        """Whether the observation of an entry is that of an earlier decision."""
        same = self.cell[:, :, None] == self.cell[:, None, :]  # [B, T + 1, T + 1]
        same &= self.valid[:, None, :] & np.tri(same.shape[1], k=-1, dtype=bool)
        return same.any(2)

    def select(self, rows: np.ndarray | slice) -> "Contexts":
        """Return the windows `rows`, an index into the B windows."""
        names = ("task", "episode", "decided", "cell")
        labels = {name: getattr(self, name)[rows] for name in names}
        index = rows if isinstance(rows, slice) else torch.as_tensor(rows)
        window = {name: values[index] for name, values in self.window.items()}
        return replace(self, window=window, **labels)

    def total(self, values: torch.Tensor) -> np.ndarray:
        """Add up `values` [B, T, ...] of the decided decisions: float64 [tasks, episodes, ...]."""
        decided = torch.from_numpy(self.decided[:, 1:])
        place = self.task[:, None] * self.num_episodes + self.episode[:, 1:].clip(
            0, self.num_episodes - 1
        )
        total = torch.zeros(
            (len(self.tasks) * self.num_episodes, *values.shape[2:]), dtype=torch.float64
        )
        total.index_add_(0, torch.from_numpy(place)[decided], values.cpu()[decided].double())
        return total.unflatten(0, (len(self.tasks), -1)).numpy()

    def batches(self, size: int = 64) -> Iterator["Contexts"]:
        """Yield the windows in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.select(slice(start, start + size))


def rollout_contexts(
    config: Experiment,
    method: Method,
    model: SequenceModel,
    tasks: np.ndarray,
    episodes: int,
    eval_seed: int = 0,
) -> Contexts:
    """Roll out the frozen model on `tasks` [K, D] and return the windows that it read.

    A full window drops its oldest half, so successive windows overlap by a half. A context that
    ends with its episode gives windows of single episodes; where an episode is longer than the
    context, they stand for those of the policy, which drops a single decision at a time.
    """
    new_policy = policy_of(config, method, model)
    envs = [(eval_seed, task) for task in tasks]
    played = rollout_envs(config, envs, new_policy, episodes, range(len(envs)))
    fields = _with_inputs(config, model, played)
    spans = list(_spans(played, config.data.context_length, method.within_episodes))
    longest = max(span.stop - span.start for span in spans)
    cut = [_cut(fields, model.spec, span, longest, method.within_episodes) for span in spans]
    arrays = {name: np.stack([window[name] for window in cut]) for name in cut[0]}
    contexts = _labeled(arrays, np.array([span.env for span in spans]), tasks, model)
    return replace(contexts, asked=_asked_return(config, model))


def history_contexts(
    dataset: TrainingSet, method: Method, model: SequenceModel, count: int
) -> Contexts:
    """Return `count` windows of the histories' held-out actors, or of all if none is held out.

    `decided` marks every decision.
    """
    derived = {**method.derived, "task": _task_of, "episode": _episode_of}
    sampler = dataset.windows(
        (*method.fields, "task", "episode"),
        held_out=bool(dataset.config.data.held_out_actors),
        history_part=method.history_part,
        derived=derived,
        best_fraction=method.best_fraction,
        within_episodes=method.within_episodes,
    )
    rng = np.random.default_rng(derive_key(0, "interpret", "history contexts"))
    arrays = dict(sampler.sample(rng, count))
    arrays["decided"] = arrays["valid"].copy()
    arrays["decided"][:, 0] = False
    tasks = np.array([history.task for history in dataset.histories])
    names = [task_name(task) for task in tasks]
    task = np.array([names.index(task_name(row)) for row in arrays.pop("task")[:, 1]])
    return replace(_labeled(arrays, task, tasks, model), num_episodes=1)


def _labeled(arrays: Batch, task: np.ndarray, tasks, model: SequenceModel) -> Contexts:
    """Return the contexts of windows with the further fields `episode` and `decided`."""
    episode = np.where(arrays["valid"], arrays.pop("episode"), -1)
    decided = arrays.pop("decided")
    cell = number_observations(arrays, model.spec)
    window = to_device(arrays, model.head.weight.device)
    names = [task_name(task) for task in tasks]
    episodes = int(episode.max()) + 1
    return Contexts(window, task, names, episode, decided, cell, episodes)


def number_observations(arrays: Batch, spec: Spec) -> np.ndarray:
    """Return a number for each observation, int64 [B, T + 1].

    Observations have the same number where they are equal in all parts.
    """
    shape = arrays["valid"].shape
    parts = [arrays[field_name("observation", part)] for part in spec.observation]
    rows = np.concatenate([part.reshape(shape[0] * shape[1], -1) for part in parts], axis=1)
    number = np.unique(rows.astype(np.float64), axis=0, return_inverse=True)[1]
    return number.reshape(shape)


def _before(values: np.ndarray) -> np.ndarray:
    """Return the values [B, T + 1] of the entry before each, False before the first."""
    return np.pad(values[:, :-1], ((0, 0), (1, 0)))


def _with_inputs(config: Experiment, model: SequenceModel, played: Rollout) -> Batch:
    """Return the transitions of a rollout, [N, steps, ...], with the model's further inputs."""
    fields = dict(played.trajectory)
    unknown = set(model.tokenizer.inputs) - {ASKED}
    if unknown:
        raise ConfigError(f"the model reads {unknown.pop()}, which the analyses do not know")
    if ASKED in model.tokenizer.inputs:
        asked = _asked_return(config, model)
        fields[ASKED] = return_left(fields["reward"], fields["time"], asked)
    return fields


def _asked_return(config: Experiment, model: SequenceModel) -> float | None:
    """Return what a rollout asks for in each episode, None for a model that is not asked."""
    if ASKED not in model.tokenizer.inputs:
        return None
    asked = config.evaluation.policy.get("asked_return")
    if np.ndim(0.0 if asked is None else asked):
        raise ConfigError("the analyses need one asked_return for all environments")
    return model.spec.return_range[1] if asked is None else float(asked)


def return_left(reward: np.ndarray, time: np.ndarray, asked: float) -> np.ndarray:
    """Return what is left of the return `asked` at each decision, float32 [N, steps]."""
    total = np.cumsum(reward, axis=1, dtype=np.float64)
    before = total - reward
    begins = np.where(time == 0, np.arange(time.shape[1]), 0)
    first = np.maximum.accumulate(begins, axis=1)
    return (asked - (before - np.take_along_axis(before, first, axis=1))).astype(np.float32)


def _spans(played: Rollout, context_length: int, within_episodes: bool) -> Iterator[Span]:
    """Yield the span of each window."""
    for env, episode in enumerate(played.trajectory["episode"]):
        steps = int((episode >= 0).sum())
        begins = np.searchsorted(episode[:steps], np.unique(episode[:steps]))
        bounds = [*begins, steps] if within_episodes else [0, steps]
        for low, high in itertools.pairwise(bounds):
            start, decided = low, low
            while decided < high:
                stop = min(start + context_length, high)
                yield Span(env, int(start), int(stop), int(decided))
                decided, start = stop, stop - context_length // 2


def _cut(fields: Batch, spec: Spec, span: Span, longest: int, within_episodes: bool) -> Batch:
    """Return the window of a span, padded to `longest` decisions: arrays [longest + 1, ...]."""
    env, start, stop, first_decided = span
    step = np.arange(start - 1, start + longest)
    exists = (step >= 0) & (step < stop)
    time = fields["time"][env]
    if within_episodes and time[start] == 0:
        exists[0] = False
    index = np.where(exists, step, 0)
    number = np.where(exists, time[index], 0) if within_episodes else np.maximum(step, 0)
    window = {"step": number, "valid": exists, "decided": exists & (step >= first_decided)}
    for name, values in fields.items():
        chosen = values[env][index]
        part = spec.observation_fields.get(name)
        dtype = np.int64 if values.dtype.kind in "iu" else values.dtype
        chosen = chosen.astype(part.window_dtype if part else dtype)
        chosen[~exists] = spec.padding.get(name, 0)
        window[name] = chosen
    return window


def _task_of(sequences: Sequences) -> np.ndarray:
    """Return the numbers that name the task, at each transition: int64 [M, D]."""
    shape = int(sequences.lengths.sum()), len(sequences.task)
    return np.broadcast_to(sequences.task, shape)


def _episode_of(sequences: Sequences) -> np.ndarray:
    """Return the number of each transition's episode in its sequence, int64 [M]."""
    arrays, starts = sequences.arrays, np.cumsum(sequences.lengths) - sequences.lengths
    done = arrays["terminated"] | arrays["truncated"]
    before = np.cumsum(done) - done
    return before - np.repeat(before[starts], sequences.lengths)
