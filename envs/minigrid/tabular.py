"""Layouts of MiniGrid as tables: every state that actions reach, and what each action does there.

A layout is an environment and the seed of its reset. MiniGrid itself is stepped, from snapshots.
Two states are one if nothing tells them apart: all attributes of the environment and of what it
holds, which of them are the same object (KeyCorridor compares objects, not colors), the last
observation, and whether the episode has ended; but not the number of steps. Each step is taken as
the first and the last of an episode, and at a time between that the seed decides: all must agree,
except for a reward c (1 - 0.9 t / T) at time t of at most T = `max_steps`. A reset must lead from
every state to the first one. State of modules and classes is out of sight, but for their random
generators.
"""

import io
import itertools
import pickle
import random
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import gymnasium
import numpy as np
from gymnasium import Wrapper
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from envs.checks import check_integer
from envs.minigrid.observation import Observation
from envs.spaces import check_action_space

MAX_STATES = 10_000
# Steps do not change these, so snapshots share them; one that draws random numbers is refused.
SHARED = (gymnasium.Space, np.random.Generator, EnvSpec, type, types.ModuleType)
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
SHARED += FUNCTIONS
GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)
WRAPPERS = (Observation, OrderEnforcing, TimeLimit)
PLAIN = {str, int, float, bool, bytes, types.NoneType}


@dataclass(frozen=True)
class Table:
    """A layout with S states, of which 0 is the first, A actions, and O different pictures.

    next_state: int64 [S, A]; a state that ends the episode leads to itself
    scale: float64 [S, A], the factor c of the reward of an action
    terminal: bool [S], whether the state ends the episode
    picture, direction, mission: int64 [S], what is observed: indices into `pictures`, uint8
    [O, ...], of directions, and into the texts `missions`, str [M]
    horizon, limit: int64 [], T of the reward, and the step that truncates an episode
    """

    next_state: np.ndarray
    scale: np.ndarray
    terminal: np.ndarray
    picture: np.ndarray
    direction: np.ndarray
    mission: np.ndarray
    pictures: np.ndarray
    missions: np.ndarray
    horizon: np.ndarray
    limit: np.ndarray


def time_factor(time, horizon):
    """Return 1 - 0.9 t / T, computed as MiniGrid does."""
    return 1 - 0.9 * (time / horizon)


def enumerate_states(env: Observation, seed: int) -> Table:
    """Return the table of the layout of `env` with a `seed`, with the pictures that `env` observes.

    Raises ValueError if it is no table; what another package raises passes through.
    """
    layout = _Layout(env, seed)
    numbers, parts, pictures, missions = {layout.key: 0}, [], {}, {}
    waiting: list[bytes | None] = [layout.save()]

    def observe() -> None:
        image, seen = env.observe(layout.observation), layout.observation
        if not env.observation_space.contains(image):
            raise ValueError("its picture is not in the space of the observations")
        picture = pictures.setdefault(image.tobytes(), (len(pictures), image.copy()))[0]
        mission = missions.setdefault(str(seen["mission"]), len(missions))
        parts.append((layout.ended, picture, int(seen["direction"]), mission))

    observe()
    next_state, scale = [], []
    rng = np.random.default_rng(seed)
    generators = layout.random_states()
    for state, snapshot in enumerate(waiting):  # which grows
        next_state.append([state] * layout.num_actions)
        scale.append([0.0] * layout.num_actions)
        waiting[state] = None
        if snapshot is None:
            continue
        for action in range(layout.num_actions):
            time = int(rng.integers(1, layout.horizon, endpoint=True))
            try:
                scale[state][action] = layout.take(snapshot, action, time)
            except ValueError:
                layout.check_generators(generators)  # chance is the better reason
                raise
            next_state[state][action] = numbers.setdefault(layout.key, len(numbers))
            if len(numbers) > len(waiting):
                layout.check_generators(generators)  # which a reset may set
                observe()
                waiting.append(None if layout.ended else layout.save())
                if layout.reset(seed) != next(iter(numbers)):
                    raise ValueError("another reset with the same seed leads to another state")
                generators = layout.random_states()
        layout.check_generators(generators)
        if len(numbers) > MAX_STATES:
            raise ValueError(f"it has more than {MAX_STATES:,} states")
    observed = map(np.array, zip(*parts, strict=True))
    images = np.stack([image for _, image in pictures.values()])
    rest = images, list(missions), layout.horizon, layout.limit
    return Table(np.array(next_state), np.array(scale), *observed, *map(np.array, rest))


