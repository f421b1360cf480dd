"""Checks of actions and tasks: integers pass, nothing that NumPy would convert to integers does."""

import reprlib

import numpy as np
from gymnasium.error import InvalidAction


def check_actions(actions, num_envs: int, num_actions: int) -> np.ndarray:
    """Return a copy of `actions` as int64 [num_envs]; integers of any width pass.

    Raises gymnasium.error.InvalidAction for floats (2.0 too), booleans, strings, None, a wrong
    length and numbers outside 0 .. num_actions - 1.
    """
    array = _integers(actions)
    if array is None or array.shape != (num_envs,):
        raise InvalidAction(f"expected {num_envs} integer actions, got {reprlib.repr(actions)}")
    checked = array.astype(np.int64)
    if checked.view(np.uint64).max() >= num_actions:  # a negative number is a huge unsigned one
        raise InvalidAction(f"actions go from 0 to {num_actions - 1}, got {reprlib.repr(actions)}")
    return checked


def check_tasks(tasks, width: int) -> np.ndarray:
    """Return `tasks` as int64 [K, width]; ValueError for anything else."""
    array = _integers(tasks)
    if array is None or array.ndim != 2 or array.shape[1] != width:
        got = reprlib.repr(tasks)
        raise ValueError(f"tasks must be a list of lists of {width} integers, got {got}")
    return array.astype(np.int64)


def env_tasks(all_tasks: np.ndarray, tasks, num_envs: int | None) -> np.ndarray:
    """Return the task of each of N environments, int64 [N, ...].

    They are `tasks`, or without them the first `num_envs` of `all_tasks` [K, ...], starting over
    after the last. `num_envs` defaults to the number of `tasks`, or to 1. Raises ValueError for
    tasks of another shape and for a `num_envs` that is not their number.
    """
    if tasks is None:
        array = all_tasks[np.arange(1 if num_envs is None else num_envs) % len(all_tasks)]
    else:
        array = check_tasks(tasks, all_tasks.shape[1])
    if num_envs not in (None, len(array)) or len(array) == 0:
        raise ValueError(f"num_envs is {num_envs}, but the number of tasks is {len(array)}")
    return array


def _integers(values) -> np.ndarray | None:
    """Return `values` as an integer array; None if anything in it is not an integer."""
    array = values
    if not isinstance(values, np.ndarray):
        try:
            objects = np.array(values, dtype=object)  # with an integer type, True would become 1
        except ValueError:  # ragged
            return None
        parts = [np.asarray(part) for part in objects.flat]
        if not all(part.ndim == 0 and part.dtype.kind in "iu" for part in parts):
            return None
        array = np.array(parts).reshape(objects.shape)
    return array if array.dtype.kind in "iu" else None
