"""MiniGrid tables: layouts of MiniGrid or BabyAI, played by look-up, with exact optimal returns.

A task is a layout: the seed of every reset. MiniGrid itself has made its table (`tabular`), so
observations, rewards and ends are those of the package.
"""

import hashlib
import json
from dataclasses import fields, replace
from functools import cached_property, lru_cache
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Dict, Discrete

from envs.checks import MAX_SEED, check_choice, check_integer, check_tasks
from envs.mdps.planning import greedy_policy
from envs.minigrid.drawing import draw_replay
from envs.minigrid.encoding import OBJECTS, one_hot
from envs.minigrid.make import register
from envs.minigrid.observation import KINDS, VIEW_KINDS, Settings, current
from envs.minigrid.table_files import load_tables, make_layouts
from envs.minigrid.tabular import Table, time_factor
from envs.minigrid.vector_env import MiniGridVectorEnv
from envs.render import cell_pixels
from envs.spaces import check_action_space
from envs.world import World

# Observations that are a number: of the picture, and of the state.
NUMBER, STATE = "observation_id", "state_id"
MAX_LAYOUTS, MAX_STEPS = 100_000, 100_000


@lru_cache(maxsize=8)
def load_family(
    minigrid_id: str,
    arguments: str,
    settings: Settings,
    seeds: int | tuple,
    by_state: bool,
    registered: tuple,
) -> tuple[list[int], Table]:
    """Return K seeds, and their tables as one with arrays [K, S, ...], S the most states.

    `pictures` and `missions` are the different ones of all layouts, sorted, and are numbered alike
    in all of them. `by_state`: layouts do not differ in what is seen but for the agent's cell. A
    process loads the same layouts only once, while the id is `registered` for the same. Other
    arguments and errors are those of `load_tables`; `arguments` is JSON.
    """
    content = _unseen if by_state else lambda table: vars(table).values()
    by_seed = load_tables(minigrid_id, json.loads(arguments), settings, seeds, content)
    tables, shared = list(by_seed.values()), {}
    if (longest := max(int(table.limit) for table in tables)) > MAX_STEPS:
        raise ValueError(f"its time limit is {longest:,} steps, more than {MAX_STEPS:,}")
    if len({table.pictures.shape[1:] for table in tables}) > 1:
        raise ValueError(f"the layouts of {minigrid_id} differ in size, as their pictures do")
    for plural, singular in (("pictures", "picture"), ("missions", "mission")):
        each = [getattr(table, plural) for table in tables]
        shared[plural], numbers = np.unique(np.concatenate(each), axis=0, return_inverse=True)
        own_numbers = np.split(numbers.ravel(), np.cumsum([len(own) for own in each])[:-1])
        tables = [
            replace(table, **{singular: own[getattr(table, singular)]})
            for table, own in zip(tables, own_numbers, strict=True)
        ]
    names = [field.name for field in fields(Table) if field.name not in shared]
    arrays = {name: _stack([getattr(table, name) for table in tables]) for name in names}
    return list(by_seed), Table(**arrays, **shared)