class _Layout:
    """An environment after the reset with a seed, which is put into any of its states and stepped.

    observation: the package's last one; key, ended: the present state, and whether it ends the
    episode. Raises ValueError for what is no table.
    """

    def __init__(self, env: Observation, seed: int):
        from minigrid.minigrid_env import MiniGridEnv

        root, layer = env.unwrapped, env
        if not isinstance(root, MiniGridEnv):
            raise ValueError(f"{type(root).__name__} is not one MiniGridEnv")
        self.root, self.num_actions = root, int(check_action_space(env.action_space).n)
        limits = []
        while layer is not self.root:
            if not isinstance(layer, Wrapper) or type(layer) not in WRAPPERS:
                raise ValueError(f"it is made with the wrapper {type(layer).__name__}")
            if isinstance(layer, TimeLimit):
                limits.append(layer._max_episode_steps)
            layer = layer.env
        self._shared: dict[int, object] = {id(self.root): self.root}
        classes = type(root).__mro__[:-1]
        spaces = [vars(one) for kind in classes for one in (kind, sys.modules[kind.__module__])]
        values = itertools.chain.from_iterable(space.values() for space in spaces)
        self._outside = [value for value in values if isinstance(value, GENERATORS)]
        self.reset(seed)
        self.horizon = check_integer("max_steps", int(self.root.max_steps), 1, sys.maxsize)
        self.limit = min([self.horizon, *limits])

    def reset(self, seed: int) -> tuple:
        """Return the key of the first state."""
        self.observation, _ = self.root.reset(seed=seed)
        if self.root.step_count:
            raise ValueError("an episode begins at another step than 0")
        self._set_key(ended=False)
        return self.key

    def save(self) -> bytes:
        """Return a snapshot of the present state."""
        file = io.BytesIO()
        pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
        pickler.shared = self._shared
        pickler.dump(self.root.__dict__)
        return file.getvalue()

    def take(self, snapshot: bytes, action: int, time: int) -> float:
        """Take `action` as the first step, the last one and step `time`; return its factor c."""
        paid = {1: self.step(snapshot, action, 1)}
        key = self.key
        # An episode that ends may set generators, so that its step is not the last one here.
        for each in (self.horizon, time):
            paid[each] = self.step(snapshot, action, each)
            if self.key != key:
                raise ValueError("what a step does depends on its time")
        return self.scale(paid)

    def step(self, snapshot: bytes, action: int, time: int) -> float:
        """Take `action` in the state of `snapshot` as step `time`; return the reward."""
        unpickler = pickle.Unpickler(io.BytesIO(snapshot))
        unpickler.persistent_load = self._shared.__getitem__
        self.root.__dict__ = unpickler.load()
        self.root.step_count = time - 1
        self.observation, reward, ended, truncated, _ = self.root.step(action)
        if truncated != (time >= self.horizon):
            raise ValueError("an episode is truncated at another step than max_steps")
        if self.root.step_count != time:
            raise ValueError("a step counts as another number of steps than one")
        self._set_key(bool(ended))
        return float(reward)

    def check_generators(self, before: list[object]) -> None:
        """Raise ValueError unless the random generators are in the states `before`."""
        if self.random_states() != before:
            raise ValueError("a step draws random numbers")

    def random_states(self) -> list[object]:
        """Return the states of all random generators: shared ones, some of spaces, and global ones.

        Those of the classes of the environment and of their modules are among them.
        """
        found = (getattr(value, "_np_random", value) for value in self._shared.values())
        own = [str(g.bit_generator.state) for g in found if isinstance(g, np.random.Generator)]
        numpy = np.random.get_bit_generator().state  # ty: ignore[missing-attribute]
        return [random.getstate(), *own, *map(pickle.dumps, [numpy, *self._outside])]

    def scale(self, paid: dict[int, float]) -> float:
        """Return the factor of the rewards of a step, by its time; ValueError if there is none."""
        exact = float(paid[1]) / time_factor(1, self.horizon)
        times, rewards = np.array([*paid]), np.array([*paid.values()], np.float32)
        for digits in (6, 13):  # a factor of 1 is not 1 - 2**-53; a float32 has the fewer digits
            factor = float(f"{exact:.{digits}g}")
            pays = (factor * time_factor(times, self.horizon)).astype(np.float32)
            if np.isfinite(pays).all() and (pays == rewards).all():
                return factor
        pays = f"{paid[1]:g} as the first and {paid[self.horizon]:g} as the last one"
        raise ValueError(f"a step pays {pays}, which is no c (1 - 0.9 t / T)")

    def _set_key(self, ended: bool) -> None:
        seen, self.ended = self.observation, ended
        key = [ended, seen["image"].tobytes(), int(seen["direction"]), str(seen["mission"])]
        others = (item for item in self.root.__dict__.items() if item[0] != "step_count")
        _describe(itertools.chain.from_iterable(others), key, {id(self.root): (0, self.root)})
        self.key = tuple(key)


