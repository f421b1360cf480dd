"""Environments with hidden tasks, single and batched: gymnasium and numpy only, nothing of `ad`.

`make` makes one environment, `make_vec` a vector environment with a task for each of its
environments. `make_base` makes the vector environment without its wrapper, which knows all its
tasks and facts about them (`envs.oracle`). To add a world: a file with a
subclass of `World` (`envs.world`), or of `GridWorld` if it is a room of cells, and a line in
REGISTRY.

All three also take the name of a preset (`envs.presets`), which has the settings and the episode
length of a paper, any id of Gymnasium and the other names that `envs.registry` describes, in this
order: REGISTRY, presets, Gymnasium's ids, entry points, places. A world of the last two is a
`World`, or a `gymnasium.Env`, which is treated as one with an id of Gymnasium.
"""

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from types import EllipsisType
from typing import cast

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv

from envs.changes import Changes, ChangingTasks
from envs.gymnasium_vec import GymnasiumVectorEnv
from envs.presets import PRESETS, resolve, resolve_length
from envs.registry import Registry, did_you_mean, error_text, is_missing, load_class
from envs.world import World
from envs.wrappers import EpisodeLength, VectorEpisodeLength

REGISTRY: Registry[World | gymnasium.Env] = Registry(
    "environment",
    {
        "BernoulliBandit-v0": "envs.bandits.bernoulli:BernoulliBandit",
        "DarkRoom-v0": "envs.grid.dark_room:DarkRoom",
        "DarkRoomPermuted-v0": "envs.grid.dark_room_permuted:DarkRoomPermuted",
        "DarkRoomSequences-v0": "envs.grid.dark_room_sequences:DarkRoomSequences",
        "FrozenLakeMaps-v0": "envs.mdps.frozen_lake:FrozenLake",
        "Garnet-v0": "envs.mdps.garnet:Garnet",
        "GaussianBandit-v0": "envs.bandits.gaussian:GaussianBandit",
        "GraphMDP-v0": "envs.mdps.graph:GraphMDP",
        "HiddenObject-v0": "envs.minigrid.hidden_object:HiddenObject",
        "KeyToDoor-v0": "envs.grid.key_to_door:KeyToDoor",
        "MiniGridTable-v0": "envs.minigrid.table_world:MiniGridTable",
        "OddEvenBandit-v0": "envs.bandits.odd_even:OddEvenBandit",
        "RandomMDP-v0": "envs.mdps.random_mdp:RandomMDP",
        "StructuredMDP-v0": "envs.mdps.structured:StructuredMDP",
        "WaterMaze-v0": "envs.water_maze:WaterMaze",
    },
    group="worlds",
)

# Gymnasium ids with these prefixes have a vector environment of their own.
PREFIXES = dict.fromkeys(["MiniGrid-", "BabyAI-"], "envs.minigrid.vector_env:MiniGridVectorEnv")


def make(env_id: str, episode_length: int | EllipsisType | None = ..., **kwargs) -> gymnasium.Env:
    """Make one environment that ends after `episode_length` steps and reports `info["time"]`.

    None is for no limit; by default it is the length of the preset `env_id`, or 20. `kwargs` are
    the world's settings, among them its task (`goal=(row, column)` for DarkRoom). Raises
    ValueError for an unknown id, and for a bad setting of a world of this suite.
    """
    if env_id in REGISTRY or env_id in PRESETS:
        return gymnasium.make(env_id, episode_length=episode_length, **kwargs)
    world, episode_length = find(env_id), resolve_length(env_id, episode_length)
    if isinstance(world, type):
        return single_env(env_id, episode_length, **kwargs)
    return EpisodeLength(_vector_class(world).single(world, **kwargs), episode_length)


def make_vec(
    env_id: str,
    tasks,
    episode_length: int | EllipsisType | None = ...,
    autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    task_kwargs: list[dict] | None = None,
    changes: Changes | None = None,
    **kwargs,
) -> VectorEpisodeLength:
    """Make a vector environment with one environment for each of `tasks`, int [N, ...].

    `episode_length` is that of `make`. `task_kwargs` holds the keyword arguments of each task of a
    Gymnasium environment. With `changes`, the environments of a World begin in `tasks` and move to
    others. `.unwrapped` is the base vector environment. Raises ValueError as `make` does.
    """
    base = make_base(env_id, task_kwargs, tasks=tasks, **kwargs)
    if changes is not None:
        base = changing(env_id, base, changes, **kwargs)
    return VectorEpisodeLength(base, resolve_length(env_id, episode_length), autoreset_mode)


def changing(env_id: str, world: World | GymnasiumVectorEnv, changes: Changes, **kwargs) -> World:
    """Return `world`, which `make_base` made with `kwargs`, with tasks that change.

    Raises ValueError unless it is a World, since another environment cannot hand its state over,
    whose tasks do not drift, and for a schedule of other environments or other tasks.
    """
    cannot = f"the tasks of {env_id} cannot change: "
    if not isinstance(world, World):
        raise ValueError(f"{cannot}it is no envs.world.World")
    if world.life is not None:
        raise ValueError(f"{cannot}they drift")
    if len(changes.keys) != world.num_envs:
        raise ValueError(f"{cannot}{len(changes.keys)} keys, and {world.num_envs} environments")
    known = {*map(tuple, world.all_tasks().tolist())}
    if not all(known.issuperset(map(tuple, pool.tolist())) for pool in changes.distinct_pools()):
        raise ValueError(f"{cannot}a pool has a task of another world")
    new_world = cast(Callable[..., World], partial(make_base, env_id, **kwargs))
    return cast(World, ChangingTasks(world, new_world, changes))  # which has its interface


