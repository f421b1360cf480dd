"""The search for settings of a source algorithm: try many side by side, measure how each learns.

Every setting is tried on the same few train tasks, with the random keys that collection derives for
them, so that an agent learns bit for bit as in a collection with that setting; held-out tasks would
no longer be unseen. Only learning curves are kept. Settings that agree in the `shared_settings` of
the source run in one group. The curves are saved in `logs/<name>/tuning/` after each group, and an
interrupted search resumes after the last one.
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
from ad.evaluation.metrics import TaskFacts
from ad.evaluation.summary import task_facts
from ad.registry import SOURCES
from ad.runtime.run import Run
from ad.runtime.snapshots import load_state, read_metadata, save_state
from envs.rng import derive_key

MAX_AGENTS = 128  # in a group: more do not lower the cost of an agent's step
DIGITS = 3  # significant digits of a random setting, as many as the table shows
LEARNED = 0.5  # a task counts as learned from this fraction of `Tuning.scale` on


@dataclass(frozen=True)
class Tuning:
    """The results of S settings on N tasks: `scores` float [S, N] by name, NaN for a missing score.

    `curves` are those of `ad.data.curves`, [S, N, J] for J strided episodes. `scale` [N] is the
    return that counts as 1 in the area under a curve: the optimal return, or the best final return
    of these settings if it is unknown.
    """

    settings: list
    tasks: np.ndarray
    curves: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    scale: np.ndarray


def tune(config: Experiment, fresh: bool = False) -> Tuning:
    """Try all settings that are not tried yet; with `fresh`, all.

    Raises ConfigError if there are none to try, or if the histories would be too short for a curve.
    """
    run, settings, folder = Run(config), candidates(config), tuning_folder(config)
    # The first train tasks, in the random order of the split.
    tasks = run.split.train_tasks[: config.tune.num_tasks]
    _check_length(config)
    limit_threads(config)
    # How curves are scored may change without another search, so only the curves are saved.
    counted = (config.env, config.split, config.source, config.tune)
    identity = config_hash(*counted), config.data.history_stride
    metadata = {"tuning": [*identity], "versions": versions()}
    saved = None if fresh else read_metadata(folder)
    is_same = saved is not None and saved | metadata == saved
    tried = load_state(folder) if is_same else {}  # groups of an earlier process, by name
    shared = SOURCES.load(config.source.algorithm).shared_settings
    shared = tuple(config.source.settings) if shared is None else shared
    groups = group_settings(settings, shared, max(MAX_AGENTS // len(tasks), 1))
    steps_each = len(tasks) * config.source.num_envs * _steps(config)
    progress = {"desc": "tune", "unit": " steps", "unit_scale": True, "disable": None}
    with tqdm(total=len(settings) * steps_each, **progress) as bar:
        for group in groups:
            name = str(group[0])
            if name in tried:
                bar.update(len(group) * steps_each)
                continue
            tried[name] = _try([settings[i] for i in group], tasks, run, bar)
            save_state(folder, len(tried), tried, metadata)
    curves, statistics = _join(groups, [tried[str(group[0])] for group in groups], len(tasks))
    facts = task_facts(run.world, config.env.episode_length, tasks)
    best = np.nanmax([learning_curves.final_mean(own) for own in curves["return"]], axis=0)
    scale = np.where(np.isfinite(facts.optimal_return), facts.optimal_return, best)
    scores = _scores(config, curves, statistics["stopped"] == 0, scale, facts)
    return Tuning(settings, tasks, curves, scores | statistics, scale)


def tuning_folder(config: Experiment) -> Path:
    """Return the folder of a search, logs/<name>/tuning."""
    return config.folder / "tuning"


def candidates(config: Experiment) -> list:
    """Return the `Settings` to try: every combination of the grid's values, or random ones.

    Random search (Bergstra and Bengio 2012, section 2) draws each value between the lowest and the
    highest of the grid, uniformly in its logarithm if all are positive. Raises ConfigError without
    a grid.
    """
    tuning, settings_class = config.tune, SOURCES.load(config.source.algorithm).Settings
    if not tuning.grid:
        raise ConfigError(
            "tune.grid names no setting to try: --tune.grid.<setting> '[value, ...]' does"
        )
    if tuning.samples:
        rng = np.random.default_rng(derive_key(tuning.tune_seed, "tune"))
        combinations = [
            [_random_between(values, rng) for values in tuning.grid.values()]
            for _ in range(tuning.samples)
        ]
    else:
        combinations = itertools.product(*tuning.grid.values())
    changes = (dict(zip(tuning.grid, values, strict=True)) for values in combinations)
    found = (pyrallis.decode(settings_class, config.source.settings | change) for change in changes)
    return list(dict.fromkeys(found))


def group_settings(settings: list, shared: tuple[str, ...], max_size: int) -> list[list[int]]:
    """Return the indices of `settings` in groups of at most `max_size` that agree in `shared`."""
    alike: dict[tuple, list[int]] = {}
    for index, own in enumerate(settings):
        alike.setdefault(tuple(getattr(own, name) for name in shared), []).append(index)
    return [
        group[start : start + max_size]
        for group in alike.values()
        for start in range(0, len(group), max_size)
    ]


def _steps(config: Experiment) -> int:
    return config.source.env_steps // config.source.num_envs


def _check_length(config: Experiment) -> None:
    """Raise ConfigError if an actor's sequence may be too short for one strided episode."""
    episodes, stride = _steps(config) // config.env.episode_length, config.data.history_stride
    if episodes < stride:
        raise ConfigError(
            f"the {_steps(config)} transitions of an actor may hold {episodes} episodes, fewer "
            f"than data.history_stride ({stride}): raise source.env_steps"
        )


