"""The tabular learner: a reference that starts from nothing in each evaluated task.

It is UCB1 on a bandit and Q-learning in any other world with tabular states: the source of that
name with its default settings, one actor, and a table of its own for each task and evaluation seed.
"""

from collections.abc import Sequence

import numpy as np

from ad.config.schema import EnvConfig
from ad.config.world import configured_world, make_envs
from ad.data.episodes import episodes
from ad.evaluation.results import Evaluation
from ad.registry import SOURCES
from ad.sources import fits
from envs.rng import derive_key
from envs.tasks import task_name

ALGORITHMS = ("ucb", "q_learning")  # the first that can learn in a world
MAX_STEPS = 10_000  # of each environment: one takes about a millisecond
MAX_VALUES = 2**23  # in the tables of all environments, about 20 bytes each


def learned_returns(env: EnvConfig, evaluations: dict[str, Evaluation]) -> dict[str, np.ndarray]:
    """Return the returns of the tabular learner's episodes by split, float64 [K, S, E] each.

    `evaluations` have the tasks, evaluation seeds and episodes. Returns {} in a world without
    tabular states, and where learning would take more than MAX_STEPS or MAX_VALUES.
    """
    shapes = {split: evaluation.returns.shape for split, evaluation in evaluations.items()}
    played = [
        (seed, task)
        for split, evaluation in evaluations.items()
        for task in evaluation.tasks
        for seed in range(shapes[split][1])
    ]
    num_episodes = max(shape[2] for shape in shapes.values())
    algorithm = _algorithm(env, len(played), num_episodes)
    if algorithm is None:
        return {}
    tasks = np.array([task for _, task in played])
    keys = [derive_key(seed, "tabular learner", task_name(task)) for seed, task in played]
    returns = _learn(env, algorithm, tasks, keys, num_episodes)
    stops = np.cumsum([shape[0] * shape[1] for shape in shapes.values()])[:-1]
    parts = zip(shapes.items(), np.split(returns, stops), strict=True)
    return {split: part.reshape(shape) for (split, shape), part in parts}


def _algorithm(env: EnvConfig, num_envs: int, num_episodes: int) -> str | None:
    """Return the name of the first source that learns in the world, None if none can or may."""
    world = configured_world(env)
    for name in ALGORITHMS:
        if fits(name, env, world):
            values = num_envs * world.single_observation_space.n * world.single_action_space.n
            steps = num_episodes * env.episode_length
            return name if values <= MAX_VALUES and steps <= MAX_STEPS else None
    return None


def _learn(
    env: EnvConfig, algorithm: str, tasks: np.ndarray, keys: Sequence[int], num_episodes: int
) -> np.ndarray:
    """Return the returns [N, E] of the learner in N environments, with a task and a key each."""
    source = SOURCES.load(algorithm)
    learner = source(source.Settings(), make_envs(env, tasks), tasks, 1, keys)
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
