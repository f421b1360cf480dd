"""Write and read the files of an evaluation: `results.csv` and `trajectories.npz`.

`results.csv` has a row for each in-context episode: split, task ("3-7" for the task [3, 7]),
eval_seed, episode (from 1), return, length (env steps), success (0 or 1, empty if it is unknown)
and reward_in_context (1 if the context held a reward above 0 when the episode began). The return is
empty if others completed more episodes within `evaluation.env_steps`. Where tasks change, `task`
is that of the first episode, and one more column, present_task, has that of each episode.
`trajectories.npz` has the transitions of the first evaluation seed: split [N], task [N, D], where D
numbers name the first task, and the fields of `Rollout.trajectory` [N, T, ...].
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ad.errors import ConfigError, CorruptError
from ad.rollout.rollout import Rollout
from ad.runtime.files import atomic_write
from envs.tasks import SPLITS, Split, task_name

COLUMNS = (
    *("split", "task", "eval_seed", "episode"),
    *("return", "length", "success", "reward_in_context"),
)
PRESENT = "present_task"  # the column behind them if tasks change


@dataclass(frozen=True)
class Evaluation:
    """In-context episodes on the tasks of a split: tasks int [K, D]; the others [K, S, E].

    They are the first E episodes, which all rollouts completed. `successes` are float: 1, 0 or NaN
    for unknown. `completed` [K, S, M] are the returns of all episodes, NaN behind the last one of a
    rollout; M = E without `evaluation.env_steps`. `present` [K, S, E]: the index of each episode's
    task in `tasks`; None if tasks do not change, so that it is the first index.
    """

    tasks: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray
    reward_in_context: np.ndarray
    completed: np.ndarray
    present: np.ndarray | None = None


def read_results(path: Path) -> dict[str, Evaluation]:
    """Read `results.csv` into an Evaluation for each split, in the order of the file.

    Raises ConfigError if the file does not exist, CorruptError if a row is missing or invalid.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist: run `ad evaluate` first")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if tuple(header) not in (COLUMNS, (*COLUMNS, PRESENT)):
            raise ValueError(f"its columns are {', '.join(header)}")
        if any(len(row) != len(header) for row in rows):
            raise ValueError("a row has more or fewer cells than the header")
        splits = dict.fromkeys(row[0] for row in rows)
        if missing := set(SPLITS) - set(splits):
            raise ValueError(f"it has no rows of {' and '.join(sorted(missing))}")
        return {split: _evaluation([row for row in rows if row[0] == split]) for split in splits}
    except (ValueError, IndexError, KeyError) as error:
        raise CorruptError(f"{path} is not a complete results file: {error}") from error


def write_results(folder: Path, split: Split, results: dict[str, Rollout]) -> None:
    """Write `results.csv` and `trajectories.npz` into `folder`, from the rollouts of each split."""
    with atomic_write(folder / "results.csv") as path, open(path, "w", newline="") as file:
        writer = csv.writer(file)
        changes = any(result.tasks is not None for result in results.values())
        writer.writerow([*COLUMNS, PRESENT] if changes else COLUMNS)
        for name, result in results.items():
            writer.writerows(_rows(name, getattr(split, f"{name}_tasks"), result))
    with atomic_write(folder / "trajectories.npz") as path, open(path, "wb") as file:
        arrays = _trajectories(split, results)
        np.savez_compressed(file, **arrays)  # ty: ignore[invalid-argument-type] no name is a keyword


def _evaluation(rows: list[list[str]]) -> Evaluation:
    names = list(dict.fromkeys(row[1] for row in rows))
    tasks = np.array([[int(part) for part in name.split("-")] for name in names])
    number = {name: k for k, name in enumerate(names)}
    index = np.array([(number[row[1]], int(row[2]), int(row[3]) - 1) for row in rows])
    values = np.array([list(map(_number, COLUMNS[4:], row[4:])) for row in rows])
    shape = tuple(index.max(0) + 1)  # [K, S, E]
    flat = np.ravel_multi_index(tuple(index.T), shape)  # raises ValueError if one is negative
    if len(rows) != np.prod(shape) or len(np.unique(flat)) != len(rows):
        raise ValueError(f"{len(rows)} rows do not fill {shape} tasks, seeds and episodes")
    order = np.argsort(flat)
    columns = np.moveaxis(values[order].reshape(*shape, -1), -1, 0)
    if not (common := np.isfinite(columns[0]).sum(-1).min()):
        raise ValueError("a rollout has completed no episode")
    returns, lengths, successes, in_context = columns[..., :common]
    counts = lengths.astype(int), successes, in_context.astype(int)
    present = None
    if len(rows[0]) > len(COLUMNS):
        present = np.array([number[row[-1]] for row in rows])[order].reshape(shape)[..., :common]
    return Evaluation(tasks, returns, *counts, completed=columns[0], present=present)


def _number(column: str, cell: str) -> float:
    """Return the number in a cell, NaN for an empty return or success, else raises ValueError."""
    if column in ("return", "success") and not cell:
        return np.nan
    if not math.isfinite(number := float(cell)):
        raise ValueError("a number is not finite")
    return number


def _rows(split_name: str, tasks: np.ndarray, result: Rollout) -> Iterator[tuple]:
    for env, episode in np.ndindex(result.returns.shape):
        success, own = result.successes[env, episode], result.returns[env, episode]
        seed, task = divmod(env, len(tasks))
        yield (
            split_name,
            task_name(tasks[task]),
            seed,
            episode + 1,
            "" if np.isnan(own) else f"{own:g}",
            result.lengths[env, episode],
            "" if np.isnan(success) else int(success),
            int(result.reward_in_context[env, episode]),
            *([] if result.tasks is None else [task_name(result.tasks[env, episode])]),
        )


def _trajectories(split: Split, results: dict[str, Rollout]) -> dict[str, np.ndarray]:
    """Concatenate the recorded fields of the splits, [N, T, ...].

    Shorter trajectories are padded with 0, and the field "episode" with -1.
    """
    longest = max(result.trajectory["episode"].shape[1] for result in results.values())
    fields = {"split": [], "task": []}
    for split_name, result in results.items():
        tasks = getattr(split, f"{split_name}_tasks")
        fields["split"].append(np.full(len(tasks), split_name))
        fields["task"].append(tasks)
        for name, array in result.trajectory.items():
            padding = [(0, 0), (0, longest - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
            fill = -1 if name == "episode" else 0
            fields.setdefault(name, []).append(np.pad(array, padding, constant_values=fill))
    return {name: np.concatenate(arrays) for name, arrays in fields.items()}
