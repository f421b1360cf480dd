"""Rollouts of a source algorithm that starts from nothing in each evaluated task.

They are those of the method `source` (`ad.methods.source_alone`), and of the tabular learner, a
reference of every run: UCB1 on a bandit and Q-learning in any other world whose observations have
numbers, with their default settings.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ad.config.schema import EnvConfig, Experiment, SourceConfig
from ad.config.world import configured_world, make_envs, task_changes
from ad.data.episodes import episodes, success_or_nan
from ad.evaluation.metrics import first_episodes
from ad.evaluation.results import Evaluation
from ad.registry import SOURCES
from ad.rollout.rollout import Rollout, rollouts_by_split
from ad.sources import fits
from envs.changes import Changes
from envs.rng import derive_key
from envs.tasks import Split, task_name

ALGORITHMS = ("ucb", "q_learning")  # of the tabular learner: the first that can learn in a world
MAX_STEPS = 10_000  # of the tabular learner in each environment: one takes about a millisecond
MAX_VALUES = 2**23  # in the tables of all its environments, about 20 bytes each
FIELDS = ("terminated", "truncated", "reward")


def source_rollouts(config: Experiment, split: Split) -> dict[str, Rollout]:
    """Play the configured evaluation with the configured source: rollouts by split name."""
    settings, parts = config.evaluation, (split.held_out_tasks, split.train_tasks)

    def play(envs, first_seed):
        changes = task_changes(config.env, parts, envs)
        return play_source(config, envs, settings.episodes, first_seed, changes)

    return rollouts_by_split(parts, (settings.eval_seeds, settings.train_eval_seeds), play)


def learned_returns(
    env: EnvConfig, evaluations: dict[str, Evaluation], restarted: bool = False
) -> dict[str, np.ndarray]:
    """Return the returns of the tabular learner's episodes by split, float64 [K, S, E] each.

    `evaluations` have the tasks, evaluation seeds and episodes. A learner that is `restarted`
    starts from nothing at each change of its task, as a learner of a task that stays. Returns {} in
    a world whose observations have no numbers, and where learning would take more than MAX_STEPS or
    MAX_VALUES.
    """
    played, places = [], []  # a learner each: its seed and task; where its episodes are
    for split, own in evaluations.items():
        num_tasks, num_seeds, num_episodes = own.returns.shape
        for s, k in np.ndindex(num_seeds, num_tasks):
            tasks = np.full(num_episodes, k) if own.present is None else own.present[k, s]
            starts = first_episodes(tasks) if restarted else [0, num_episodes]
            for number, (start, stop) in enumerate(itertools.pairwise(starts)):
                # The first one has the seed of a learner that goes on, further ones have their own.
                seed = s if not number else s + num_seeds * (1 + k + num_tasks * (number - 1))
                played.append((seed, own.tasks[tasks[start]]))
                places.append((split, k, s, slice(start, stop)))
    env = replace(env, change=0.0) if restarted else env
    longest = max(part.stop - part.start for *_, part in places)
    if (algorithm := _algorithm(env, len(played), longest)) is None:
        return {}
    config = Experiment(env=env, source=SourceConfig(algorithm=algorithm))
    changes = task_changes(env, [one.tasks for one in evaluations.values()], played)
    learned = play_source(config, played, longest, (), changes).returns
    returns = {split: np.zeros(own.returns.shape) for split, own in evaluations.items()}
    for (split, k, s, part), values in zip(places, learned, strict=True):
        returns[split][k, s, part] = values[: part.stop - part.start]
    return returns


def _algorithm(env: EnvConfig, num_envs: int, num_episodes: int) -> str | None:
    """Return the name of the first source that learns in the world, None if none can or may."""
    world = configured_world(env)
    for name in ALGORITHMS:
        if fits(name, env, world):
            values = num_envs * world.num_observations * world.num_actions
            steps = num_episodes * env.episode_length
            return name if values <= MAX_VALUES and steps <= MAX_STEPS else None
    return None


def play_source(
    config: Experiment,
    played: Sequence[tuple[int, np.ndarray]],
    num_episodes: int,
    record: Sequence[int] = (),
    changes: Changes | None = None,
) -> Rollout:
    """Return the rollout of an environment for each pair (evaluation seed, task) of `played`.

    Each has a learner of its own, whose random numbers depend on `source.source_seed`, the
    evaluation seed and the task. `record` lists the environments whose trajectories are kept. A
    learner goes on with what it has learned where its task changes by `changes`.
    """
    own, recorded = config.source, np.array(record, np.int64)
    tasks = np.array([task for _, task in played])
    keys = [derive_key(own.source_seed, "learner", seed, task_name(t)) for seed, t in played]
    kind = SOURCES.load(own.algorithm)
    env = make_envs(config.env, tasks, changes)
    learner = kind(kind.Settings(**own.settings), env, tasks, 1, keys)
    steps: dict[str, list] = {name: [] for name in FIELDS}
    trajectory: dict[str, list] = {}
    count = np.zeros(len(tasks), int)  # of the episodes of each environment
    for chunk in learner.run(num_episodes * config.env.episode_length):
        arrays = {name: values[:, :, 0] for name, values in chunk.arrays.items()}  # [T, N, ...]
        for name in FIELDS:
            steps[name].append(arrays[name].copy())
        for name in arrays if len(recorded) else ():
            trajectory.setdefault(name, []).append(arrays[name][:, recorded])
        count += (arrays["terminated"] | arrays["truncated"]).sum(0)
        if count.min() >= num_episodes:
            break
    whole = {name: np.concatenate(values).swapaxes(0, 1) for name, values in steps.items()}
    rollout = _rollout(configured_world(config.env), whole, num_episodes)
    rollout = rollout.with_tasks(tasks, changes)
    if not len(recorded):
        return rollout
    fields = {n: np.concatenate(v).swapaxes(0, 1) for n, v in trajectory.items()}
    return replace(rollout, recorded=recorded, trajectory=_trajectory(fields, num_episodes))


def _rollout(world, steps: dict[str, np.ndarray], num_episodes: int) -> Rollout:
    """Return the first episodes of each environment of `steps`, FIELDS of [N, T] each."""
    done, reward = steps["terminated"] | steps["truncated"], steps["reward"]
    own = episodes(done, reward)
    first = np.searchsorted(own.actor, np.arange(len(done)))[:, None] + np.arange(num_episodes)
    start, returns = own.start[first], own.returns[first]  # [N, E]
    seen = np.pad(np.cumsum(reward > 0, axis=1), ((0, 0), (1, 0)))  # [N, T + 1]
    return Rollout(
        returns,
        own.stop[first] - start,
        success_or_nan(world, returns),
        np.take_along_axis(seen, start, 1) > 0,
        np.zeros(0, np.int64),
        {},
    )


def _trajectory(fields: dict[str, np.ndarray], num_episodes: int) -> dict[str, np.ndarray]:
    """Return `fields` [R, T, ...] as those of `Rollout.trajectory`, of the first episodes."""
    done = fields.pop("terminated") | fields.pop("truncated")
    episode = done.cumsum(1) - done
    episode = np.where(episode < num_episodes, episode, -1).astype(np.int32)
    longest = (episode >= 0).sum(1).max()
    kept = fields | {"time": fields["time"].astype(np.int32), "episode": episode}
    return {name: own[:, :longest] for name, own in kept.items()}
