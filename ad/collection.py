"""Collect: run the source algorithm on every train task without a history, and store it all."""

import platform

import numba
import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ad.config import Experiment
from ad.files import write_json
from ad.histories import CURVE_START, HistoryWriter, is_whole, load_unit
from ad.runs import Run, dataset_folder, describe_split, task_name, unit_folder
from ad.sources import SOURCES
from envs import make_vec, world
from envs.rng import derive_key


def collect(run: Run, fresh: bool = False) -> int:
    """Store the missing histories of the train tasks (with `fresh`, all); how many there were."""
    config, split = run.config, run.split
    missing = [t for t in split.train_tasks if fresh or not is_whole(unit_folder(config, t))]
    if missing:
        _collect(config, np.array(missing))
    name = f"split_{split.hash[:12]}.json"
    write_json(dataset_folder(config) / name, describe_split(split))
    return len(missing)


def show_curves(run: Run) -> None:
    """Write each source agent's curve to tensorboard, from the histories, under `source/<task>`."""
    for task in run.split.train_tasks:
        folder = run.folder / "source" / task_name(task)
        if folder.exists():
            continue
        curve = load_unit(unit_folder(run.config, task), fields=()).curve
        with SummaryWriter(str(folder)) as writer:
            for column, values in curve.items():
                if column != CURVE_START[0]:
                    for step, value in zip(curve[CURVE_START[0]], values, strict=True):
                        writer.add_scalar(f"collect/{column}", value, int(step))


def _collect(config: Experiment, tasks: np.ndarray) -> None:
    steps = config.source.env_steps // config.source.num_envs
    folders = [unit_folder(config, task) for task in tasks]
    source = new_source(config, tasks)
    writer = HistoryWriter(folders, config.source.num_envs, steps)
    total = steps * config.source.num_envs * len(tasks)
    try:
        with tqdm(total=total, desc="collect", unit=" steps", unit_scale=True, disable=None) as bar:
            for block in source.run(steps):
                writer.append(block)
                bar.set_postfix_str(f"mean return {_mean_return(block):.2f}", refresh=False)
                bar.update(block.arrays["action"].size)
        writer.close([_manifest(config, task) for task in tasks])
    finally:
        writer.discard()


def new_source(config: Experiment, tasks: np.ndarray):
    """The configured source algorithm on `tasks` [K, ...], each with its own key and actors."""
    env, source = config.env, config.source
    source_class = SOURCES.load(source.algorithm)
    lanes = make_vec(
        env.id,
        np.repeat(tasks, source.num_envs, axis=0),
        env.episode_length,
        task_kwargs=env.tasks,
        **env.kwargs,
    )
    keys = [derive_key(source.source_seed, source.algorithm, task_name(task)) for task in tasks]
    knowledge = world(env.id, env.tasks, **env.kwargs)
    settings = source_class.Settings(**source.settings)
    return source_class(settings, lanes, tasks, source.num_envs, keys, knowledge)


def _manifest(config: Experiment, task: np.ndarray) -> dict:
    env, source = config.env, config.source
    return {
        "env": {"id": env.id, "kwargs": env.kwargs, "episode_length": env.episode_length},
        "task": task.tolist(),
        "task_kwargs": env.tasks[int(task[0])] if env.tasks else None,
        "source": {"algorithm": source.algorithm, "settings": source.settings},
        "source_seed": source.source_seed,
        "env_steps": source.env_steps,
        "num_envs": source.num_envs,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
        },
    }


def _mean_return(block) -> float:
    arrays = block.arrays
    ended = (arrays["terminated"] | arrays["truncated"]).sum()
    return arrays["reward"].sum() / max(ended, 1)
