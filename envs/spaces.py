"""The supported spaces: an observation as named parts, discrete actions.

An observation space is a tree of Dict and Tuple spaces; its leaves are the parts of an observation.
A part is named by the keys on the way to it, joined with "-"; the only part of an undivided
observation is named "". A MultiDiscrete space of n numbers is read as n discrete parts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

import gymnasium
import numpy as np
from gymnasium import spaces

KEY = re.compile(r"[A-Za-z0-9_]+")  # of a Dict space: it stands in the names of files
ARRAY_DTYPE = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
MAX_DIMENSIONS = 6  # of an array part
MAX_DISCRETE = 2**32  # values of a discrete part or action, stored in at most 32 bits


@dataclass(frozen=True)
class Discrete:
    """A part of an observation: an index below `n`; `factors` is its shape for unravel_index."""

    n: int
    factors: tuple[int, ...]
    window_dtype = "int64"  # in training windows

    def __str__(self) -> str:
        return f"Discrete({self.n})"

    @property
    def dtype(self) -> str:
        """The smallest unsigned dtype of at least 16 bits that holds the index."""
        return np.promote_types(np.min_scalar_type(self.n - 1), np.uint16).name

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a value: none."""
        return ()

    @property
    def padding(self) -> int:
        """The index that stands before the first transition."""
        return self.n


@dataclass(frozen=True)
class Array:
    """A part of an observation: an array of `shape` and `dtype` with values from `low` to `high`.

    The bounds are those over all entries, None where an entry has none.
    """

    shape: tuple[int, ...]
    dtype: str
    low: float | None
    high: float | None
    padding = 0  # before the first transition; models do not read it

    def __str__(self) -> str:
        return f"an array {list(self.shape)} of {self.dtype}"

    @property
    def window_dtype(self) -> str:
        """The dtype in training windows: `dtype`, or int64 for unsigned ones that torch lacks."""
        return "int64" if self.dtype in ("uint16", "uint32", "uint64") else self.dtype


Part = Discrete | Array


def observation_parts(world) -> dict[str, Part]:
    """Return the parts of the observations of `world`, a vector environment, by name.

    A world may tell in `observation_factors` that an undivided discrete observation is the index
    of a cell: the shape of its array of cells. Raises ValueError for a space that is not supported.
    """
    return _make_parts(world.single_observation_space, world.observation_factors)


def parts_of_space(space: gymnasium.Space) -> dict[str, Part]:
    """Return the parts of the observations of `space` by name. Raises ValueError as above."""
    return _make_parts(space, None)


def check_observation_space(space: gymnasium.Space) -> None:
    """Raise ValueError unless `space` is supported."""
    parts_of_space(space)


def split_observation(space: gymnasium.Space, observation, name: str = "") -> dict:
    """Return the arrays [N, ...] of a batched `observation` of `space` by the name of the part."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return {
            path: values
            for key, inner in _children(space)
            for path, values in split_observation(inner, observation[key], _join(name, key)).items()
        }
    if isinstance(space, spaces.MultiDiscrete):
        columns = np.reshape(observation, (len(observation), -1)).T
        return {_join(name, index): column for index, column in enumerate(columns)}
    return {name: observation}


class ObservationError(ValueError):
    """An observation that is not in its space."""


def check_discrete_parts(space: gymnasium.Space, observation, name: str = "") -> None:
    """Raise ObservationError unless the Discrete parts of one `observation` are integers.

    Gymnasium's vector environments cannot batch others, and end in an error of NumPy.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, inner in _children(space):
            check_discrete_parts(inner, observation[key], _join(name, key))
    elif isinstance(space, spaces.Discrete) and type(observation) is not int:
        array = np.asarray(observation)
        if array.shape or array.dtype.kind not in "biu":
            raise ObservationError(f"{_what(name)} is no value of {space}: {observation!r}")


