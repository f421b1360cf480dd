"""Rollouts on the held-out and the train tasks of an experiment."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from ad.config.schema import EvaluationConfig, Experiment
from ad.config.world import configured_world, make_envs, task_changes
from ad.errors import ConfigError
from ad.methods.policy import Observation, Policy, PolicyWrapper
from ad.rollout.rollout import Rollout, SelectAction, greedy, rollout, rollouts_by_split, sampled
from envs.changes import Changes
from envs.rng import derive_key
from envs.tasks import Split, task_name


def rollout_tasks(
    config: Experiment,
    split: Split,
    new_policy: Callable[[int], Policy],
    episodes: int,
    num_seeds: tuple[int, int],
    record: bool = False,
    show: bool = False,
    env_steps: int | None = None,
) -> dict[str, Rollout]:
    """Return the rollouts "held_out" and "train", each [seeds * tasks, E], seed by seed.

    `new_policy(num_envs)` makes the policy. `num_seeds` are the numbers of evaluation seeds of the
    two splits. One rollout plays all environments of both: a model's fixed cost per step is paid
    once. `record` keeps the trajectories of the first seed. `show` draws a progress bar.
    `env_steps` is that of `ad.rollout.rollout.rollout`.
    """

    def play(envs: Sequence[tuple[int, np.ndarray]], first_seed: Sequence[int]) -> Rollout:
        recorded, label = first_seed if record else (), "evaluate" if show else None
        changes = task_changes(config.env, (split.held_out_tasks, split.train_tasks), envs)
        return rollout_envs(config, envs, new_policy, episodes, recorded, label, env_steps, changes)

    return rollouts_by_split((split.held_out_tasks, split.train_tasks), num_seeds, play)


def rollout_envs(
    config: Experiment,
    envs: Sequence[tuple[int, np.ndarray]],
    new_policy: Callable[[int], Policy],
    episodes: int,
    record: Sequence[int] = (),
    label: str | None = None,
    env_steps: int | None = None,
    changes: Changes | None = None,
) -> Rollout:
    """Return the rollout of an environment for each pair (evaluation seed, task) of `envs`.

    `record`, `label` and `env_steps` are those of `ad.rollout.rollout.rollout`. Tasks change by
    `changes`. Raises ConfigError for a world that cannot be stepped.
    """
    if not configured_world(config.env).can_be_stepped:
        raise ConfigError(
            "the world of recorded histories cannot be stepped: a model can be trained on them, "
            "but not evaluated"
        )
    tasks = np.array([task for _, task in envs])
    played = rollout(
        new_policy(len(envs)),
        make_envs(config.env, tasks, changes),
        [env_seed(seed, task) for seed, task in envs],
        episodes,
        selection_of(config.evaluation),
        record,
        label,
        env_steps,
    )
    return played.with_tasks(tasks, changes)


def rollout_asked(
    config: Experiment,
    method,
    model,
    asked: Sequence[float],
    envs: Sequence[tuple[int, np.ndarray]],
    episodes: int,
    label: str | None = None,
) -> Rollout:
    """Return the rollout of `envs` for each of the `asked` returns in turn, all played together.

    The policy of `method` must be return-conditioned. `envs` and `label` are those of
    `rollout_envs`.
    """
    changed = asking_for(config, [value for value in asked for _ in envs])
    new_policy = policy_of(changed, method, model)
    return rollout_envs(changed, [*envs] * len(asked), new_policy, episodes, (), label)


def asking_for(config: Experiment, asked: float | Sequence[float]) -> Experiment:
    """Return the experiment that always asks for `asked`, a return or one for each environment."""
    others = {k: v for k, v in config.evaluation.policy.items() if k != "asked_before_reward"}
    policy = others | {"asked_return": asked}
    return replace(config, evaluation=replace(config.evaluation, policy=policy))


def env_seed(eval_seed: int, task: np.ndarray) -> int:
    """Return the 64-bit key of the environment of a task, int [D], under an evaluation seed."""
    return derive_key(eval_seed, "evaluate", task_name(task))


def selection_of(settings: EvaluationConfig) -> SelectAction:
    """Return how the evaluation chooses actions from the logits of `policy_of`."""
    if settings.action == "greedy":
        return greedy
    return sampled(sampling_temperature(settings))


def sampling_temperature(settings: EvaluationConfig) -> float:
    """Return what divides the logits of `policy_of` before an action is sampled."""
    return settings.temperature if settings.temperature_known is None else 1.0


def policy_of(config: Experiment, method, model) -> Callable[[int], Policy]:
    """Return a function that makes the policy of `model` for a number of environments.

    It raises ConfigError for two temperatures where no context tells of rewards of 0 and 1.
    """
    settings, context_length = config.evaluation, config.data.context_length
    unknown, known = settings.temperature, settings.temperature_known
    is_binary = bool(model.spec.rewards) and {*model.spec.rewards} <= {0.0, 1.0}

    def new_policy(num_envs: int) -> Policy:
        own = method.PolicySettings(**settings.policy)
        policy = method.policy(model, num_envs, context_length, own)
        if known is None:
            return policy
        if policy.reward_in_context() is None:
            raise ConfigError(
                f"evaluation.temperature_known cannot be used with {config.method.name}: "
                "its policy has no context of rewards"
            )
        if not is_binary:
            raise ConfigError(
                "evaluation.temperature_known is for rewards of 0 and 1: only there does a reward "
                "in the context identify the task"
            )
        return TwoTemperatures(policy, unknown, known)

    return new_policy


class TwoTemperatures(PolicyWrapper):
    """A policy whose logits are divided by one temperature before the first reward in its context.

    After that they are divided by another: exploration needs more randomness than a known goal.
    """

    def __init__(self, policy: Policy, unknown: float, known: float):
        super().__init__(policy)
        self.unknown, self.known = unknown, known

    def act(self, observation: Observation, time: torch.Tensor) -> torch.Tensor:
        """Return action logits [N, A], float64."""
        logits = self.policy.act(observation, time).double()
        seen = self.reward_in_context()
        assert seen is not None  # `policy_of` has asked
        return logits / torch.where(seen, self.known, self.unknown)[:, None]
