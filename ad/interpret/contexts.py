"""Contexts: windows that a model reads, with labels of their entries.

They come from rollouts of the frozen model, or from the histories. Entry t of a window is decision
t; entry 0 is the transition before the first decision (`ad/models/tokenizer.py`). The window of a
model that carries a state over segments is a whole rollout, from its first decision on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ad.config.schema import Experiment
from ad.data.dataset import TrainingSet, to_device
from ad.data.derived import Sequences
from ad.data.episodes import ratio
from ad.data.sampler import Batch
from ad.data.spec import Spec, field_name
from ad.errors import ConfigError
from ad.evaluation.calibration import asked_return
from ad.methods.base import Method
from ad.methods.policy import Policy, PolicyWrapper
from ad.models.sequence_model import SequenceModel
from ad.rollout.rollout import Rollout
from ad.rollout.tasks import asking_for, policy_of, rollout_envs
from envs.rng import derive_key
from envs.tasks import task_name

if TYPE_CHECKING:
    from ad.methods.context_policy import ContextPolicy

RETURN_TO_GO = "return_to_go"  # the input of a model that is asked for a return
MOST_WINDOWS = 4096  # of a rollout: a policy that reads another window at each decision has more
ROLLOUTS = 20  # environments of a single task, for each asked return
OTHER_SEEDS = 10_000  # the first of seeds that contexts do not have
EPISODES = 2  # of each of them where a context ends with its episode: all episodes are alike there
MOST_DECISIONS = 4096  # of a rollout that is one window


@dataclass(frozen=True)
class Contexts:
    """B windows of T decisions and their labels, arrays [B, T + 1] unless stated.

    window: the tensors [B, T + 1, ...] that a SequenceModel reads.
    task: int64 [B], indices into the names `tasks`.
    episode: the number of an entry's episode in its rollout or history from 0, -1 without an entry.
    decided: bool, whether the decision was made in this window. Each decision is in one window.
    cell: the same number for equal observations.
    num_episodes: the number of episodes that `total` keeps apart. It is 1 for contexts of the
    histories, which have thousands of episodes, and where the groups are episodes.
    asked: float64 [B], the return that was asked for in the episodes of a window, None for no
    return.
    group: int64 [B], indices into the names `groups`. Intervals resample groups, and resampling
    takes values of another group. `unit` says what they are: "task" where there are several, else
    "episode", or "rollout" where a window spans episodes. Without `groups` they are the tasks.
    """

    window: dict[str, torch.Tensor]
    task: np.ndarray
    tasks: list[str]
    episode: np.ndarray
    decided: np.ndarray
    cell: np.ndarray
    num_episodes: int
    asked: np.ndarray | None = None
    group: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    groups: Sequence[str] = ()
    unit: str = "task"

    def __post_init__(self):
        if not self.groups:
            object.__setattr__(self, "group", self.task)
            object.__setattr__(self, "groups", self.tasks)

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
        """Whether an earlier entry has the same observation, False without an entry."""
        visited, window = self.valid.copy(), np.arange(len(self))[:, None]
        cell = (window * (self.cell.max() + 1) + self.cell)[visited]
        later = np.ones(len(cell), bool)
        later[np.unique(cell, return_index=True)[1]] = False
        visited[visited] = later
        return visited

    def select(self, rows: np.ndarray | slice) -> "Contexts":
        """Return the windows `rows`, an index into the B windows."""
        names = ("task", "episode", "decided", "cell", "group", "asked")
        labels = {name: getattr(self, name) for name in names}
        labels = {name: label if label is None else label[rows] for name, label in labels.items()}
        index = rows if isinstance(rows, slice) else torch.as_tensor(rows)
        window = {name: values[index] for name, values in self.window.items()}
        return replace(self, window=window, **labels)

    def spread(self, most: int) -> "Contexts":
        """Return at most `most` of the windows, spread over all."""
        return self.select(slice(None, None, -(-len(self) // most)))

    @property
    def last(self) -> np.ndarray:
        """The entry of the last decided decision of each window, int64 [B]."""
        return self.length - self.decided[:, ::-1].argmax(1)

    @property
    def present(self) -> np.ndarray:
        """Whether an entry is of the episode of the last decided decision, bool [B, T + 1]."""
        episode = self.episode[np.arange(len(self)), self.last]
        return self.valid & (self.episode == episode[:, None])

    def where(self, mask: np.ndarray) -> "Contexts":
        """Return the windows of the decisions in `mask`, bool [B, T + 1], which alone are decided.

        Raises ConfigError if there are none.
        """
        decided = self.decided & mask
        if not decided.any():
            raise ConfigError("there is no such decision in the contexts")
        return replace(self, decided=decided).select(np.flatnonzero(decided.any(1)))

    def total(self, values: torch.Tensor) -> np.ndarray:
        """Sum `values` [B, T, ...] over the decided decisions: float64 [groups, episodes, ...]."""
        decided = torch.from_numpy(self.decided[:, 1:])
        place = self.group[:, None] * self.num_episodes + self.episode[:, 1:].clip(
            0, self.num_episodes - 1
        )
        total = torch.zeros(
            (len(self.groups) * self.num_episodes, *values.shape[2:]), dtype=torch.float64
        )
        total.index_add_(0, torch.from_numpy(place)[decided], values.cpu()[decided].double())
        return total.unflatten(0, (len(self.groups), -1)).numpy()

    def sums(
        self, measure: Callable[["Contexts"], dict[str, torch.Tensor]], size: int = 64
    ) -> dict[str, np.ndarray]:
        """Sum what `measure` returns of `size` windows, [B, T, ...] by name, as `total` does.

        `count` [groups, episodes] is the number of decisions.
        """
        sums = {"count": self.total(torch.ones(len(self), self.length))}
        for batch in self.batches(size):
            for name, values in measure(batch).items():
                sums[name] = sums.get(name, 0.0) + batch.total(values)
        return sums

    def batches(self, size: int = 64) -> Iterator["Contexts"]:
        """Yield the windows in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.select(slice(start, start + size))