class MiniGridTable(World):
    """N environments of the layouts of one id; a task is [seed], environment i has `tasks[i]`.

    minigrid_id: an id of MiniGrid or BabyAI, or the place of a MiniGridEnv of your own.
    seeds: the layouts, a list of seeds, or a number n: the first n seeds whose tables differ.
    view, direction, mission, pixels: as in `envs.minigrid.observation.Settings`; observation: the
    same, or observation_id, the number of the index picture among those of all layouts. So a
    picture has one number in all tasks of a world, and another in a world with other layouts.
    state_id is the number of the state, which shows nothing of the layout: column, row, direction,
    and rank among the layout's states with these, in the order in which they were found.
    max_steps, arguments: the time limit, by default the id's own, and other arguments of the id, in
    which a list becomes a tuple.
    The environment variable MINIGRID_WORKERS is how many processes make tables that are not on the
    disk yet, or "all" for all cores that the process may use; several import the id's module anew,
    so that it must be of the package, "module:id" or a place.
    Raises ValueError for a bad setting or task, and for a layout that is no table.
    """

    metadata = World.metadata | {"render_modes": ["rgb_array"], "render_fps": 8}
    state_names: ClassVar[tuple[str, ...]] = ("_states", "_time")
    task_noun = "layout"

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        minigrid_id: str = "MiniGrid-GoToDoor-5x5-v0",
        seeds: int | list[int] = 10,
        view: int = 7,
        observation: str = NUMBER,
        direction: bool = False,
        mission: bool | str = False,
        pixels: int = 4,
        max_steps: int | None = None,
        arguments: dict | None = None,
        render_mode: str | None = None,
    ):
        check_choice("observation", observation, (NUMBER, STATE, *KINDS))
        self.is_state = observation == STATE
        self.observes_view = observation in VIEW_KINDS
        if self.is_state and (direction or mission):
            raise ValueError("a state_id stands alone: it has the direction, and shows no mission")
        kind = {NUMBER: "index", STATE: "full"}.get(observation, observation)
        self.settings = Settings(view, kind, direction, mission, pixels)
        stored = Settings(view, "index" if kind == "one_hot" else kind, pixels=pixels)
        if not isinstance(minigrid_id, str) or not isinstance(arguments, dict | None):
            raise ValueError("minigrid_id must be a name, and arguments a dict of those of the id")
        limit = {}
        if max_steps is not None:
            limit = {"max_steps": check_integer("max_steps", max_steps, 1, MAX_STEPS)}
        self._made = minigrid_id, {**(arguments or {}), **limit}
        self.seeds, self._table = load_family(
            minigrid_id,
            _written(self._made[1]),
            stored,
            _check_seeds(seeds),
            self.is_state,
            _registered(minigrid_id),
        )
        env, table = make_layouts(*self._made, self.settings), self._table
        if limit and (table.horizon != max_steps).any():
            raise ValueError(f"{minigrid_id} does not keep to its argument max_steps")
        # The number by which each state is observed, [K, S].
        self._numbers, self._factors = table.picture, (len(table.pictures),)
        if self.is_state:
            self._numbers, self._factors = number_states(table)
        self._images = one_hot(table.pictures) if kind == "one_hot" else table.pictures
        if mission:
            self._missions = np.array([env.missions.encode(str(text)) for text in table.missions])
        if getattr(current(env).actions, "__module__", "") == "minigrid.core.actions":
            self.action_names = MiniGridVectorEnv.action_names
        space = env.observation_space
        self.is_number = observation in (NUMBER, STATE)
        if self.is_number:
            image = Discrete(int(np.prod(self._factors)))
            space = Dict({**space, "image": image}) if isinstance(space, Dict) else image
        super().__init__(num_envs, tasks, space, check_action_space(env.action_space), render_mode)
        if self.is_state and isinstance(space, Discrete):
            self.observation_factors = self._factors
        self._row = self._index(self.tasks)
        self._first = self._row * table.terminal.shape[1]  # of the states of the own layout
        self._limit, self._horizon = table.limit[self._row], table.horizon[self._row]
        self._states, self._time = np.zeros((2, self.num_envs), np.int64)

    @cached_property
    def max_episode_steps(self) -> int | None:
        """The time limit of the layouts, the longest if they differ."""
        return int(self._table.limit.max())

    @cached_property
    def success_ends(self) -> bool:
        """Whether every step that pays ends the episode."""
        ends = _after(self._table.terminal, self._table.next_state)
        return bool(ends[self._table.scale > 0].all())

    @cached_property
    def numbering(self) -> str | None:
        """The hash of the pictures in the order of their numbers; None without such numbers."""
        if not self.is_number or self.is_state:
            return None
        return hashlib.sha256(self._table.pictures.tobytes()).hexdigest()

    def all_tasks(self) -> np.ndarray:
        """Return all layouts by their seeds, int64 [K, 1]."""
        return np.array(self.seeds)[:, None]

    def success(self, returns: np.ndarray) -> np.ndarray:
        """Return whether returns are above 0."""
        return returns > 0

    @cached_property
    def num_observations(self) -> int | None:
        """How many different observations there are; None if they have several parts."""
        is_divided = isinstance(self.single_observation_space, Dict)
        return super().num_observations if self.is_number or is_divided else len(self._images)

    def number_observations(self, observations: np.ndarray) -> np.ndarray:
        """Return the number of each of `observations` [...]: the rank of its bytes."""
        return observations if self.is_number else self._ranked.searchsorted(_bytes(observations))

    @cached_property
    def _ranked(self) -> np.ndarray:
        return np.sort(_bytes(self._images))

    def states(self) -> np.ndarray | None:
        """Return the number of the present state among those of its layout, int64 [N].

        None if it is observed as a state_id, by which all that follows is indexed then.
        """
        return None if self.is_state else self._states.copy()

    def optimal_return(self, tasks, episode_length: int | None) -> np.ndarray:
        """Return the best possible return of an agent that knows layout and state, float [K]."""
        return self._action_values(tasks, episode_length)[:, 0].max(-1)

    def random_return(self, tasks, episode_length: int | None) -> np.ndarray:
        """Return the expected return of uniformly random actions in each task, float [K]."""
        return self._action_values(tasks, episode_length, np.mean)[:, 0].mean(-1)

    def optimal_policy(self, tasks) -> np.ndarray:
        """Return the probabilities of the best first actions by state, float64 [K, S, A].

        If all successes pay alike and end the episode, they are the best at any time: those on a
        shortest path.
        """
        policy = greedy_policy(self._action_values(tasks, None))
        return self._by_state(policy, tasks, 1 / self.num_actions)

    def possible(self, transitions: dict[str, np.ndarray], tasks) -> np.ndarray | None:
        """Return which layouts make each transition of a state_id, bool [..., K].

        None for pictures: which layouts are possible then depends on all steps of an episode.
        """
        if not self.is_state:
            return None
        seen = {name: np.asarray(values)[None] for name, values in transitions.items()}
        rows, table = self._index(tasks), self._table
        state, time = seen["observation"].astype(np.int64), seen["time"].astype(np.int64)
        column = (-1, *[1] * (state.ndim - 1))  # [K, 1, ...]
        row, first = rows.reshape(column), self._numbers[rows, 0].reshape(column)
        own = self._state_of[row, state]
        following = table.next_state[row, own, seen["action"]]
        reward = table.scale[row, own, seen["action"]]
        reward = reward * time_factor(time + 1, table.horizon[row])
        agrees = (own >= 0) & ((time > 0) | (state == first))
        agrees &= self._numbers[row, following] == seen["next_observation"]
        agrees &= table.terminal[row, following] == seen["terminated"]
        return np.moveaxis(agrees & (reward.astype(np.float32) == seen["reward"]), 0, -1)

    def shortest_episode(self, tasks) -> np.ndarray:
        """Return the fewest steps to a reward in each task, float [K], NaN for never."""
        first = self._steps_to_reward(tasks)[:, 0]
        return np.where(np.isfinite(first), first, np.nan)

    def steps_to_success(self, tasks) -> np.ndarray:
        """Return the fewest steps to a reward from each state, float [K, S], inf for never."""
        return self._by_state(self._steps_to_reward(tasks), tasks, np.inf)

    def _steps_to_reward(self, tasks) -> np.ndarray:
        rows = self._index(tasks)
        pays, following = self._table.scale[rows] > 0, self._table.next_state[rows]
        steps, before = np.full(following.shape[:2], np.inf), np.zeros(0)
        while not np.array_equal(steps, before):
            before, after = steps, np.where(pays, 0, _after(steps, following))
            steps = 1 + after.min(-1)
        return np.where(steps <= self._table.limit[rows, None], steps, np.inf)

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray | None:
        """Draw one episode of the whole grid, played again by MiniGrid, uint8 [T + 1, H, W, 3].

        None if MiniGrid does not observe what was recorded.
        """
        part = "-image" if isinstance(self.single_observation_space, Dict) else ""
        names = f"observation{part}", f"next_observation{part}"
        images = np.concatenate([transitions[names[0]], transitions[names[1]][-1:]])
        if self.is_number:
            number = images.astype(np.int64)
            if self.is_state:
                row = self._index([task])[0]
                number = self._table.picture[row, self._state_of[row, number]]
            images = self._table.pictures[number]
        seed = int(check_tasks([task], 1)[0, 0])
        settings = replace(self.settings, direction=False, mission=False, seed=seed)
        return draw_replay(make_layouts(*self._made, settings), images, transitions["action"])

    def step(self, actions, active: np.ndarray | None = None):
        """Step the environments as `World.step` does; the time limit of a layout truncates."""
        *outcome, truncated, info = super().step(actions, active)
        np.greater_equal(self._time, self._limit, out=truncated, where=active is None or active)
        return *outcome, truncated, info

    def _begin(self, envs):
        self._states[envs], self._time[envs] = 0, 0

    def _advance(self, actions, envs):
        table, first = self._table, self._first[envs]
        pair = (first + self._states[envs]) * self.num_actions + actions
        following = table.next_state.take(pair)
        self._states[envs] = following
        self._time[envs] += 1
        rewards = table.scale.take(pair)
        paid = np.flatnonzero(rewards)
        if len(paid):
            rewards[paid] *= time_factor(self._time[envs][paid], self._horizon[envs][paid])
        return rewards.astype(np.float32), table.terminal.take(first + following)

    def _observation(self):
        table, place = self._table, self._first + self._states
        number = self._numbers.take(place)
        parts = {"image": number if self.is_number else self._images[number]}
        if self.settings.direction:
            parts["direction"] = table.direction.take(place)
        if self.settings.mission:
            parts["mission"] = self._missions[table.mission.take(place)]
        return parts if len(parts) > 1 else parts["image"]

    def _draw(self, env):
        """Draw MiniGrid's grid after the actions by which the state was first found."""
        state, actions = int(self._states[env]), []
        found, pairs = np.unique(self._table.next_state[self._row[env]], return_index=True)
        while state:
            state, action = divmod(int(pairs[found.searchsorted(state)]), self.num_actions)
            actions.append(action)
        root = current(make_layouts(*self._made, self.settings))
        root.reset(seed=int(self.tasks[env, 0]))
        for action in reversed(actions):
            root.step(action)
        return root.get_frame(tile_size=cell_pixels(root.width, root.height))

    def _action_values(self, tasks, episode_length: int | None, reduce=np.max) -> np.ndarray:
        """Return the value of each first action, float64 [K, S, A], within `episode_length` steps.

        Backward induction: Q_t = c (1 - 0.9 t / T) + reduce Q_{t + 1}, and 0 after the last step.
        reduce: np.max, or np.mean for random actions.
        """
        table, rows = self._table, self._index(tasks)
        scale, following = table.scale[rows], table.next_state[rows]
        horizon, steps = table.horizon[rows, None, None], table.limit[rows, None]
        steps = steps if episode_length is None else np.minimum(steps, episode_length)
        values = np.zeros(scale.shape[:2])
        for time in range(steps.max(initial=1), 0, -1):
            of_actions = scale * time_factor(time, horizon) + _after(values, following)
            values = np.where(time <= steps, reduce(of_actions, axis=-1), 0)
        return of_actions

    @cached_property
    def _state_of(self) -> np.ndarray:
        """The state of each layout that has a state_id, int64 [K, numbers], -1 for none."""
        rows, states = np.nonzero(_are_states(self._table))
        found = np.full((len(self.seeds), np.prod(self._factors)), -1)
        found[rows, self._numbers[rows, states]] = states
        return found

    def _by_state(self, values: np.ndarray, tasks, missing: float) -> np.ndarray:
        """Return values [K, S, ...] by what is observed; `missing` where a layout lacks it."""
        if not self.is_state:
            return values
        own = self._state_of[self._index(tasks)]
        absent = (own < 0).reshape(*own.shape, *[1] * (values.ndim - 2))
        return np.where(absent, missing, values[np.arange(len(own))[:, None], own])

    def _index(self, tasks) -> np.ndarray:
        """Return the places of tasks in `seeds`, int64 [K]; ValueError for an unknown one."""
        is_own = check_tasks(tasks, 1) == np.array(self.seeds)
        if not is_own.any(axis=1).all():
            raise ValueError("a task is no layout of this world: tasks are the seeds of layouts")
        return is_own.argmax(axis=1)


