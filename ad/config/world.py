"""The world of an experiment and the split of its tasks."""

import json
from functools import lru_cache

from ad.config.schema import EnvConfig, SplitConfig
from envs import make_base
from envs.tasks import Split, make_split


def configured_world(env: EnvConfig):
    """Return the base vector environment of the first task, which knows all tasks of `env`.

    A process makes it once and shares it: it is asked, never stepped. Raises ValueError.
    """
    return _world(json.dumps([env.id, env.tasks, env.kwargs], sort_keys=True))


@lru_cache(maxsize=16)
def _world(arguments: str):
    env_id, tasks, kwargs = json.loads(arguments)
    return make_base(env_id, tasks, **kwargs)


def configured_split(env: EnvConfig, split: SplitConfig) -> Split:
    """Return the configured split. Raises ValueError if it is not possible."""
    return make_split(
        env.id, env.kwargs, split.split_seed, split.num_train_tasks, split.held_out, env.tasks
    )
