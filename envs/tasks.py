"""The tasks of a world and their split into train and held-out tasks, with its hash."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from envs import make_base
from envs.checks import check_tasks
from envs.oracle import TaskOracle
from envs.rng import derive_key

SPLITS = ("held_out", "train")

# Arguments that the callers of `envs.make_base` pass themselves: never settings of a world.
RESERVED = {
    *("env_id", "tasks", "num_envs", "task_kwargs", "changes"),
    *("episode_length", "autoreset_mode", "render_mode"),
}


@dataclass(frozen=True, eq=False)
class Split:
    """The train and the held-out tasks of a world; their indices are sorted and disjoint."""

    env_id: str
    env_kwargs: dict
    all_tasks: np.ndarray  # int64 [K, ...]
    train_index: np.ndarray  # int64 [n], indices into all_tasks
    held_out_index: np.ndarray  # int64 [m], indices into all_tasks
    task_kwargs: list[dict] | None = None  # of each task, for a Gymnasium environment

    @property
    def train_tasks(self) -> np.ndarray:
        """The tasks whose histories are trained on, int64 [n, ...]."""
        return self.all_tasks[self.train_index]

    @property
    def held_out_tasks(self) -> np.ndarray:
        """The tasks that are not trained on, int64 [m, ...]."""
        return self.all_tasks[self.held_out_index]

    def with_train_tasks(self, most: int | None) -> "Split":
        """Return the split with at most `most` of its train tasks, spread evenly over them."""
        number = len(self.train_index)
        if most is None or most >= number:
            return self
        kept = np.linspace(0, number - 1, most).round().astype(int)
        return replace(self, train_index=self.train_index[kept])

    @property
    def hash(self) -> str:
        """The SHA-256 (hex) of the world, its settings and the two lists of tasks."""
        content = {
            "env_id": self.env_id,
            "env_kwargs": self.env_kwargs,
            "task_kwargs": self.task_kwargs,
            "train": self.train_tasks.tolist(),
            "held_out": self.held_out_tasks.tolist(),
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def task_name(task: np.ndarray) -> str:
    """Return a task as it stands in file names and tables: (3, 7) is "3-7"."""
    return "-".join(str(int(part)) for part in task)


def check_all_tasks(env_id: str, env_kwargs: dict, task_kwargs: list[dict] | None = None) -> None:
    """Raise ValueError unless all tasks have names and one vector environment can hold them.

    The environments then share the spaces for which a model is built. For a Gymnasium id one
    environment is made for each task. A process checks the same arguments only once.
    """
    _check_once(json.dumps([env_id, env_kwargs, task_kwargs], sort_keys=True))


@lru_cache
def _check_once(arguments: str) -> None:
    env_id, env_kwargs, task_kwargs = json.loads(arguments)
    tasks = make_base(env_id, task_kwargs, **env_kwargs).all_tasks()
    if tasks.min() < 0 or len(np.unique(tasks, axis=0)) < len(tasks):
        raise ValueError("its tasks must be different rows of numbers from 0 on")
    make_base(env_id, task_kwargs, tasks=tasks, **env_kwargs).close()


def make_split(
    env_id: str,
    env_kwargs: dict,
    split_seed: int,
    num_train_tasks: int,
    held_out: list[list[int]] | None = None,
    task_kwargs: list[dict] | None = None,
    num_held_out: int | None = None,
    first: list[list[int]] | None = None,
) -> Split:
    """Draw `num_train_tasks` train tasks by `split_seed`; the others are held out.

    `held_out`, if given, lists the held-out tasks, and the train tasks are drawn from the others.
    If the world's definition holds out tasks, none of them is a train task, and they are the
    held-out tasks unless `held_out` is given. `num_held_out`, if given, is the number of held-out
    tasks: they are drawn by `split_seed` from the tasks that would otherwise be held out, and the
    other ones are in neither part of the split. Tasks of `first` that are not held out are train
    tasks if `first` has at most `num_train_tasks`; otherwise it is ignored.

    Raises ValueError for `held_out` with `num_held_out`, an unknown or repeated held-out task, too
    few tasks for the two numbers, no held-out task, and the arguments for which `envs.make_base`
    does.
    """
    for name in env_kwargs:
        if not isinstance(name, str) or name in RESERVED:
            raise ValueError(f"{name!r} cannot be among the keyword arguments of {env_id}")
    world = make_base(env_id, task_kwargs, **env_kwargs)
    all_tasks, defined = world.all_tasks(), world.held_out_tasks()
    if len(all_tasks) == 1:
        raise ValueError(
            f"{env_id} has one task, and a split needs two: tasks are keyword arguments of an "
            "environment (env.tasks of an experiment), e.g. [{}, {is_rainy: true}]"
        )
    chosen = [_find(all_tasks, tasks) for tasks in (held_out, defined) if tasks is not None]
    drawn = order_of_tasks(split_seed, len(all_tasks))
    if first and len(first) <= num_train_tasks:
        own = _find(all_tasks, first)
        drawn = np.concatenate([own, drawn[~np.isin(drawn, own)]])
    order = drawn[~np.isin(drawn, np.concatenate(chosen))] if chosen else drawn
    if not 1 <= num_train_tasks <= len(order):
        left = f"{len(order)} tasks{' that are not held out' if chosen else ''}"
        raise ValueError(f"num_train_tasks is {num_train_tasks}, but there are {left}")
    train_index = np.sort(order[:num_train_tasks])
    held_out_index = chosen[0] if chosen else order[num_train_tasks:]
    if num_held_out is not None:
        if held_out is not None:
            raise ValueError("num_held_out draws the held-out tasks that held_out lists already")
        held_out_index = _take(drawn[np.isin(drawn, held_out_index)], num_held_out)
    held_out_index = np.sort(held_out_index)
    if len(held_out_index) == 0:
        raise ValueError(f"num_train_tasks is {num_train_tasks}: no task is left to hold out")
    return Split(env_id, env_kwargs, all_tasks, train_index, held_out_index, task_kwargs)


def other_split(split: Split, env_kwargs: dict) -> Split:
    """Return the split of the world with the settings `env_kwargs` that agrees with `split`.

    A task is a train task if it is one in `split`, otherwise it is held out; if the world's
    definition holds out tasks, only those are. If `split` leaves out tasks that it could hold out,
    only those of them are held out that are in `split` too, or all if none is. Goals in rooms of
    different sizes are compared by their offsets from the center. Raises ValueError if no task or
    every task is a train task, and for the arguments for which `envs.make_base` does.
    """
    world, other_world = (
        make_base(split.env_id, split.task_kwargs, **kwargs)
        for kwargs in (split.env_kwargs, env_kwargs)
    )
    all_tasks = other_world.all_tasks()
    relative = other_world.relative_tasks(all_tasks)
    is_train = _are_among(relative, world.relative_tasks(split.train_tasks))
    if is_train.all() or not is_train.any():
        raise ValueError(f"{'all' if is_train.all() else 'none'} of its tasks are trained on")
    defined = other_world.held_out_tasks()
    held_out_index = np.flatnonzero(~is_train) if defined is None else _find(all_tasks, defined)
    if len(split.held_out_index) < _most_held_out(world, split):
        held_out = world.relative_tasks(split.held_out_tasks)
        is_held_out = _are_among(relative[held_out_index], held_out)
        held_out_index = held_out_index[is_held_out] if is_held_out.any() else held_out_index
    index = np.flatnonzero(is_train), held_out_index
    return Split(split.env_id, env_kwargs, all_tasks, *index, split.task_kwargs)


def spread_tasks(
    world: TaskOracle, number: int, excluded: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Return at most `number` tasks of `world` that are not among the `excluded` ones.

    They are spread over the distances of all tasks as evenly as the remaining tasks allow. Raises
    ValueError if every task is excluded.
    """
    all_tasks, others = world.all_tasks(), set(map(tuple, excluded))
    free = [k for k, task in enumerate(all_tasks.tolist()) if tuple(task) not in others]
    if not free:
        raise ValueError("every task is excluded, so that none is left to hold out")
    steps = world.shortest_episode(all_tasks)
    steps = np.zeros(len(all_tasks)) if steps is None else steps
    order = np.random.default_rng(derive_key(0, "tuning split")).permutation(len(all_tasks))
    chosen = []
    for wanted in np.quantile(steps, (np.arange(number) + 0.5) / number):
        left = [k for k in free if k not in chosen]
        if left:
            chosen.append(min(left, key=lambda k: (abs(steps[k] - wanted), order[k])))
    return all_tasks[np.sort(chosen)].tolist()