def number_states(table: Table) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Return the state_id of each state, int64 [K, S], and its factors for np.unravel_index.

    table: layouts whose `pictures` are those of the whole grid.
    """
    shape = (*table.pictures.shape[1:3], 4)
    place = np.ravel_multi_index((*np.moveaxis(_cells(table), -1, 0), table.direction), shape)
    rank, is_state = np.zeros_like(place), _are_states(table)
    for own, ranks in zip(np.where(is_state, place, -1), rank, strict=True):
        order = own.argsort(kind="stable")
        ranks[order] = np.arange(len(own)) - np.searchsorted(own[order], own[order])
    count = int(rank[is_state].max()) + 1
    return np.where(is_state, place * count + rank, 0), (*shape, count)


def _cells(table: Table) -> np.ndarray:
    """Return the agent's column and row in each state, int64 [..., S, 2]."""
    is_agent = table.pictures[..., 0] == OBJECTS.index("agent")
    place = is_agent.reshape(len(is_agent), -1).argmax(-1)
    return np.stack(np.unravel_index(place, is_agent.shape[1:]), -1)[table.picture]


def _unseen(table: Table) -> list[np.ndarray]:
    """Return what differs between layouts whose states are observed as a state_id."""
    facts = table.next_state, table.scale, table.terminal, table.horizon, table.limit
    return [*facts, table.direction, _cells(table)]


