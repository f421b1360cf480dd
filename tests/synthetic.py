"""Synthetic learning histories in the layout of XLand-MiniGrid's data sets, of any size."""

from pathlib import Path

import numpy as np

from ad.exchange.xland import NUM_ACTIONS, create_arrays, new_file
from envs.rng import derive_key

VIEW = 5, 5  # cells
CELLS = 13 * 12  # tiles times colors of a cell
GOALS = 6  # the lowest values of the center cell; acting well there ends an episode


def write_synthetic(
    path: Path, num_tasks: int, num_actors: int, steps: int, episode_length: int
) -> None:
    """Write a file of histories in which agents get better, with `steps` transitions an actor."""
    with new_file(path) as (file, check):
        for task in range(num_tasks):
            group = file.create_group(str(task))
            group.attrs.update({"env-id": "synthetic", "benchmark-id": "synthetic"})
            group.attrs["ruleset-id"] = task
            arrays = synthetic_history(task, num_actors, steps, episode_length)
            create_arrays(group, {name: (v.shape, v.dtype) for name, v in arrays.items()})
            for name, values in arrays.items():
                group[name][:] = values
        check()


def synthetic_history(
    task: int, num_actors: int, steps: int, episode_length: int
) -> dict[str, np.ndarray]:
    """Return the arrays [num_actors, steps, ...] of a task's learning history, by name.

    Views are random. The expert's action depends on the center cell, differently in each task. The
    probability that it is taken, and otherwise a random one, rises from 0 to 1 over the history.
    The expert's action pays 1 and ends the episode where the center cell is a goal.
    """
    rng = np.random.default_rng(derive_key("synthetic", task))
    states = rng.integers(0, CELLS, (num_actors, steps, *VIEW), dtype=np.uint8)
    center = states[:, :, VIEW[0] // 2, VIEW[1] // 2]
    expert = rng.integers(0, NUM_ACTIONS, CELLS, dtype=np.uint8)[center]
    actions = rng.integers(0, NUM_ACTIONS, expert.shape, dtype=np.uint8)
    follows = rng.random(expert.shape, dtype=np.float32) < np.linspace(0, 1, steps)
    actions = np.where(follows, expert, actions)
    solved = (center < GOALS) & (actions == expert)
    dones = solved.copy()
    dones[:, episode_length - 1 :: episode_length] = True
    return {
        "states": states,
        "actions": actions,
        "rewards": solved.astype(np.float16),
        "dones": dones,
        "expert_actions": expert,
    }