def check_observation(world, observation) -> None:
    """Raise ObservationError unless a batched `observation` of `world` has the declared parts.

    Its shapes must equal the shapes of the parts, its values must fit their dtypes without
    wrapping round, and discrete parts must be below `n`.
    """
    values = split_observation(world.single_observation_space, observation)
    for name, part in observation_parts(world).items():
        array = np.asarray(values.get(name))
        what = _what(name)
        if array.dtype.kind not in "biuf" or array.shape[1:] != part.shape or array.ndim == 0:
            raise ObservationError(
                f"{what} has shape {list(array.shape)} and dtype {array.dtype}: {part}"
            )
        top = part.n - 1 if isinstance(part, Discrete) else _largest(part.dtype)
        is_integer = np.dtype(part.dtype).kind in "bui"
        low = -top - 1 if np.dtype(part.dtype).kind == "i" else 0
        if is_integer and (array.dtype.kind == "f" or array.max() > top or array.min() < low):
            raise ObservationError(f"{what} is no value of {part}: {array.ravel()[:5].tolist()}")


def _what(name: str) -> str:
    return f"part {name!r} of an observation" if name else "an observation"


def _largest(dtype: str) -> int:
    kind = np.dtype(dtype)
    return 1 if kind.kind == "b" else np.iinfo(kind.name).max if kind.kind in "ui" else 0


def check_action_space(space: gymnasium.Space) -> spaces.Discrete:
    """Return the space; ValueError unless actions are the numbers from 0 of a Discrete space."""
    if not _is_index(space):
        is_bounded = isinstance(space, spaces.Box) and space.is_bounded()
        hint = "; env.kwargs with action_bins: 5 numbers its actions" if is_bounded else ""
        raise ValueError(f"the action space must be Discrete from 0, it is {space}{hint}")
    return space


def _make_parts(space: gymnasium.Space, factors: tuple[int, ...] | None) -> dict[str, Part]:
    leaves = dict(_leaves(space, ""))
    if not leaves:
        raise ValueError("the observation space has no parts")
    return {name: _make_part(name, leaf, factors) for name, leaf in leaves.items()}


def _leaves(space: gymnasium.Space, name: str) -> Iterator[tuple[str, gymnasium.Space]]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, inner in _children(space):
            yield from _leaves(inner, _join(name, key))
    elif isinstance(space, spaces.MultiDiscrete) and not np.any(space.start):
        for index, count in enumerate(space.nvec.ravel()):
            yield _join(name, index), spaces.Discrete(int(count))
    else:
        yield name, space


def _children(space: spaces.Dict | spaces.Tuple) -> Iterator[tuple[str | int, gymnasium.Space]]:
    for key, inner in space.items() if isinstance(space, spaces.Dict) else enumerate(space):
        if not KEY.fullmatch(str(key)):
            raise ValueError(
                f"the key {key!r} of the observation space must be letters, digits and underscores"
            )
        yield key, inner


def _join(name: str, key: str | int) -> str:
    return f"{name}-{key}" if name else str(key)


def _make_part(name: str, space: gymnasium.Space, factors: tuple[int, ...] | None) -> Part:
    """Return the part of a leaf; ValueError unless it can be stored."""
    what = f"part {name!r} of the observation space" if name else "the observation space"
    if _is_index(space):
        shape = factors if name == "" and factors is not None else (space.n,)
        if np.prod(shape) != space.n:
            raise ValueError(f"observation_factors {shape} do not multiply to {space.n}")
        return Discrete(int(space.n), tuple(map(int, shape)))
    is_array = isinstance(space, spaces.Box | spaces.MultiBinary)
    if not is_array or not ARRAY_DTYPE.fullmatch(space.dtype.name):
        raise ValueError(
            f"{what} must be Discrete from 0 (at most {MAX_DISCRETE:,} values), MultiDiscrete, "
            f"MultiBinary or a Box of numbers, it is {space}"
        )
    is_box = isinstance(space, spaces.Box)
    low, high = (np.min(space.low), np.max(space.high)) if is_box else (0, 1)
    is_wide = space.dtype.kind == "u" and high > np.iinfo(np.int64).max  # windows are int64
    if len(space.shape) > MAX_DIMENSIONS or is_wide:
        raise ValueError(
            f"{what} must have at most {MAX_DIMENSIONS} dimensions and integers below 2^63"
        )
    bounds = (float(bound) if np.isfinite(bound) else None for bound in (low, high))
    return Array(tuple(map(int, space.shape)), space.dtype.name, *bounds)


def _is_index(space: gymnasium.Space) -> TypeGuard[spaces.Discrete]:
    return isinstance(space, spaces.Discrete) and space.start == 0 and space.n <= MAX_DISCRETE
