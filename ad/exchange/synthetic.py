"""Synthetic learning histories in the layout of XLand-MiniGrid's data sets.

The published data sets have 60 GB and more. A file of the same arrays, of any size, serves to try
an experiment on such data, to measure it, and to test it.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ad.config.schema import Experiment
from ad.errors import ConfigError
from ad.exchange.formats import new_format
from ad.exchange.hdf5 import new_file
from ad.exchange.imports import SOURCE
from ad.exchange.xland import NUM_ACTIONS, create_arrays
from ad.runtime.console import info
from ad.runtime.locks import locked
from envs.rng import derive_key

VIEW = 5, 5  # cells
CELLS = 13 * 12  # tiles times colors of a cell
GOALS = 6  # the lowest values of the center cell; acting well there ends an episode
SYNTHETIC = "synthetic"  # the env-id of each task
EPISODE_LENGTH = "episode-length"  # an attribute of the file


def synthesize(config: Experiment, fresh: bool = False) -> None:
    """Write the file that the source of `config` reads, with as many tasks, actors and env steps.

    Does nothing if it has been written, unless `fresh`. Raises ConfigError if the source reads no
    file in the layout of XLand-MiniGrid's data sets, if the file is not a synthetic one, and unless
    `fresh` if it has other sizes.
    """
    source = config.source
    place = source.settings.get("place")
    if source.algorithm != SOURCE or source.settings.get("format") != "xland" or not place:
        raise ConfigError(
            f"source.algorithm must be {SOURCE}, with a file of the format xland as "
            "source.settings, as in configs/xland_large.yaml"
        )
    new_format("xland")  # an error if h5py is missing
    path, num_tasks = Path(place), config.split.num_train_tasks
    steps = source.env_steps // source.num_envs
    sizes = num_tasks, source.num_envs, steps, config.env.episode_length
    if path.exists():
        found = synthetic_sizes(path)
        if found is None:
            raise ConfigError(
                f"{path} is not a synthetic data set, and is kept: source.settings.place must name "
                "another file"
            )
        if found == sizes and not fresh:
            return info(f"synthesize: already done, {path}")
        if not fresh:
            raise ConfigError(
                f"{path} has {_describe(found)}, not {_describe(sizes)}: overwrite it with "
                "--fresh true"
            )
    write_synthetic(path, *sizes)
    info(f"synthesize: {_describe(sizes)}, in {path}")


def synthetic_sizes(path: Path) -> tuple[int, int, int, int] | None:
    """Return the sizes that `write_synthetic` was called with to write a file.

    None for a file that it did not write.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            first = file["0"]
            if first.attrs["env-id"] == SYNTHETIC:
                shape = first["states"].shape[:2]
                return len(file), *shape, int(file.attrs[EPISODE_LENGTH])
    except (OSError, RuntimeError, KeyError):  # of no HDF5 file, or of one of another layout
        pass
    return None


def _describe(sizes: tuple[int, int, int, int]) -> str:
    return "{} tasks, {} actors, {} steps each in episodes of at most {}".format(*sizes)


def write_synthetic(
    path: Path, num_tasks: int, num_actors: int, steps: int, episode_length: int
) -> None:
    """Write a file of histories in which agents get better, with `steps` transitions an actor."""
    with locked(path), new_file(path) as (file, check):
        file.attrs[EPISODE_LENGTH] = episode_length
        for task in tqdm(range(num_tasks), desc="synthesize", unit=" tasks", disable=None):
            group = file.create_group(str(task))
            group.attrs.update({"env-id": SYNTHETIC, "benchmark-id": SYNTHETIC})
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