def _describe(parts: Iterable, key: list, known: dict[int, tuple]) -> None:
    """Append to `key` what tells `parts` from others; `known` has the objects met before, numbered.

    An object is described by what would be pickled of it. Tuples and arrays are values: a position
    may be either of them.
    """
    for value in parts:
        kind = type(value)
        if kind in PLAIN:  # True and 1 are different states, as are 0.0 and -0.0
            key.append(value if kind in (int, str) or value is None else (kind, repr(value)))
        elif kind is tuple:
            key.append((len(value),))
            _describe(value, key, known)
        elif isinstance(value, np.generic | np.ndarray):
            key += [] if value.dtype == np.int64 else [value.dtype.str]
            content = value.tolist()
            _describe([tuple(content) if value.ndim else content], key, known)
        elif _is_shared(value):
            if kind in FUNCTIONS and _holds_state(value, next(iter(known.values()))[1]):
                raise ValueError("it holds a function that may hold a state of its own")
            # A reset makes another generator.
            key.append(None if isinstance(value, np.random.Generator) else id(value))
        elif id(value) in known:
            key.append((known[id(value)][0], "the object of this number"))
        else:
            known[id(value)] = len(known), value  # which stays alive, so that no other has its id
            key.append((kind, "begins"))
            _describe(_parts(value), key, known)
            key.append("ends")


def _is_shared(value) -> bool:
    """Return whether snapshots share `value`, whose key is its id: it has no content to compare."""
    return isinstance(value, SHARED) or type(value) is object


def _holds_state(function, root) -> bool:
    """Return whether a function holds more than `root`, modules, classes and plain defaults."""
    if isinstance(function, types.BuiltinFunctionType):
        held = [function.__self__]
    else:
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        if vars(function) or any(type(value) not in PLAIN for value in defaults):
            return True
        held = [cell.cell_contents for cell in function.__closure__ or ()]
    return any(
        not (one is None or one is root or isinstance(one, type | types.ModuleType)) for one in held
    )


def _parts(value) -> Iterable:
    """Return the parts of an object: its entries, or what would be pickled of it."""
    kind = type(value)
    if kind is list:
        return value
    if kind in (set, frozenset):
        if " at 0x" in repr(value):
            raise ValueError("it holds a set of objects, which have no order")
        return sorted(value, key=repr)
    if kind is dict:
        state = value
    elif _is_made_of_attributes(kind):
        state = value.__getstate__()
    else:
        reduced = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        state = tuple(tuple(part) if isinstance(part, Iterator) else part for part in reduced)
    return itertools.chain.from_iterable(state.items()) if type(state) is dict else (state,)


@cache
def _is_made_of_attributes(kind: type) -> bool:
    """Return whether the objects of a class are pickled as `object` does it."""
    names = ("__new__", "__reduce__", "__reduce_ex__")
    return all(getattr(kind, name) is getattr(object, name) for name in names)


class _Pickler(pickle.Pickler):
    """Pickle all but the objects that are shared, which it collects by their id."""

    shared: dict[int, object]

    def persistent_id(self, value) -> int | None:
        """Return the id of a shared object, None for another one."""
        if id(value) not in self.shared and not _is_shared(value):
            return None
        self.shared[id(value)] = value
        return id(value)
