"""Making one environment of a `MiniGrid-` or `BabyAI-` id, and what to install for it."""

import importlib

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Discrete

from envs.extras import missing
from envs.minigrid.missions import Missions
from envs.minigrid.observation import Observation, Settings
from envs.registry import did_you_mean

PREFIXES = ("MiniGrid-", "BabyAI-")

OWN_IDS = {  # registered here, beside the package's
    "MiniGrid-MemoryS7FixedStart-v0": ("envs.minigrid.memory:FixedStartMemory", {"size": 7}),
    "MiniGrid-Mixture-v0": ("envs.minigrid.mixture:Mixture", {}),
}


def require(env_id: str) -> None:
    """Register the ids of MiniGrid, of BabyAI and of this suite with Gymnasium.

    Raises ValueError if the package is not installed or the id is none of them. An id "module:name"
    may be any: Gymnasium imports the module, which registers it.
    """
    register(env_id)
    if ":" not in env_id and env_id not in gymnasium.registry:
        known = [known for known in gymnasium.registry if known.startswith(PREFIXES)]
        raise ValueError(f"unknown environment {env_id!r}{did_you_mean(env_id, known)}")


def register(env_id: str) -> None:
    """Register the ids of MiniGrid, of BabyAI and of this suite with Gymnasium.

    BabyAI prints a line for each layout that it rejects; these lines are dropped. Raises
    ValueError, which names `env_id`, if the package is not installed.
    """
    if text := missing("minigrid"):
        raise ValueError(f"{env_id} {text}")
    importlib.import_module("minigrid")
    levels = importlib.import_module("minigrid.envs.babyai.core.roomgrid_level")
    vars(levels)["print"] = lambda *values: None
    for own_id, (place, kwargs) in OWN_IDS.items():
        if own_id not in gymnasium.registry:
            gymnasium.register(own_id, place, kwargs=kwargs)


def defaults(env_id: str) -> dict:
    """Return the settings that differ from `Settings`: a level of BabyAI tells its mission."""
    return {"mission": "words"} if env_id.rpartition(":")[2].startswith("BabyAI-") else {}


def make(
    env_id: str | EnvSpec,
    *,
    missions: Missions | None = None,
    num_actions: int | None = None,
    **kwargs,
) -> gymnasium.Env:
    """Make one environment; `kwargs` hold `Settings`, and arguments of the id or of `id`, if given.

    missions: those of the whole family; default: those of this environment.
    num_actions: the largest number of actions in the family; default: that of this environment.
    Raises ValueError as `require` does, and for a bad setting.
    """
    env_id = env_id if isinstance(env_id, str) else env_id.id
    settings, others = Settings.take({**defaults(env_id), **kwargs})
    env = make_plain(env_id, settings.view, **others)
    observed = Observation(env, settings, missions or Missions.find(env, settings.mission))
    if num_actions is not None:
        observed.action_space = Discrete(num_actions)
    return observed


def tuples(arguments: dict) -> dict:
    """Return the arguments with lists as tuples, which YAML and JSON cannot express."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}


def make_plain(env_id: str, view: int, **kwargs) -> gymnasium.Env:
    """Make the environment that the package registers as `env_id`, or as `id`, if that is given."""
    env_id = kwargs.pop("id", env_id)
    require(env_id)
    return gymnasium.make(env_id, disable_env_checker=True, agent_view_size=view, **tuples(kwargs))