def make_base(
    env_id: str, task_kwargs: list[dict] | None = None, **kwargs
) -> World | GymnasiumVectorEnv:
    """Make the vector environment without its wrapper, to step or for facts about tasks.

    It is a `TaskOracle`, and has `observation_factors`. Raises ValueError as `make` does.
    """
    env_id, kwargs = resolve(env_id, kwargs)
    world_class = find(env_id)
    if not isinstance(world_class, type):
        return _vector_class(world_class)(world_class, task_kwargs, **kwargs)
    if task_kwargs is not None:
        raise ValueError(
            f"{env_id} has its own tasks: a list of tasks is for Gymnasium's environments"
        )
    _check_settings(env_id, kwargs, _parameters(world_class))
    return world_class(**kwargs)


def single_env(
    env_id: str, episode_length: int | EllipsisType | None = ..., **kwargs
) -> gymnasium.Env:
    """Make one environment of a world of REGISTRY or a preset; `gymnasium.make` calls this."""
    episode_length = resolve_length(env_id, episode_length)
    env_id, kwargs = resolve(env_id, kwargs)
    world_class = find(env_id)
    if not (isinstance(world_class, type) and issubclass(world_class, World)):
        raise ValueError(f"{env_id} is no envs.world.World")
    known = (_parameters(world_class) - {"tasks", "num_envs"}) | {world_class.task_argument}
    _check_settings(env_id, kwargs, known)
    return EpisodeLength(world_class.single(**kwargs), episode_length)


def vector_env(env_id: str, num_envs: int, tasks=None, **kwargs) -> VectorEnv:
    """Make a vector environment of a world or a preset; `gymnasium.make_vec` calls this.

    Without `tasks`, environment i has task i modulo the number of tasks.
    """
    return make_vec(env_id, tasks, num_envs=num_envs, **kwargs)


def find(env_id: str) -> type[World] | EnvSpec | str:
    """Return the class of a world, or else what `gymnasium.make` takes.

    Raises ValueError for an unknown id, and for a class that is no environment.
    """
    if env_id not in REGISTRY:
        _vector_class(env_id).require(env_id)
        if _is_gymnasium_id(env_id):
            return env_id
    if not REGISTRY.has(env_id):
        module, _, name = env_id.rpartition(":")
        try:
            if module and not module.endswith(".py"):
                importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{env_id} cannot be imported: {error_text(error)}") from error
        known = [*REGISTRY.names(), *gymnasium.registry]
        raise ValueError(f"unknown environment {env_id!r}{did_you_mean(name, known)}")
    world_class = REGISTRY.load(env_id)
    if issubclass(world_class, gymnasium.Env):
        return EnvSpec(world_class.__name__, entry_point=world_class)  # ty: ignore[invalid-argument-type] a class creates environments
    if issubclass(world_class, World):
        hooks = ("all_tasks", "_advance", "_observation")
        if missing := [name for name in hooks if is_missing(world_class, name)]:
            raise ValueError(f"{env_id} has no {' and no '.join(missing)}")
        return world_class
    raise ValueError(f"{env_id} is neither a gymnasium.Env nor an envs.world.World")


def _vector_class(env_id: str | EnvSpec) -> type[GymnasiumVectorEnv]:
    """Return the class of the vector environments of a Gymnasium id."""
    name = env_id.rpartition(":")[2] if isinstance(env_id, str) else ""
    places = [place for prefix, place in PREFIXES.items() if name.startswith(prefix)]
    return load_class(places[0]) if places else GymnasiumVectorEnv


def _is_gymnasium_id(env_id: str) -> bool:
    """Return whether Gymnasium knows the id; `module:id` imports the module first."""
    module, _, name = env_id.rpartition(":")
    if module.endswith(".py"):
        return False
    try:
        if module:
            importlib.import_module(module)
        gymnasium.spec(name)
    except (Exception, SystemExit):  # what a module raises when it is imported, or exit()
        return False
    return True


def _parameters(function: Callable) -> set[str]:
    """Return the names of the parameters of a function or class, which may pass on others."""
    parameters = inspect.signature(function).parameters.values()
    rest = {p.name for p in parameters if p.kind == inspect.Parameter.VAR_KEYWORD}
    names = {p.name for p in parameters} - rest
    if inspect.isclass(function) and rest:
        names |= _parameters(function.__mro__[1])
    return names


def _check_settings(env_id: str, kwargs: dict, known: set[str]) -> None:
    """Raise ValueError for a keyword argument that is not in `known`."""
    for name in kwargs:
        if name not in known:
            raise ValueError(f"{env_id} has no setting {name!r}{did_you_mean(name, known)}")


for _env_id in (*REGISTRY, *PRESETS):
    if _env_id not in gymnasium.registry:
        gymnasium.register(
            id=_env_id,
            entry_point="envs:single_env",
            vector_entry_point="envs:vector_env",
            kwargs={"env_id": _env_id},
        )
