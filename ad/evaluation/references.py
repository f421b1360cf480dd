"""References of a learning curve: the returns that agents other than the model would reach.

The world computes its own references, `world.references`. `source` and `source_end` are the first
and the last ten episodes of the source agents' histories. `tabular_learner` starts from nothing in
each task (`ad.evaluation.source_play`). `random` actions are played where the world has no
exact value. But for the world, the tasks and the evaluation's seeds and episodes, no reference
reads a setting of the run.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ad.config.schema import EvaluationConfig, Experiment
from ad.config.world import configured_world
from ad.data.episodes import episodes, success_or_nan
from ad.data.histories import training_folders
from ad.data.store import load_history
from ad.evaluation import metrics
from ad.evaluation.metrics import LAST
from ad.evaluation.results import Evaluation
from ad.evaluation.source_play import learned_returns
from ad.methods.policy import Policy
from ad.rollout.rollout import Rollout
from ad.rollout.tasks import rollout_tasks
from ad.runtime.run import Run
from envs.oracle import Reference, TaskOracle, constant_reference
from envs.tasks import SPLITS, Split

References = dict[str, dict[str, Reference]]  # reference name -> split -> Reference


def all_references(run: Run, evaluations: dict[str, Evaluation]) -> References:
    """Compute all references of `run`, including those from its histories."""
    references = evaluated_references(run.config, run.evaluated_split, evaluations)
    if run.config.env.change:
        return references
    source = history_references(run, evaluations["held_out"].returns.shape[2])
    return references | {name: {"train": reference} for name, reference in source.items()}


def evaluated_references(
    config: Experiment, split: Split, evaluations: dict[str, Evaluation]
) -> References:
    """Compute the references that need no histories: random, the world's, the tabular learner.

    A model below the tabular learner learns a task worse than an agent without any training.
    """
    world = configured_world(config.env)
    if config.env.change:
        return _references_of_changes(world, config, split, evaluations)
    references = {"random": random_references(world, config, split)}
    for split_name, evaluation in evaluations.items():
        num_episodes = evaluation.returns.shape[2]
        own = world.references(evaluation.tasks, config.env.episode_length, num_episodes)
        for name, reference in own.items():
            references.setdefault(name, {})[split_name] = reference
    # With a limit of env steps the number of episodes depends on the agent that was evaluated.
    learned = {} if config.evaluation.env_steps else learned_returns(config.env, evaluations)
    if learned:
        references["tabular_learner"] = {
            split_name: _reference(world, returns) for split_name, returns in learned.items()
        }
    return references


def _references_of_changes(
    world: TaskOracle, config: Experiment, split: Split, evaluations: dict[str, Evaluation]
) -> References:
    """Compute the references in tasks that change as in `evaluations`; their arrays are [K, S, E].

    They are random actions and two tabular learners: one keeps its table, one starts from nothing
    at each change. The curves of the world and of the histories are of tasks that do not change.
    """
    random = {
        name: own.returns.reshape(-1, len(evaluations[name].tasks), own.returns.shape[1])
        for name, own in _random_rollouts(world, config, split).items()
    }
    by_name = {
        "random": {
            name: own.swapaxes(0, 1)[..., : evaluations[name].returns.shape[2]]
            for name, own in random.items()
        },
        "tabular_learner": learned_returns(config.env, evaluations),
        "restarted_learner": learned_returns(config.env, evaluations, restarted=True),
    }
    return {
        name: {s: Reference(own, success_or_nan(world, own)) for s, own in by_split.items()}
        for name, by_split in by_name.items()
        if by_split
    }


def random_references(world: TaskOracle, config: Experiment, split: Split) -> dict[str, Reference]:
    """Return the reference of uniform actions in the tasks of each split.

    It is the exact `random_return` of `world` if there is one. Otherwise the evaluation of `config`
    is played: actions that learn nothing have the same expected return in each episode, which is
    the mean over all episodes and evaluation seeds.
    """
    settings, length = config.evaluation, config.env.episode_length
    exact = {n: world.random_return(getattr(split, f"{n}_tasks"), length) for n in SPLITS}
    if exact["held_out"] is not None:
        return {
            name: constant_reference(returns, np.full(len(returns), np.nan), settings.episodes)
            for name, returns in exact.items()
            if returns is not None
        }
    references = {}
    for name, own in _random_rollouts(world, config, split).items():
        shape = -1, len(getattr(split, f"{name}_tasks")), own.returns.shape[1]
        means = (
            metrics.mean_of_known(values.reshape(shape), (0, 2))
            for values in (own.returns, own.successes)
        )
        references[name] = constant_reference(*means, own.returns.shape[1])
    return references


def _random_rollouts(world: TaskOracle, config: Experiment, split: Split) -> dict[str, Rollout]:
    """Play the evaluation of `config` with uniform actions: rollouts by split name."""
    settings = config.evaluation
    sampling = EvaluationConfig(action="sample", temperature=1.0, temperature_known=None)
    uniform = partial(UniformPolicy, world.num_actions)
    num_seeds = settings.eval_seeds, settings.train_eval_seeds
    return rollout_tasks(
        Experiment(env=config.env, evaluation=sampling),
        split,
        uniform,
        settings.episodes,
        num_seeds,
        env_steps=settings.env_steps,
    )


class UniformPolicy(Policy):
    """A policy of uniform actions."""

    def __init__(self, num_actions: int, num_envs: int):
        self.num_actions = num_actions

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return equal logits, [N, A]."""
        return torch.zeros(len(time), self.num_actions)

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Learn nothing from the outcome of the last decision."""

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, which have no context."""


