"""The files of an evaluation: `results.csv` and `trajectories.npz`, written and read back.

`results.csv` has a row for each in-context episode: split, task ("3-7" for the task [3, 7]),
eval_seed, episode (from 1), return, length (steps), success (0 or 1) and reward_in_context (1 if
the context held a reward above 0 when the episode began). `trajectories.npz` has the steps of the
first seed: fields [N, T] of `ad.rollout.rollout.RECORDED`, split [N], task [N, D].
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ad.errors import ConfigError, CorruptError
from ad.rollout.rollout import Rollout
from ad.runtime.files import atomic_write
from envs.tasks import SPLITS, Split, task_name

COLUMNS = (
    "split",
    "task",
    "eval_seed",
    "episode",
    "return",
    "length",
    "success",
    "reward_in_context",
)


@dataclass(frozen=True)
class Evaluation:
    """In-context episodes on the tasks of a split: tasks int [N, D]; the others [N, S, E]."""

    tasks: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray
    reward_in_context: np.ndarray


def read_results(path: Path) -> dict[str, Evaluation]:
    """Read `results.csv`, by split in the order of the file.

    Raises ConfigError if there is none yet, CorruptError if a row cannot be read or is missing.
    """
    if not path.exists():
        raise ConfigError(f"{path} is not there: run `python -m scripts.evaluate` first")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != COLUMNS:
            raise ValueError(f"its columns are {', '.join(header)}")
        if any(len(row) != len(header) for row in rows):
            raise ValueError("a row has more or fewer cells than the header")
        splits = dict.fromkeys(row[0] for row in rows)
        if missing := set(SPLITS) - set(splits):
            raise ValueError(f"it has no rows of {' and '.join(sorted(missing))}")
        return {split: _evaluation([row for row in rows if row[0] == split]) for split in splits}
    except (ValueError, IndexError) as error:
        raise CorruptError(f"{path} is not a whole results file: {error}") from error


def write_results(folder: Path, split: Split, results: dict[str, Rollout]) -> None:
    """`results.csv` (a row per split, task, seed, episode), `trajectories.npz` (first seed)."""
    with atomic_write(folder / "results.csv") as path, open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for part, result in results.items():
            writer.writerows(_rows(part, getattr(split, f"{part}_tasks"), result))
    with atomic_write(folder / "trajectories.npz") as path, open(path, "wb") as file:
        np.savez_compressed(file, **_trajectories(split, results))


def _evaluation(rows: list[list[str]]) -> Evaluation:
    names = list(dict.fromkeys(row[1] for row in rows))
    tasks = np.array([[int(part) for part in name.split("-")] for name in names])
    order = {name: n for n, name in enumerate(names)}
    place = np.array([(order[row[1]], int(row[2]), int(row[3]) - 1) for row in rows])
    values = np.array([[float(cell) for cell in row[4:]] for row in rows])
    if not np.isfinite(values).all():
        raise ValueError("a number in it is not finite")
    shape = tuple(place.max(0) + 1)  # [N, S, E]
    flat = np.ravel_multi_index(tuple(place.T), shape)  # refuses seeds and episodes below the first
    if len(rows) != np.prod(shape) or len(np.unique(flat)) != len(rows):
        raise ValueError(f"{len(rows)} rows for {shape} tasks, seeds and episodes")
    returns, *counts = np.moveaxis(values[np.argsort(flat)].reshape(*shape, -1), -1, 0)
    return Evaluation(tasks, returns, *(count.astype(int) for count in counts))


def _rows(part: str, tasks: np.ndarray, result: Rollout):
    for lane, episode in np.ndindex(result.returns.shape):
        seed, task = divmod(lane, len(tasks))
        value = result.returns[lane, episode]
        marks = int(result.successes[lane, episode]), int(result.reward_in_context[lane, episode])
        length = result.lengths[lane, episode]
        yield part, task_name(tasks[task]), seed, episode + 1, f"{value:g}", length, *marks


def _trajectories(split: Split, results: dict[str, Rollout]) -> dict[str, np.ndarray]:
    """The recorded fields of all splits under each other, [N, T], padded with -1 or 0."""
    longest = max(result.trajectory["episode"].shape[1] for result in results.values())
    columns = {"split": [], "task": []}
    for part, result in results.items():
        tasks = getattr(split, f"{part}_tasks")
        columns["split"].append(np.full(len(tasks), part))
        columns["task"].append(tasks)
        for name, array in result.trajectory.items():
            room = ((0, 0), (0, longest - array.shape[1]))
            fill = -1 if name == "episode" else 0
            columns.setdefault(name, []).append(np.pad(array, room, constant_values=fill))
    return {name: np.concatenate(parts) for name, parts in columns.items()}
