"""Contexts: windows that a model reads, with labels of their entries.

They come from rollouts of the frozen model, or from the histories. Entry t of a window is decision
t; entry 0 is the transition before the first decision (`ad/models/tokenizer.py`).
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

RETURN_TO_GO = "return_to_go"  # the only further input of a model that contexts have


class Span(NamedTuple):
    """The steps of a window, from `start` to before `stop`; its decisions from `first_decided`."""

    env: int
    start: int
    stop: int
    first_decided: int


@dataclass(frozen=True)
class Contexts:
    """B windows of T decisions and their labels, arrays [B, T + 1] unless stated.

    window: the tensors [B, T + 1, ...] that a SequenceModel reads.
    task: int64 [B], indices into the names `tasks`.
    episode: the number of an entry's episode in its rollout or history from 0, -1 without an entry.
    decided: bool, whether the decision was made in this window. Each decision is in one window.
    cell: the same number for equal observations.
    num_episodes: the number of episodes that `total` keeps apart. It is 1 for contexts of the
    histories, which have thousands of episodes.
    asked: the return that the rollout asked for in each episode, None for no return.
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
    def reward_seen(self) -> np.ndarray:
        """Whether an earlier entry has a reward above 0."""
        return _before(np.logical_or.accumulate(self.reward > 0, axis=1))

    @property
    def visited(self) -> np.ndarray:
        """Whether an earlier entry has the same observation."""
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
        """Sum `values` [B, T, ...] over the decided decisions: float64 [tasks, episodes, ...]."""
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

    Every decision is marked as decided.
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
    """Return a number for each observation, int64 [B, T + 1]: the same for equal observations."""
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
    unknown = set(model.tokenizer.inputs) - {RETURN_TO_GO}
    if unknown:
        raise ConfigError(f"the model reads {unknown.pop()}, which the analyses cannot provide")
    if RETURN_TO_GO in model.tokenizer.inputs:
        asked = _asked_return(config, model)
        fields[RETURN_TO_GO] = return_left(fields["reward"], fields["time"], asked)
    return fields


def _asked_return(config: Experiment, model: SequenceModel) -> float | None:
    """Return the return that a rollout asks for, None for a model without a return to go."""
    if RETURN_TO_GO not in model.tokenizer.inputs:
        return None
    asked = config.evaluation.policy.get("asked_return")
    if np.ndim(0.0 if asked is None else asked):
        raise ConfigError("the analyses need one asked_return for all environments")
    return model.spec.return_range[1] if asked is None else float(asked)


def return_left(reward: np.ndarray, time: np.ndarray, asked: float) -> np.ndarray:
    """Return the return to go at each decision if `asked` is the episode's: float32 [N, steps]."""
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