def _random_between(values: list, rng: np.random.Generator) -> float:
    """Draw a number between the lowest and the highest of `values`, whole if all of them are."""
    low, high = min(values), max(values)
    u = rng.random()
    drawn = low * (high / low) ** u if low > 0 else low + (high - low) * u
    if all(type(value) is int for value in values):
        return round(drawn)
    return min(max(float(f"{drawn:.{DIGITS}g}"), low), high)


def _try(settings: list, tasks: np.ndarray, run: Run, bar: tqdm) -> dict:
    """Run an agent for each setting and task. Returns curves and final statistics, [s N, ...]."""
    config, num_agents = run.config, len(settings) * len(tasks)
    num_envs, stride = config.source.num_envs, config.data.history_stride
    curves = LearningCurves(run.world, num_agents, num_envs, _steps(config), stride)
    statistics: dict[str, list] = {}
    settings_of_agents = [own for own in settings for _ in tasks]
    source = new_source(config, np.tile(tasks, (len(settings), 1)), settings_of_agents)
    for chunk in source.run(_steps(config)):
        curves.add(chunk)
        for name, values in chunk.statistics.items():
            statistics.setdefault(name, []).append(mean_in_order(values))
        bar.update(chunk.arrays["action"].size)
    final = {name: learning_curves.final_mean(np.stack(s, 1)) for name, s in statistics.items()}
    stopped = np.zeros(num_agents) if source.stopped_at is None else source.stopped_at >= 0
    return {"curves": curves.curves(), "statistics": final | {"stopped": stopped.astype(float)}}


def _join(groups: list[list[int]], tried: list[dict], num_tasks: int) -> tuple[dict, dict]:
    """Return the curves and the statistics of all groups, [S, N, ...] in the settings' order."""
    order = np.argsort([index for group in groups for index in group])
    longest = max(group["curves"]["return"].shape[1] for group in tried)

    def join(arrays: list[np.ndarray]) -> np.ndarray:
        joined = np.concatenate(arrays)
        return joined.reshape(-1, num_tasks, *joined.shape[1:])[order]

    def pad(curve: np.ndarray) -> np.ndarray:
        return np.pad(curve, ((0, 0), (0, longest)), constant_values=np.nan)[:, :longest]

    curves, statistics = tried[0]["curves"], tried[0]["statistics"]
    return (
        {name: join([pad(group["curves"][name]) for group in tried]) for name in curves},
        {name: join([group["statistics"][name] for group in tried]) for name in statistics},
    )


def _scores(
    config: Experiment, curves: dict, finished: np.ndarray, scale: np.ndarray, facts: TaskFacts
) -> dict[str, np.ndarray]:
    """Return the scores of each setting and task, [S, N]; the pace only where the task is learned.

    An agent that has not `finished`, bool [S, N], stopped with non-finite numbers: it counts as one
    that learned nothing.
    """
    shape = curves["return"].shape[:2]
    flat = {name: values.reshape(-1, values.shape[-1]) for name, values in curves.items()}
    final = {name: learning_curves.final_mean(curve).reshape(shape) for name, curve in flat.items()}
    learned = finished & (final["return"] >= LEARNED * scale)
    stride = config.data.history_stride
    converged = learning_curves.episodes_to_converge(
        flat["return"], config.source.num_envs * stride
    )
    episodes = np.where(learned.ravel(), converged, np.nan)
    steps = learning_curves.steps_until(flat["length"], episodes).reshape(shape)
    windows = steps / config.data.context_length
    path_length = ratio(final["success_length"], final["success"])
    has_paths = facts.success_ends
    return {
        "area": ratio(learning_curves.area(flat).reshape(shape), scale),
        "final_return": final["return"],
        "final_success": final["success"],
        "path_ratio": ratio(path_length, facts.shortest) if has_paths else np.full(shape, np.nan),
        "learned": learned.astype(float),
        "rise_episodes": episodes.reshape(shape),
        "rise_windows": windows,
        "fitting_stride": stride * windows / config.tune.rise_windows,
    }
