"""The tabular learner: a reference that starts from nothing in each evaluated task.

It is UCB1 on a bandit and Q-learning in any other world with tabular states: the code of the source
of that name, with a single actor and a table of its own for each task and evaluation seed. It has
the settings of the experiment's source where that is the same algorithm, otherwise the defaults.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

import numpy as np

from ad.config.schema import EnvConfig, Experiment
from ad.config.world import configured_world, make_envs
from ad.data.episodes import episodes
from ad.evaluation.results import Evaluation
from ad.registry import SOURCES
from ad.sources import fits
from envs.rng import derive_key
from envs.tasks import task_name

LEARNERS = ("ucb", "q_learning")  # the first that can learn in a world
MOST_STEPS = 10_000  # of each environment: one takes about a millisecond
MOST_VALUES = 2**23  # in the tables of all environments, about 20 bytes each


def learned_returns(
    config: Experiment, evaluations: dict[str, Evaluation]
) -> dict[str, np.ndarray]:
    """Return the returns of the tabular learner's episodes by split, float64 [K, S, E] each.

    Tasks, evaluation seeds and episodes are those of `evaluations`. Returns {} in a world without
    tabular states, and where learning would take more than MOST_STEPS or MOST_VALUES.
    """
    shapes = {split: evaluation.returns.shape for split, evaluation in evaluations.items()}
    played = [
        (seed, task)
        for split, evaluation in evaluations.items()
        for task in evaluation.tasks.tolist()
        for seed in range(shapes[split][1])
    ]
    num_episodes = max(shape[2] for shape in shapes.values())
    algorithm = _algorithm(config.env, len(played), num_episodes)
    if algorithm is None:
        return {}
    settings = config.source.settings if config.source.algorithm == algorithm else {}
    returns = _learn(json.dumps([asdict(config.env), algorithm, settings, played, num_episodes]))
    stops = np.cumsum([shape[0] * shape[1] for shape in shapes.values()])[:-1]
    parts = zip(shapes.items(), np.split(returns, stops), strict=True)
    return {split: part.reshape(shape) for (split, shape), part in parts}


def _algorithm(env: EnvConfig, num_envs: int, num_episodes: int) -> str | None:
    """Return the name of the first source that learns in the world, None if none can or may."""
    world = configured_world(env)
    for name in LEARNERS:
        if fits(name, env, world):
            values = num_envs * world.single_observation_space.n * world.single_action_space.n
            steps = num_episodes * env.episode_length
            return name if values <= MOST_VALUES and steps <= MOST_STEPS else None
    return None


@lru_cache(maxsize=4)
def _learn(question: str) -> np.ndarray:
    """Return the returns [N, E] of the learner of N pairs (evaluation seed, task).

    `question` has the world, the algorithm, its settings, the pairs and E as JSON. Evaluating and
    reporting a run, and runs that differ in their model only, ask the same question.
    """
    env_settings, algorithm, settings, played, num_episodes = json.loads(question)
    env, source = EnvConfig(**env_settings), SOURCES.load(algorithm)
    tasks = np.array([task for _, task in played])
    keys = [derive_key(seed, "tabular learner", task_name(task)) for seed, task in played]
    learner = source(source.Settings(**settings), make_envs(env, tasks), tasks, 1, keys)
    done, rewards, counts = [], [], np.zeros(len(tasks), int)
    for chunk in learner.run(num_episodes * env.episode_length):
        ends = chunk.arrays["terminated"] | chunk.arrays["truncated"]
        done.append(ends[:, :, 0].copy())  # [T, N], of the only actor
        rewards.append(chunk.arrays["reward"][:, :, 0].copy())
        counts += done[-1].sum(0)
        if counts.min() >= num_episodes:
            break
    return _first_returns(done, rewards, num_episodes)


def _first_returns(
    done: Sequence[np.ndarray], rewards: Sequence[np.ndarray], num_episodes: int
) -> np.ndarray:
    """Return the returns of the first episodes of each environment, [N, E], from chunks [T, N]."""
    whole = episodes(np.concatenate(done).T, np.concatenate(rewards).T)
    first = np.searchsorted(whole.actor, np.arange(done[0].shape[1]))
    return whole.returns[first[:, None] + np.arange(num_episodes)]