@dataclass(frozen=True)
class Environments:
    """N environments of a rollout of `episodes` each.

    pairs: the evaluation seed and the task of each. asked: float64 [N], the return that is asked
    for in each, None without one. unit: what intervals resample (`Contexts.unit`).
    """

    pairs: list[tuple[int, np.ndarray]]
    asked: np.ndarray | None
    unit: str
    episodes: int

    @property
    def tasks(self) -> dict[str, np.ndarray]:
        """The tasks by name, in order."""
        return {task_name(task): task for _, task in self.pairs}

    @property
    def groups(self) -> list[str]:
        """The names of the groups: tasks, environments, or the episodes of each environment."""
        if self.unit == "task":
            return list(self.tasks)
        names = [f"seed {seed}" for seed, _ in self.pairs]
        if self.asked is not None:
            names = [f"{n}, {a:g} asked" for n, a in zip(names, self.asked, strict=True)]
        if self.unit == "rollout":
            return names
        return [f"{name}, episode {e + 1}" for name in names for e in range(self.episodes)]

    def group(self, env: np.ndarray, episode: np.ndarray | int) -> np.ndarray:
        """Return the group of episodes of environments, int64 [n] each."""
        if self.unit == "task":
            names = [task_name(task) for _, task in self.pairs]
            return np.array([self.groups.index(name) for name in names])[env]
        return env if self.unit == "rollout" else env * self.episodes + episode

    def times(self, count: int) -> "Environments":
        """Return the environments `count` times, one after the other."""
        asked = None if self.asked is None else np.tile(self.asked, count)
        return replace(self, pairs=self.pairs * count, asked=asked)

    def by_group(self, values: np.ndarray) -> np.ndarray:
        """Return the means of `values` [..., N, E] without NaN over the environments of each group.

        They are float64 [..., K, E], and [..., K, 1] where the groups are episodes.
        """
        if self.unit != "task":
            columns = values.shape[-1] if self.unit == "rollout" else 1
            return values.reshape(*values.shape[:-2], -1, columns).astype(np.float64)
        group = self.group(np.arange(len(self.pairs)), 0)
        own = [values[..., group == g, :] for g in np.unique(group)]
        means = [ratio(np.nansum(each, -2), np.isfinite(each).sum(-2)) for each in own]
        return np.stack(means, -2)

    def config(self, config: Experiment) -> Experiment:
        """Return the experiment with an evaluation that asks for the return of each environment."""
        return config if self.asked is None else asking_for(config, self.asked.tolist())

    def play(
        self, config: Experiment, method: Method, model, change: "ChangePolicy | None" = None
    ) -> Rollout:
        """Roll out the frozen model with the evaluation's policy, which `change` may change."""
        config = self.config(config)
        new_policy = policy_of(config, method, model)
        new_changed = (lambda n: change(new_policy(n))) if change else new_policy
        return rollout_envs(config, self.pairs, new_changed, self.episodes)


ChangePolicy = Callable[[Policy], Policy]  # a policy for all environments of a rollout


