"""Tune: try many settings of a source algorithm side by side and measure how each learns.

Every setting is tried on the same few train tasks (held-out ones would be no longer unseen), with
the keys that collection gives those tasks: what is tuned is, bit for bit, what collecting with that
setting would store, but only learning curves are kept. A batch of agents takes settings of all
kinds, apart from those that the source calls `SHARED`. The curves are saved after each batch, in
`logs/<name>/tuning/`, and an interrupted search goes on behind them.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyrallis
from tqdm import tqdm

from ad.collection.job import limit_threads, new_source
from ad.config.schema import Experiment, config_hash
from ad.data import curves as learning_curves
from ad.data.curves import LearningCurves
from ad.data.episodes import ratio
from ad.data.histories import versions
from ad.data.store import mean_in_order
from ad.errors import ConfigError
from ad.evaluation.summary import task_facts
from ad.registry import SOURCES
from ad.runtime.run import Run
from ad.runtime.snapshots import load_state, read_metadata, save_state
from envs.rng import derive_key

BATCH = 128  # agents, about: above this an agent's step costs the same, and an interruption more
DIGITS = 3  # of a random setting, so that the table shows what was run
LEARNED = 0.5  # of the best possible return (where unknown: of the best final one) from which it is


@dataclass(frozen=True)
class Tuning:
    """S settings tried on N tasks: `scores` float [S, N] by name, NaN where there is none.

    `curves` are those of `ad.data.curves`, [S, N, J]; `scale` [N] is the return that counts as
    1 in the area: the optimal one, or where a world does not know it the best final one here.
    """

    settings: list
    tasks: np.ndarray
    curves: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    scale: np.ndarray


def tune(config: Experiment, fresh: bool = False) -> Tuning:
    """Try all settings that are not tried yet (with `fresh`, all of them).

    Raises ConfigError if there are none to try, or if the histories would be too short for a curve.
    """
    run, settings, folder = Run(config), candidates(config), tuning_folder(config)
    # The first train tasks, in the random order of the split.
    tasks = run.split.train_tasks[: config.tune.num_tasks]
    steps = config.source.env_steps // config.source.num_envs
    if (episodes := steps // config.env.episode_length) < config.data.history_stride:
        raise ConfigError(
            f"a stream of {steps} steps may hold {episodes} episodes, fewer than the "
            f"data.history_stride ({config.data.history_stride}): raise source.env_steps"
        )
    limit_threads(config)
    # What a score is made of may change without trying again, so only the curves are saved.
    counted = (config.env, config.split, config.source, config.tune)
    identity = config_hash(*counted), config.data.history_stride
    about = {"tuning": [*identity], "versions": versions()}
    tried = _tried(folder, about, fresh)
    shared = SOURCES.load(config.source.algorithm).SHARED
    lanes = len(tasks) * config.source.num_envs
    parts = batches(settings, shared, len(tasks))
    with _bar(len(settings) * lanes * steps) as bar:
        for batch in parts:
            name = str(batch[0])
            if name in tried:
                bar.update(len(batch) * lanes * steps)
                continue
            tried[name] = _try([settings[i] for i in batch], tasks, config, bar)
            save_state(folder, len(tried), tried, about)
    order = [number for batch in parts for number in batch]
    facts = task_facts(run.world, config.env.episode_length, tasks)
    tried_in_order = [tried[str(batch[0])] for batch in parts]
    return _measured(config, settings, tasks, facts, order, tried_in_order)


def tuning_folder(config: Experiment) -> Path:
    """Where a search keeps its things."""
    return config.folder / "tuning"


def candidates(config: Experiment) -> list:
    """The `Settings` to try: every combination of the grid's values, or random ones between them.

    Random search (Bergstra and Bengio 2012) draws each from the lowest to the highest value, where
    all are positive evenly in their logarithm. Raises ConfigError without a grid.
    """
    tuning, group = config.tune, SOURCES.load(config.source.algorithm).Settings
    if not tuning.grid:
        raise ConfigError(
            "tune.grid names no setting to try: --tune.grid.<setting> '[value, ...]' does"
        )
    if tuning.samples:
        rng = np.random.default_rng(derive_key(tuning.tune_seed, "tune"))
        rows = [
            [_between(values, rng) for values in tuning.grid.values()]
            for _ in range(tuning.samples)
        ]
    else:
        rows = itertools.product(*tuning.grid.values())
    changes = (dict(zip(tuning.grid, row, strict=True)) for row in rows)
    found = (pyrallis.decode(group, config.source.settings | change) for change in changes)
    return list(dict.fromkeys(found))


def batches(settings: list, shared: tuple[str, ...], num_tasks: int) -> list[list[int]]:
    """Which settings run together, by their number: alike in what is `shared`, few enough."""
    groups: dict[tuple, list[int]] = {}
    for number, one in enumerate(settings):
        groups.setdefault(tuple(getattr(one, name) for name in shared), []).append(number)
    size = max(BATCH // num_tasks, 1)
    return [
        group[start : start + size]
        for group in groups.values()
        for start in range(0, len(group), size)
    ]


def _between(values: list, rng: np.random.Generator):
    """A random number between the lowest and the highest of `values`, a whole one among those."""
    low, high = min(values), max(values)
    u = rng.random()
    drawn = low * (high / low) ** u if low > 0 else low + (high - low) * u
    if all(type(value) is int for value in values):
        return round(drawn)
    return min(max(float(f"{drawn:.{DIGITS}g}"), low), high)


def _tried(folder: Path, about: dict, fresh: bool) -> dict:
    """The curves of the batches that an earlier process of the same search has saved."""
    found = None if fresh else read_metadata(folder)
    if found is None or {name: found.get(name) for name in about} != about:
        return {}
    return load_state(folder)


def _try(settings: list, tasks: np.ndarray, config: Experiment, bar: tqdm) -> dict:
    """Run one agent a setting and task; their curves and final statistics, each [s N, ...]."""
    num_envs, agents = config.source.num_envs, len(settings) * len(tasks)
    steps = config.source.env_steps // num_envs
    curves = LearningCurves(agents, num_envs, steps, config.data.history_stride)
    statistics: dict[str, list] = {}
    each = [setting for setting in settings for _ in tasks]
    source = new_source(config, np.tile(tasks, (len(settings), 1)), each)
    for block in source.run(steps):
        curves.add(block)
        for name, values in block.statistics.items():
            statistics.setdefault(name, []).append(mean_in_order(values))
        bar.update(block.arrays["action"].size)
    ends = {
        name: learning_curves.final_mean(np.stack(rows, 1)) for name, rows in statistics.items()
    }
    stopped = getattr(source, "stopped_at", np.full(agents, -1)) >= 0
    return {"curves": curves.curves(), "statistics": ends | {"stopped": stopped.astype(float)}}


def _measured(config: Experiment, settings: list, tasks: np.ndarray, facts, order, parts) -> Tuning:
    """All batches together, in the order of `settings`, with their scores."""
    longest = max(part["curves"]["return"].shape[1] for part in parts)

    def joined(group: str, name: str) -> np.ndarray:
        """[S, N, ...] of what every batch has [s N, ...] of."""
        rows = [part[group][name] for part in parts]
        if group == "curves":
            wide = ((0, 0), (0, longest))
            rows = [np.pad(row, wide, constant_values=np.nan)[:, :longest] for row in rows]
        whole = np.concatenate(rows)
        return whole.reshape(-1, len(tasks), *whole.shape[1:])[np.argsort(order)]

    curves = {name: joined("curves", name) for name in parts[0]["curves"]}
    statistics = {name: joined("statistics", name) for name in parts[0]["statistics"]}
    scale = _scale(facts.optimal_return, curves["return"])
    whole = statistics["stopped"] == 0
    scores = _scores(config, curves, whole, scale, facts)
    return Tuning(settings, tasks, curves, scores | statistics, scale)


def _scale(optimal: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """The optimal return of each task [N]; where it is unknown, the best final one of `returns`."""
    best = np.nanmax([learning_curves.final_mean(rows) for rows in returns], axis=0)
    return np.where(np.isfinite(optimal), optimal, best)


def _scores(
    config: Experiment, curves: dict, whole: np.ndarray, scale: np.ndarray, facts
) -> dict[str, np.ndarray]:
    """The scores of each setting and task, [S, N]; of the pace only where the task is learned.

    An agent that is not `whole`, bool [S, N], has stopped with broken numbers and learned nothing.
    """
    shape = curves["return"].shape[:2]
    flat = {name: values.reshape(-1, values.shape[-1]) for name, values in curves.items()}
    ends = {
        name: learning_curves.final_mean(values).reshape(shape) for name, values in flat.items()
    }
    learned = whole & (ends["return"] >= LEARNED * scale)
    each = config.source.num_envs * config.data.history_stride
    episode = np.where(
        learned.ravel(), learning_curves.episodes_to_converge(flat["return"], each), np.nan
    )
    steps = learning_curves.steps_until(flat["length"], episode).reshape(shape)
    windows, path = (
        steps / config.data.context_length,
        ratio(ends["success_length"], ends["success"]),
    )
    return {
        "area": ratio(learning_curves.area(flat).reshape(shape), scale),
        "final_return": ends["return"],
        "final_success": ends["success"],
        "path_ratio": ratio(path, facts.shortest) if facts.success_ends else np.full(shape, np.nan),
        "learned": learned.astype(float),
        "rise_episodes": episode.reshape(shape),
        "rise_windows": windows,
        "fitting_stride": config.data.history_stride * windows / config.tune.rise_windows,
    }


def _bar(total: int) -> tqdm:
    return tqdm(total=total, desc="tune", unit=" steps", unit_scale=True, disable=None)
