"""The world of an experiment and the split of its tasks."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ad.config import published
from ad.config.schema import EnvConfig, Experiment, SplitConfig
from ad.errors import ConfigError
from envs import REGISTRY, changing, make_base, make_vec
from envs.changes import Changes
from envs.presets import PRESETS, resolve_length
from envs.rng import derive_key
from envs.spaces import ObservationError, check_observation
from envs.tasks import RESERVED, Split, make_split, order_of_tasks, spread_tasks, task_name
from envs.wrappers import VectorEpisodeLength

NUM_TUNING_TASKS = 20  # held out by split.tuning


def configured_world(env: EnvConfig):
    """Return the base vector environment of the first task, which knows all tasks of `env`.

    A process makes it once and shares it: it is only read, never stepped. Raises ValueError.
    """
    return _world(json.dumps([env.id, env.tasks, env.kwargs], sort_keys=True))


@lru_cache(maxsize=16)
def _world(arguments: str):
    env_id, tasks, kwargs = json.loads(arguments)
    return make_base(env_id, tasks, **kwargs)


def make_envs(
    env: EnvConfig, tasks: np.ndarray, changes: Changes | None = None
) -> VectorEpisodeLength:
    """Return a vector environment of `env` with an environment for each of `tasks`, int [N, ...].

    Episodes have the configured length, and begin anew in the step that ends one. Tasks change by
    `changes`, None for never. Every observation of a world from outside the suite is checked.
    """
    if env.id in REGISTRY or env.id in PRESETS:
        return make_vec(env.id, tasks, env.episode_length, changes=changes, **env.kwargs)
    base = make_base(env.id, env.tasks, tasks=tasks, **env.kwargs)
    if changes is not None:
        base = changing(env.id, base, changes, **env.kwargs)
    return _CheckedEnvs(base, resolve_length(env.id, env.episode_length))


def task_changes(
    env: EnvConfig, parts: Sequence[np.ndarray], envs: Sequence[tuple[int, np.ndarray]]
) -> Changes | None:
    """Return the schedule by `env.change` of an environment for each pair (seed, task) of `envs`.

    `parts` are lists of tasks, int [P, D] each, without common tasks: a task changes to others of
    its own list. Environments of the same pair have the same tasks. None if tasks do not change.
    """
    if not env.change:
        return None
    pool_of = {tuple(task): own for own in parts for task in own.tolist()}
    keys = [derive_key(seed, "change", task_name(task)) for seed, task in envs]
    return Changes(env.change, keys, [pool_of[tuple(task.tolist())] for _, task in envs])


def history_rate(config: Experiment) -> float:
    """Return the rate of the schedule of a source's actors, as `Changes` has it.

    `env.change` counts episodes of a training sequence, which has every `data.history_stride`-th.
    """
    rate, stride = config.env.change, config.data.history_stride
    return rate * stride if rate >= 1 else 1 - (1 - rate) ** (1 / stride)


def history_changes(config: Experiment, tasks: np.ndarray) -> Changes | None:
    """Return the schedule of the actors of source agents on `tasks`, grouped by task.

    All actors of an agent have the same tasks. None if tasks do not change.
    """
    rate, source = history_rate(config), config.source
    actors = [(source.source_seed, task) for task in tasks for _ in range(source.num_envs)]
    parts = [configured_split(config.env, config.split).train_tasks] if rate else []
    return task_changes(replace(config.env, change=rate), parts, actors)


def evaluated_env(env: EnvConfig, entry: dict) -> EnvConfig:
    """Return the environment of an entry of `evaluation.worlds`: `change`, or else settings."""
    kwargs = {name: value for name, value in entry.items() if name != "change"}
    return replace(env, kwargs=env.kwargs | kwargs, change=entry.get("change", env.change))


class _CheckedEnvs(VectorEpisodeLength):
    """A vector environment that raises ConfigError for an observation outside its space."""

    def reset(self, *, seed=None, options=None):
        return self._checked(super().reset, seed=seed, options=options)

    def _advance(self, actions, active=None):
        return self._checked(super()._advance, actions, active)

    def _checked(self, call: Callable[..., tuple], *arguments, **named) -> tuple:
        """Return what `call` returns, an observation first."""
        try:
            result = call(*arguments, **named)
            check_observation(self.unwrapped, result[0])
        except ObservationError as error:
            raise ConfigError(f"the world breaks its observation space: {error}") from error
        return result


def configured_split(env: EnvConfig, split: SplitConfig) -> Split:
    """Return the configured split. Raises ValueError if it is not possible.

    Splits of the seeds of published rows train on the tasks that `split.tuning` holds out, if they
    have as many train tasks as published rows, and splits of other seeds do, if they have at least
    as many train tasks as there are such tasks.
    """
    held_out, first = split.held_out, None
    if split.tuning:
        if held_out is not None or split.num_held_out is not None:
            raise ValueError(
                "split.tuning chooses the held-out tasks: held_out and num_held_out must be null"
            )
        held_out = _tuning_tasks(configured_world(env))
    elif held_out is None and split.split_seed not in published.SEEDS:
        world = configured_world(env)
        if world.held_out_tasks() is None:
            with suppress(ValueError):  # each task is in a published row
                first = _tuning_tasks(world)
    return make_split(
        env.id,
        env.kwargs,
        split.split_seed,
        split.num_train_tasks,
        held_out,
        env.tasks,
        split.num_held_out,
        first,
    )


def _tuning_tasks(world) -> list[list[int]]:
    """Return the tasks that `split.tuning` holds out; ValueError if each is in a published row."""
    return spread_tasks(world, NUM_TUNING_TASKS, _published_tasks(world))


def _published_tasks(world) -> list[list[int]]:
    """Return the tasks of `world` that are held out in any published row."""
    if (defined := world.held_out_tasks()) is not None:
        return defined.tolist()
    all_tasks = world.all_tasks()
    number = max(round(published.TRAIN_FRACTION * len(all_tasks)), 1)
    num_train_tasks = min(number, published.MOST_TRAIN_TASKS)
    held_out = [
        all_tasks[k].tolist()
        for seed in published.SEEDS
        for k in order_of_tasks(seed, len(all_tasks))[num_train_tasks:]
    ]
    return held_out + (published.SEED_EXPERIMENT if world.task_grid == (9, 9) else [])


def reserved_problem(kwargs: dict) -> str | None:
    """Return a problem if `kwargs` of an environment set what the user must not set, else None."""
    if reserved := sorted(kwargs.keys() & RESERVED):
        return f"must not set {', '.join(reserved)}: the suite sets it"