def environments(
    config: Experiment,
    method: Method,
    tasks: np.ndarray,
    episodes: int,
    asked: Sequence[float] = (),
    first_seed: int = 0,
) -> Environments:
    """Return the environments of `tasks` [K, D] for each return of `asked`; none: without a list.

    Several tasks are played under evaluation seed 0. Of tasks that are all the same, the first one
    is played in ROLLOUTS environments for each asked return, under seeds from `first_seed` on.
    """
    asked = list(asked) or [np.nan]
    kwargs = config.env.tasks
    kinds = {str(kwargs[int(task[0])]) if kwargs else task_name(task) for task in tasks}
    if len(kinds) > 1:
        unit, pairs = "task", [(0, task) for _ in asked for task in tasks]
    else:
        unit = "episode" if method.within_episodes else "rollout"
        episodes = min(episodes, EPISODES) if method.within_episodes else episodes
        seeds = range(first_seed, first_seed + ROLLOUTS * len(asked))
        pairs = [(seed, tasks[0]) for seed in seeds]
    returns = np.repeat(np.array(asked, np.float64), len(pairs) // len(asked))
    return Environments(pairs, None if np.isnan(returns).any() else returns, unit, episodes)


def asked_returns(config: Experiment, spec: Spec) -> list[float]:
    """Return the returns that rollouts ask for where none is chosen.

    They are those of `evaluation.asked_returns`, else the lowest, the middle and the highest return
    of the histories.
    """
    low, high = spec.return_range
    listed = config.evaluation.asked_returns
    return list(dict.fromkeys(listed or (low, (low + high) / 2, high)))


def rollout_contexts(
    config: Experiment, method: Method, model: SequenceModel, played: Environments
) -> Contexts:
    """Roll out the frozen model in the environments `played` and return the windows that it read.

    If there are more than MOST_WINDOWS, as many are returned, spread over the rollouts, and equally
    many of each asked return. Of a model that carries a state each rollout is a window, of at most
    MOST_DECISIONS. Raises ConfigError for a policy without windows.
    """
    recorders = []
    if model.carries:
        length = config.env.episode_length
        episodes = min(played.episodes, max(MOST_DECISIONS // length, 1))
        played = replace(played, episodes=episodes)
        config = replace(config, data=replace(config.data, context_length=episodes * length))

    def record(policy: Policy) -> Policy:
        recorders.append(WindowRecorder(policy, len(played.pairs)))
        return recorders[-1]

    played.play(config, method, model, record)
    arrays = recorders[0].windows(played.episodes)
    asked = played.asked
    if asked is None and RETURN_TO_GO in model.tokenizer.inputs:
        asked = np.full(len(played.pairs), asked_return(config, model), np.float64)
    rows = _spread(np.zeros(len(arrays["env"])) if asked is None else asked[arrays["env"]])
    arrays = {name: values[rows] for name, values in arrays.items()}
    env, episode = arrays.pop("env"), arrays["episode"].max(1, where=arrays["valid"], initial=0)
    names = list(played.tasks)
    task = np.array([names.index(task_name(task)) for _, task in played.pairs])[env]
    contexts = label_contexts(arrays, task, list(played.tasks.values()), model)
    return replace(
        contexts,
        asked=None if asked is None else asked[env],
        group=played.group(env, episode),
        groups=played.groups,
        unit=played.unit,
        num_episodes=1 if played.unit == "episode" else contexts.num_episodes,
    )


def _spread(asked: np.ndarray) -> np.ndarray:
    """Return at most MOST_WINDOWS of windows, spread over those of each return, int64 [n]."""
    values = np.unique(asked)
    own = [np.flatnonzero(asked == value) for value in values]
    most = MOST_WINDOWS // len(values)
    return np.sort(np.concatenate([rows[:: -(-len(rows) // most)] for rows in own]))


class WindowRecorder(PolicyWrapper):
    """A policy that keeps the windows that its model reads in N environments.

    While the next window of an environment begins with the present one, only the longer one is
    kept: in it the model reads the earlier decisions as it did when they were made. The window of a
    model that carries a state always does, and is kept when the rollout ends.
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
        if self.inner.model.carries:
            return logits
        window, last = self._window()
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
        outcome |= {"action": action, "reward": self.inner.context_reward(reward)}
        for name, values in outcome.items() if self.open else ():
            self.open[name][np.arange(len(values)), self.open["last"]] = values.cpu().numpy()
        self.episode.append(self.episode[-1].copy())
        self.episode[-1][self.envs] += (terminated | truncated).cpu().numpy()
        self.step += 1

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order."""
        self._open_rollouts()
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
        self._open_rollouts()
        self._close(np.arange(len(self.envs)))
        padding = self.inner.context.padding | {"number": 0}
        longest = max(window["last"].max() for window in self.closed) + 1
        arrays = {
            name: np.concatenate(
                [padded(window[name], longest, padding[name]) for window in self.closed]
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

    def _window(self) -> tuple[Batch, np.ndarray]:
        """Return the windows [N, T + 1] of the policy, and the last entry of each, int64 [N]."""
        window = {name: value.cpu().numpy().copy() for name, value in self.inner.window().items()}
        return window, window["valid"].shape[1] - 1 - window["valid"][:, ::-1].argmax(1)

    def _open_rollouts(self) -> None:
        """Read the windows of a model that carries a state: every decision was made in them."""
        if self.inner.model.carries:
            window, last = self._window()
            own = {"number": window["step"], "last": last, "first": 0 * last, "env": self.envs}
            self.open = window | own

    def _extends(self, window: Batch, last: np.ndarray) -> np.ndarray:
        """Return which open windows the windows of the present decision begin with, bool [N]."""
        extends, size = last > self.open["last"], self.open["valid"].shape[1]
        inside = np.arange(size) <= self.open["last"][:, None]
        for name, values in window.items():
            old, new = self.open[name], padded(values, size, 0)
            same = (old == new) | ((old != old) & (new != new))  # NaN is the padding of rewards
            extends &= (same.reshape(*inside.shape, -1).all(2) | ~inside).all(1)
        return extends

    def _close(self, rows: np.ndarray) -> None:
        """Keep the open windows `rows`, int64 [M], as they are."""
        if len(rows):
            self.closed.append({name: values[rows] for name, values in self.open.items()})


class HookedPolicy(PolicyWrapper):
    """A policy whose model is hooked in `act` alone.

    If returns are asked for, the end of an episode changes them to what it achieved, and the model
    reads the past again without the hooks: the next `act` reads the whole window anew.
    """

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Add the outcome of the last decision, [N, ...] each."""
        from ad.methods.contexts import SlidingWindow

        super().observe(action, reward, terminated, truncated, next_observation)
        context, ended = context_policy(self.policy).context, (terminated | truncated).any()
        if ended and RETURN_TO_GO in context.fields and isinstance(context, SlidingWindow):
            context.forget()


def context_policy(policy: Policy) -> "ContextPolicy":
    """Return the policy inside that reads a context, without temperatures around it.

    Raises ConfigError for a policy without windows.
    """
    from ad.methods.context_policy import ContextPolicy

    inner = getattr(policy, "policy", policy)
    if not isinstance(inner, ContextPolicy):
        raise ConfigError(f"{type(inner).__name__} has no window of transitions to look at")
    return inner


def padded(values: np.ndarray, length: int, padding: float) -> np.ndarray:
    """Return `values` [N, T, ...] cut or padded to [N, length, ...]."""
    missing = max(length - values.shape[1], 0)
    widths = ((0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2))
    return np.pad(values, widths, constant_values=padding)[:, :length]


def history_contexts(
    dataset: TrainingSet, method: Method, model: SequenceModel, count: int
) -> Contexts:
    """Return `count` windows of the histories' held-out actors, or of all if none is held out.

    Every decision that is not retrieved is marked as decided.
    """
    own = {"task": _task_of, "episode": _episode_of, "sequence": _sequence_of}
    derived = {**method.derived, **own}
    sampler = dataset.sampler(
        (*method.fields, *own),
        held_out=bool(dataset.config.data.held_out_actors),
        history_part=method.history_part,
        derived=derived,
        best_fraction=method.best_fraction,
        within_episodes=method.within_episodes,
    )
    rng = np.random.default_rng(derive_key(0, "interpret", "history contexts"))
    arrays = dict(sampler.sample(rng, count))
    arrays["decided"] = arrays["valid"] & np.logical_not(arrays.pop("retrieved", False))
    arrays["decided"][:, 0] = False
    tasks = np.array([history.task for history in dataset.histories])
    names = [task_name(task) for task in tasks]
    task = np.array([names.index(task_name(row)) for row in arrays.pop("task")[:, 1]])
    sequence = arrays.pop("sequence")[:, 1]
    contexts = replace(label_contexts(arrays, task, tasks, model), num_episodes=1)
    if len(names) > 1:
        return contexts
    found, group = np.unique(sequence, return_inverse=True)
    unit = "episode" if method.within_episodes else "history"
    groups = [f"{unit} {number}" for number in found]
    return replace(contexts, group=group, groups=groups, unit=unit)


def label_contexts(arrays: Batch, task: np.ndarray, tasks, model: SequenceModel) -> Contexts:
    """Return the contexts of windows with the further fields `episode` and `decided`.

    task: int64 [B], indices into `tasks` [K, D].
    """
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


def _sequence_of(sequences: Sequences) -> np.ndarray:
    """Return the number of each transition's sequence, int64 [M]."""
    return np.repeat(np.arange(len(sequences.lengths)), sequences.lengths)


def _episode_of(sequences: Sequences) -> np.ndarray:
    """Return the number of each transition's episode in its sequence, int64 [M]."""
    arrays, starts = sequences.arrays, np.cumsum(sequences.lengths) - sequences.lengths
    done = arrays["terminated"] | arrays["truncated"]
    before = np.cumsum(done) - done
    return before - np.repeat(before[starts], sequences.lengths)
