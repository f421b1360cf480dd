"""The reference of random actions: exact where the world can tell, and otherwise played."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ad.config.schema import Experiment
from ad.rollout.rollout import Rollout
from ad.rollout.tasks import rollout_tasks
from envs.oracle import Reference, TaskOracle, constant_reference
from envs.tasks import SPLITS, Split


def random_references(world: TaskOracle, config: Experiment, split: Split) -> dict[str, Reference]:
    """Return the reference of uniform actions in the tasks of each split.

    It has the `random_return` of `world` where that is known. Otherwise the evaluation of `config`
    is played: actions that learn nothing have the same expected return in each episode, which is
    the mean over all episodes and evaluation seeds.
    """
    tasks = {name: getattr(split, f"{name}_tasks") for name in SPLITS}
    length, num_episodes = config.env.episode_length, config.evaluation.episodes
    known = {name: world.random_return(own, length) for name, own in tasks.items()}
    if known["held_out"] is not None:
        return {
            name: constant_reference(own, np.full(len(own), np.nan), num_episodes)
            for name, own in known.items()
        }
    sampling = replace(config.evaluation, action="sample", temperature=1.0, temperature_known=None)
    seeds = (sampling.eval_seeds, sampling.train_eval_seeds)
    uniform = partial(UniformPolicy, int(world.single_action_space.n))
    played = rollout_tasks(
        replace(config, evaluation=sampling), split, uniform, num_episodes, seeds
    )
    return {name: _mean_reference(own, len(tasks[name])) for name, own in played.items()}


class UniformPolicy:
    """The policy of a rollout that prefers none of its `num_actions` actions."""

    def __init__(self, num_actions: int, num_envs: int):
        self.num_actions = num_actions

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return equal logits, [N, A]."""
        return torch.zeros(len(time), self.num_actions)

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Learn nothing from the outcome of the last decision."""

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, which have no context."""


def _mean_reference(played: Rollout, num_tasks: int) -> Reference:
    """Return the reference of a rollout [seeds * K, E] whose episodes have equal expectations."""
    num_episodes = played.returns.shape[1]
    returns, successes = (
        values.reshape(-1, num_tasks, num_episodes).mean((0, 2))
        for values in (played.returns, played.successes)
    )
    return constant_reference(returns, successes, num_episodes)