def _bytes(images: np.ndarray) -> np.ndarray:
    """Return images [..., h, w, c] as bytes [...], which can be sorted."""
    flat = np.ascontiguousarray(images).reshape(*images.shape[:-3], -1)
    return flat.view(f"S{flat.shape[-1]}")[..., 0]


def _are_states(table: Table) -> np.ndarray:
    """Return which rows of arrays [K, S, ...] are states of a layout, bool [K, S]."""
    most = table.next_state.max((1, 2))
    return np.arange(table.terminal.shape[1]) <= most[:, None]


def _registered(minigrid_id: str) -> tuple:
    """Return what the id makes, which may be registered again. Raises ValueError as `register`."""
    register(minigrid_id)
    spec = gymnasium.registry.get(minigrid_id.rpartition(":")[2])
    return () if spec is None else (spec.entry_point, repr(spec.kwargs), spec.max_episode_steps)


def _written(arguments: dict) -> str:
    """Return arguments of an id as JSON. Raises ValueError for the view, and for no JSON."""
    if "agent_view_size" in arguments:
        raise ValueError("the size of the view is the setting view, and no argument of the id")
    try:
        return json.dumps(arguments)
    except TypeError as error:
        raise ValueError(f"arguments cannot be written as JSON: {error}") from error


def _check_seeds(seeds: int | list[int]) -> int | tuple[int, ...]:
    """Return the setting, a list as a tuple; ValueError for anything else."""
    if not isinstance(seeds, list):
        return check_integer("seeds", seeds, 1, MAX_LAYOUTS)
    checked = tuple(check_integer("an entry of seeds", seed, 0, MAX_SEED) for seed in seeds)
    if not checked or len({*checked}) < len(checked):
        raise ValueError(f"seeds must be a number or a list of different seeds, got {seeds}")
    return checked


def _after(values: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Return the values [K, S] of next states, [K, S, A]."""
    flat = following.reshape(len(following), -1)
    return np.take_along_axis(values, flat, axis=1).reshape(following.shape)


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """Stack arrays [S, ...] of different S, filled by zeros: [K, largest S, ...]."""
    shape = np.max([array.shape for array in arrays], axis=0).astype(int)
    stacked = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for number, array in enumerate(arrays):
        stacked[(number, *map(slice, array.shape))] = array
    return stacked