def history_references(run: Run, num_episodes: int) -> dict[str, Reference]:
    """Compute the references of the source agents' first `num_episodes` and last ten episodes.

    The agents learned the train tasks that are evaluated. Returns {} if one has no history.
    Agents that stopped learning are left out, since a policy frozen half-way does not represent the
    source algorithm.
    """
    folders = training_folders(run.config, run.evaluated_split.train_tasks)
    if folders is None:
        return {}
    returns = {}
    for k, folder in enumerate(folders):
        history = load_history(folder, ("terminated", "truncated", "reward"))
        if history.stopped_at is None:
            arrays = history.arrays
            whole = episodes(arrays["terminated"] | arrays["truncated"], arrays["reward"])
            actors = range(len(arrays["reward"]))
            returns[k] = [whole.returns[whole.actor == j] for j in actors]
    if not returns:
        return {}
    references = source_references(run.world, list(returns.values()), num_episodes, LAST)
    tasks = np.array(list(returns))
    return {name: replace(reference, tasks=tasks) for name, reference in references.items()}


def source_references(
    world: TaskOracle, returns: list[list[np.ndarray]], episodes: int, last: int
) -> dict[str, Reference]:
    """Return means over actors of the source's first `episodes` and its `last` episodes.

    `returns[k][j]`: the returns of the episodes of task k, actor j. Actors differ in their number
    of episodes. The curve stops at the smallest number, since only actors that already finish
    quickly have later episodes. Returns {} if an actor has fewer than `last` episodes.
    """
    shortest = min(len(actor) for actors in returns for actor in actors)
    if shortest < last:
        return {}
    parts = {"source": slice(min(episodes, shortest)), "source_end": slice(-last, None)}
    selected = {
        name: np.array([[actor[part] for actor in actors] for actors in returns])
        for name, part in parts.items()
    }
    references = {name: _reference(world, values) for name, values in selected.items()}
    return {  # a shorter curve has no first success to compare
        name: reference
        if reference.returns.shape[1] == episodes
        else replace(reference, p_success=None)
        for name, reference in references.items()
    }


def _reference(world: TaskOracle, returns: np.ndarray) -> Reference:
    """Return the means over the agents of each task, whose `returns` are [K, agents, E]."""
    successes = success_or_nan(world, returns)
    p_success = np.maximum.accumulate(successes, axis=2).mean(1)
    return Reference(returns.mean(1), successes.mean(1), p_success)