def order_of_tasks(split_seed: int, num_tasks: int) -> np.ndarray:
    """Return the indices of all tasks in the order in which a split takes its train tasks."""
    return np.random.default_rng(derive_key(split_seed, "split")).permutation(num_tasks)


def _are_among(tasks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of `tasks` [K, D] are among `others` [m, D], bool [K]."""
    known = set(map(tuple, others.tolist()))
    return np.array([tuple(task) in known for task in tasks.tolist()])


def _most_held_out(world: TaskOracle, split: Split) -> int:
    """Return how many tasks of `world` a split with the train tasks of `split` could hold out."""
    defined = world.held_out_tasks()
    return len(split.all_tasks) - len(split.train_index) if defined is None else len(defined)


def _take(others: np.ndarray, num_held_out: int) -> np.ndarray:
    """Return the first `num_held_out` of the tasks that are not train tasks."""
    if num_held_out > len(others):
        raise ValueError(f"num_held_out is {num_held_out}, but {len(others)} tasks are left")
    return others[:num_held_out]


def _find(all_tasks: np.ndarray, tasks: list[list[int]] | np.ndarray) -> np.ndarray:
    """Return the sorted indices of `tasks` in `all_tasks`, int64 [m].

    Raises ValueError for an empty list and for an unknown or repeated task.
    """
    if len(tasks) == 0:
        raise ValueError("the list of held-out tasks is empty")
    index_of = {tuple(task): index for index, task in enumerate(all_tasks.tolist())}
    found = set()
    for task in check_tasks(tasks, all_tasks.shape[1]).tolist():
        if tuple(task) not in index_of:
            raise ValueError(f"held-out task {task} is not a task of this world")
        if index_of[tuple(task)] in found:
            raise ValueError(f"held-out task {task} is listed twice")
        found.add(index_of[tuple(task)])
    return np.array(sorted(found))
