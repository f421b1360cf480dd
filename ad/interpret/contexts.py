"""Contexts: windows that a model reads, with labels of their entries.

They come from rollouts of the frozen model, or from the histories. Entry t of a window is decision
t; entry 0 is the transition before the first decision (`ad/models/tokenizer.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ad.config.schema import Experiment
from ad.data.dataset import TrainingSet, to_device
from ad.data.derived import Sequences
from ad.data.sampler import Batch
from ad.data.spec import Spec, field_name
from ad.errors import ConfigError
from ad.methods.base import Method
from ad.methods.policy import Policy, PolicyWrapper
from ad.models.sequence_model import SequenceModel
from ad.rollout.tasks import policy_of, rollout_envs
from envs.rng import derive_key
from envs.tasks import task_name

RETURN_TO_GO = "return_to_go"  # the input of a model that is asked for a return
MOST_WINDOWS = 4096  # of a rollout: a policy that reads another window at each decision has more


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
) -> Contexts:
    """Roll out the frozen model on `tasks` [K, D] and return the windows that it read.

    If there are more than MOST_WINDOWS, as many are returned, spread over the rollouts. Raises
    ConfigError for a policy without windows.
    """
    new_policy, recorders = policy_of(config, method, model), []

    def new_recorder(num_envs: int) -> WindowRecorder:
        recorders.append(WindowRecorder(new_policy(num_envs), num_envs))
        return recorders[-1]

    rollout_envs(config, [(0, task) for task in tasks], new_recorder, episodes)
    arrays = recorders[0].windows(episodes)
    every = -(-len(arrays["env"]) // MOST_WINDOWS)
    arrays = {name: values[::every] for name, values in arrays.items()}
    is_asked = RETURN_TO_GO in model.tokenizer.inputs
    asked = float(recorders[0].inner.target[0]) if is_asked else None
    return replace(_labeled(arrays, arrays.pop("env"), tasks, model), asked=asked)


class WindowRecorder(PolicyWrapper):
    """A policy that keeps the windows that its model reads in N environments.

    While the next window of an environment begins with the present one, only the longer one is
    kept: in it the model reads the earlier decisions as it did when they were made.
    """

    def __init__(self, policy: Policy, num_envs: int):
        super().__init__(policy)
        self.inner, self.step, self.envs = context_policy(policy), 0, np.arange(num_envs)
        self.episode = [np.zeros(num_envs, np.int64)]  # by step: the episode of each environment
        self.open: Batch = {}  # windows that may still become longer, [N, T + 1] by field
        self.closed: list[Batch] = []

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return action logits [N, A]; keep the windows that they come from."""
        logits = super().act(observation, time)
        window = {name: value.cpu().numpy().copy() for name, value in self.inner.window().items()}
        last = window["valid"].shape[1] - 1 - window["valid"][:, ::-1].argmax(1)
        first = np.full(len(last), self.step)  # the first decision that was made in the window
        if self.open:
            extends = self._extends(window, last)
            first[extends] = self.open["first"][extends]
            self._close(np.flatnonzero(~extends))
        rows, number = np.arange(len(last)), window["step"].copy()  # decisions of a rollout
        if not self.inner.context.spans_episodes:
            number += self.step - number[rows, last][:, None]  # a step is a time in the episode
        number[rows, last] = self.step
        self.open = window | {"number": number, "last": last, "first": first, "env": self.envs}
        return logits

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Add the outcomes to the windows."""
        super().observe(action, reward, terminated, truncated, next_observation)
        parts = next_observation if isinstance(next_observation, dict) else {"": next_observation}
        outcome = {field_name("next_observation", part): value for part, value in parts.items()}
        for name, values in (outcome | {"action": action, "reward": reward}).items():
            self.open[name][np.arange(len(values)), self.open["last"]] = values.cpu().numpy()
        self.episode.append(self.episode[-1].copy())
        self.episode[-1][self.envs] += (terminated | truncated).cpu().numpy()
        self.step += 1

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order."""
        super().select(envs)
        rows = envs.cpu().numpy()
        self._close(np.setdiff1d(np.arange(len(self.envs)), rows))
        self.open = {name: values[rows] for name, values in self.open.items()}
        self.envs = self.envs[rows]

    def windows(self, episodes: int) -> Batch:
        """Return the windows of the first `episodes` of each environment, [B, T + 1] by field.

        `env`, int64 [B], is the environment, `episode` the number of an entry's episode. `decided`
        marks the decisions that were made in a window.
        """
        self._close(np.arange(len(self.envs)))
        padding = self.inner.context.padding | {"number": 0}
        longest = max(window["last"].max() for window in self.closed) + 1
        arrays = {
            name: np.concatenate(
                [_padded(window[name], longest, padding[name]) for window in self.closed]
            )
            for name in padding
        }
        env, first = (np.concatenate([w[name] for w in self.closed]) for name in ("env", "first"))
        number = arrays.pop("number")
        arrays["episode"] = np.stack(self.episode)[number, env[:, None]]
        valid = arrays["valid"] & (arrays["episode"] < episodes)
        for name in arrays.keys() - {"episode"}:
            arrays[name][~valid] = padding[name]
        arrays |= {"valid": valid, "decided": valid & (number >= first[:, None]), "env": env}
        order = np.argsort(env, kind="stable")
        order = order[arrays["decided"][order].any(1)]
        return {name: values[order] for name, values in arrays.items()}

    def _extends(self, window: Batch, last: np.ndarray) -> np.ndarray:
        """Return which open windows the windows of the present decision begin with, bool [N]."""
        extends, size = last > self.open["last"], self.open["valid"].shape[1]
        inside = np.arange(size) <= self.open["last"][:, None]
        for name, values in window.items():
            old, new = self.open[name], _padded(values, size, 0)
            same = (old == new) | ((old != old) & (new != new))  # NaN is the padding of rewards
            extends &= (same.reshape(*inside.shape, -1).all(2) | ~inside).all(1)
        return extends

    def _close(self, rows: np.ndarray) -> None:
        """Keep the open windows `rows`, int64 [M], as they are."""
        if len(rows):
            self.closed.append({name: values[rows] for name, values in self.open.items()})


def context_policy(policy: Policy) -> Policy:
    """Return the policy inside that reads a context, without temperatures around it.

    Raises ConfigError for a policy without windows.
    """
    inner = getattr(policy, "policy", policy)
    if inner.context is None:
        raise ConfigError(f"{type(inner).__name__} has no window of transitions to look at")
    return inner


def _padded(values: np.ndarray, length: int, padding: float) -> np.ndarray:
    """Return `values` [N, T, ...] cut or padded to [N, length, ...]."""
    missing = max(length - values.shape[1], 0)
    widths = ((0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2))
    return np.pad(values, widths, constant_values=padding)[:, :length]


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
