"""Rollouts on the held-out and the train tasks of an experiment."""

from collections.abc import Callable

import numpy as np

from ad.config.schema import Experiment
from ad.rollout.rollout import Policy, Rollout, greedy, rollout, sampled
from envs import make_vec
from envs.rng import derive_key
from envs.tasks import SPLITS, Split, task_name


def rollout_tasks(
    config: Experiment,
    split: Split,
    new_policy: Callable[[int], Policy],
    episodes: int,
    num_seeds: tuple[int, int],
    record: bool = False,
    show: bool = False,
) -> dict[str, Rollout]:
    """Return the rollouts "held_out" and "train", each [seeds * tasks, E], seed by seed.

    `new_policy(num_envs)` makes the policy. `num_seeds` are the numbers of evaluation seeds of the
    two splits. One rollout plays all environments of both: a model's fixed cost per step is paid
    once. `record` keeps the trajectories of the first seed. `show` draws a progress bar.
    """
    settings = config.evaluation
    played = {
        name: [(seed, task) for seed in range(count) for task in getattr(split, f"{name}_tasks")]
        for name, count in zip(SPLITS, num_seeds, strict=True)
    }
    held_out, train = played["held_out"], played["train"]
    first_seed = [env for env, (seed, _) in enumerate(held_out + train) if seed == 0]
    results = rollout(
        new_policy(len(held_out + train)),
        _make_envs(config, [task for _, task in held_out + train]),
        [derive_key(seed, "evaluate", task_name(task)) for seed, task in held_out + train],
        episodes,
        greedy if settings.action == "greedy" else sampled(settings.temperature),
        record=first_seed if record else (),
        label="evaluate" if show else None,
    )
    return {
        "held_out": results.select_envs(0, len(held_out)),
        "train": results.select_envs(len(held_out), len(held_out) + len(train)),
    }


def _make_envs(config: Experiment, tasks: list[np.ndarray]):
    env = config.env
    return make_vec(
        env.id, np.array(tasks), env.episode_length, task_kwargs=env.tasks, **env.kwargs
    )


def policy_of(config: Experiment, method, model) -> Callable[[int], Policy]:
    """Return a function that makes the policy of `model` for a number of environments."""
    context_length, arguments = config.data.context_length, config.evaluation.policy
    return lambda num_envs: method.policy(model, num_envs, context_length, **arguments)
