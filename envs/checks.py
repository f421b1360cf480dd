"""Checks of actions, tasks and settings.

Integers pass as actions, tasks and seeds; what would become one, such as True, does not. Settings
are numbers of Python's own types, as YAML has them.
"""

import json
import reprlib
from collections.abc import Sequence

import numpy as np
from gymnasium.error import InvalidAction

MAX_SEED = 2**63 - 1  # of a family of tasks


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


def check_indices(tasks, num_tasks: int) -> np.ndarray:
    """Return `tasks`, which are indices [[0], [1], ...] below `num_tasks`, as int64 [K].

    Raises ValueError for anything else.
    """
    indices = check_tasks(tasks, 1)[:, 0]
    if wrong := indices[(indices < 0) | (indices >= num_tasks)].tolist():
        raise ValueError(f"tasks go from [0] to [{num_tasks - 1}], got {wrong[:1]}")
    return indices


def check_integer(name: str, value, low: int, high: int) -> int:
    """Return `value`, the setting called `name`; ValueError if it is no integer in [low, high]."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r}")
    return value


def check_number(name: str, value, low: float, high: float) -> float:
    """Return `value`, the setting called `name`, as a float; ValueError unless in [low, high]."""
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def check_choice(name: str, value, choices: Sequence):
    """Return `value`, the setting called `name`; ValueError if it is none of `choices`."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        *others, last = (json.dumps(choice).strip('"') for choice in choices)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {value!r}")
    return value


def check_flag(name: str, value) -> bool:
    """Return `value`, the setting called `name`; ValueError if it is not true or false."""
    return check_choice(name, value, (True, False))


def check_seeds(seed, num_envs: int) -> None:
    """Raise ValueError unless `seed` is None, an integer, or a list of these for N environments."""
    seeds = list(seed) if np.ndim(seed) else [seed]
    if np.ndim(seed) and len(seeds) != num_envs:
        raise ValueError(f"expected {num_envs} seeds, got {len(seeds)}")
    for one in seeds:
        is_integer = type(one) is int or isinstance(one, np.integer)
        if one is not None and not (is_integer and 0 <= one < 2**64):
            raise ValueError(f"a seed must be an integer from 0 to 2**64 - 1, got {one!r}")


def env_tasks(all_tasks: np.ndarray, tasks, num_envs: int | None) -> np.ndarray:
    """Return the task of each of N environments, int64 [N, ...].

    They are `tasks`, or without them the first `num_envs` of `all_tasks` [K, ...], starting over
    after the last. `num_envs` defaults to the number of `tasks`, or to 1. Raises ValueError for
    tasks of another shape and for a `num_envs` that is not their number.
    """
    if np.ndim(all_tasks) != 2:
        shape = list(np.shape(all_tasks))
        raise ValueError(f"all_tasks() must be a table of integers [K, D], not of shape {shape}")
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
