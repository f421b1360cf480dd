"""References of a learning curve: the returns that agents other than the model would reach.

The world's own references come from `world.references`. The source agents' come from their
histories: `source` has their first episodes, `source_end` the last ten.
"""

from dataclasses import replace

import numpy as np

from ad.data.episodes import episodes, known_successes
from ad.data.histories import training_folders
from ad.data.store import load_history
from ad.evaluation.metrics import LAST
from ad.evaluation.results import Evaluation
from ad.runtime.run import Run
from envs.oracle import Reference, TaskOracle

References = dict[str, dict[str, Reference]]  # reference name -> split -> Reference


def all_references(run: Run, evaluations: dict[str, Evaluation]) -> References:
    """Compute all references of `run`, those of its source from its histories."""
    references = world_references(run.world, run.config.env.episode_length, evaluations)
    source = history_references(run, evaluations["held_out"].returns.shape[2])
    return references | {name: {"train": reference} for name, reference in source.items()}


def world_references(
    world: TaskOracle, episode_length: int, evaluations: dict[str, Evaluation]
) -> References:
    """Return the references that `world` knows for the tasks of each split."""
    references: References = {}
    for split, evaluation in evaluations.items():
        num_episodes = evaluation.returns.shape[2]
        by_name = world.references(evaluation.tasks, episode_length, num_episodes)
        for name, reference in by_name.items():
            references.setdefault(name, {})[split] = reference
    return references


def history_references(run: Run, num_episodes: int) -> dict[str, Reference]:
    """Compute the references of the source agents' first `num_episodes` and last ten episodes.

    Returns {} if a train task has no history. Agents that stopped learning are left out, since a
    policy frozen half-way does not represent the source algorithm.
    """
    folders = training_folders(run.config, run.split.train_tasks)
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

    returns[k][j]: the returns of the episodes of task k, actor j. Actors differ in their number of
    episodes. The curve stops at the smallest number, since later episodes would be only those of
    actors that already finish quickly. Returns {} if an actor has fewer than `last` episodes.
    """
    shortest = min(len(actor) for actors in returns for actor in actors)
    if shortest < last:
        return {}
    parts = {"source": slice(min(episodes, shortest)), "source_end": slice(-last, None)}
    selected = {
        name: np.array([[actor[part] for actor in actors] for actors in returns])
        for name, part in parts.items()
    }  # [K, actors, E]
    references = {}
    for name, values in selected.items():
        successes = known_successes(world, values)
        whole = values.shape[2] == episodes  # a shorter curve has no first success to compare
        found = np.maximum.accumulate(successes, axis=2).mean(1) if whole else None
        references[name] = Reference(values.mean(1), successes.mean(1), found)
    return references
