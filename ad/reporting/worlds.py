"""The table of worlds: what they are, and what random, optimal and searching agents get in them."""

import sys
import time
from dataclasses import dataclass

import numpy as np

import envs
from ad.config.fields import as_yaml
from ad.data.episodes import nan_if_none
from ad.reporting.tables import UNKNOWN, Table, number
from envs.presets import PRESETS, resolve_length
from envs.spaces import Discrete, observation_parts

MOST_TASKS = 200  # of a world for its mean returns
EPISODES = 100  # in which a searcher's mean return is computed
NUM_ENVS = 256
SECONDS = 0.3  # of stepping
HEADER = [
    *("world", "definition", "paper", "tasks", "observation", "actions", "steps of an episode"),
    *("random", "optimal", "best searcher", "million steps/s", "checked against"),
]


@dataclass(frozen=True)
class About:
    """A world's `paper`, the `checks` that it was held to, and the length of its episodes.

    episode_length: env steps, 0 for those of the preset.
    """

    paper: str
    checks: str
    episode_length: int = 0


SCALAR = "a scalar reference"
DYNAMIC = "a scalar reference; values by brute force"
ROOMS = "a scalar reference; exact walks"
TOTALS = "published totals of Thompson sampling"
LASKIN, DUAN, LEE = "arXiv 2210.14215", "arXiv 1611.02779", "arXiv 2306.14892"
TARASOV, SCHMIED = "arXiv 2502.17666", "arXiv 2410.07071"
WORLDS = {
    "DarkRoom-v0": About(LASKIN, ROOMS, 20),
    "DarkRoom-9x9-Dense-v1": About(LASKIN, ROOMS),
    "DarkRoom-9x9-Terminating-v1": About(TARASOV, ROOMS),
    "DarkRoom-19x19-Terminating-v1": About(TARASOV, ROOMS),
    "DarkRoom-Hard-17x17-v1": About(LASKIN, ROOMS),
    "DarkRoom-15x15-Dense-v1": About("arXiv 2505.15143", ROOMS),
    "DarkRoom-10x10-Dense-v1": About(LEE, ROOMS),
    "DarkRoom-20x20-Dense-v1": About(SCHMIED, ROOMS),
    "DarkRoom-40x20-Dense-v1": About(SCHMIED, ROOMS),
    "DarkRoom-7x7-Dense-v1": About("arXiv 2410.19982", ROOMS),
    "DarkRoomPermuted-9x9-v1": About("arXiv 2505.15143", SCALAR),
    "DarkRoomSequences-9x9-v1": About("after arXiv 2312.13327", SCALAR),
    "KeyToDoor-v0": About(LASKIN, DYNAMIC, 50),
    "KeyToDoor-9x9-v1": About(LASKIN, DYNAMIC),
    "KeyToDoor-9x9-SeeKey-v1": About(LASKIN, DYNAMIC),
    "KeyToDoor-13x13-v1": About(TARASOV, DYNAMIC),
    "KeyToDoor-13x13-SeeKey-v1": About(TARASOV, DYNAMIC),
    "KeyToDoor-10x10-Dense-v1": About(f"after {SCHMIED}", DYNAMIC),
    "KeyToDoor-10x10-Dense-SeeKey-v1": About(f"after {SCHMIED}", DYNAMIC),
    "KeyToDoor-20x20-Dense-v1": About(f"after {SCHMIED}", DYNAMIC),
    "KeyToDoor-20x20-Dense-SeeKey-v1": About(f"after {SCHMIED}", DYNAMIC),
    "KeyToDoor-40x20-Dense-v1": About(f"after {SCHMIED}", DYNAMIC),
    "KeyToDoor-40x20-Dense-SeeKey-v1": About(f"after {SCHMIED}", DYNAMIC),
    "WaterMaze-v0": About("after Morris 1981", SCALAR, 50),
    "BernoulliBandit-v0": About(DUAN, TOTALS, 1),
    "BernoulliBandit-5arms-10pulls-v1": About(DUAN, TOTALS),
    "BernoulliBandit-5arms-100pulls-v1": About(DUAN, TOTALS),
    "BernoulliBandit-5arms-500pulls-v1": About(DUAN, TOTALS),
    "BernoulliBandit-10arms-10pulls-v1": About(DUAN, TOTALS),
    "BernoulliBandit-10arms-100pulls-v1": About(DUAN, TOTALS),
    "BernoulliBandit-10arms-500pulls-v1": About(DUAN, TOTALS),
    "GaussianBandit-v0": About(LEE, SCALAR, 1),
    "GaussianBandit-5arms-500pulls-v1": About(LEE, SCALAR),
    "OddEvenBandit-v0": About(f"after {LASKIN}", SCALAR, 1),
    "OddEvenBandit-10arms-100pulls-v1": About(f"after {LASKIN}", SCALAR),
    "OddEvenBandit-4to20arms-300pulls-v1": About("arXiv 2312.13327", SCALAR),
    "RandomMDP-v0": About(DUAN, "published totals of PSRL", 10),
    "RandomMDP-10x5-v1": About(DUAN, "published totals of PSRL"),
    "FrozenLakeMaps-v0": About("Gymnasium", "the environments of Gymnasium", 100),
    "Garnet-v0": About("Archibald et al. 1995", DYNAMIC, 10),
    "Garnet-16x5x2-v1": About("after arXiv 2502.02869", DYNAMIC),
    "Garnet-64x5x2-v1": About("after arXiv 2502.02869", DYNAMIC),
    "StructuredMDP-v0": About("after arXiv 2502.02869", DYNAMIC, 20),
    "GraphMDP-v0": About("own definition", DYNAMIC, 24),
    "HiddenObject-v0": About("own definition", "the rooms of the package minigrid", 40),
}


def worlds_table() -> Table:
    """Return a row for each of WORLDS.

    The returns are means over at most MOST_TASKS tasks. The searcher's is over EPISODES episodes.
    """
    rows = [_row(name) for name in sorted(WORLDS)]
    return Table(HEADER, rows)


def _row(name: str) -> list[str]:
    about, world = WORLDS[name], envs.make_base(name)
    length = about.episode_length or resolve_length(name)
    tasks = world.all_tasks()
    chosen = tasks[:: -(-len(tasks) // MOST_TASKS)]
    return [
        name,
        _definition(name, world),
        about.paper,
        f"{len(tasks):,}",
        ", ".join(map(_shape, observation_parts(world).values())),
        str(world.single_action_space.n),
        str(length),
        _mean(world.random_return(chosen, length), len(chosen)),
        _mean(world.optimal_return(chosen, length), len(chosen)),
        _searcher(world, chosen, length),
        f"{_steps_per_second(name, length) / 1e6:.2g}",
        about.checks,
    ]


def _definition(name: str, world) -> str:
    """Return the first line of the module of a world, and the settings of a preset."""
    text = sys.modules[type(world).__module__].__doc__.split("\n")[0].rstrip(".")
    settings = PRESETS[name].kwargs if name in PRESETS else {}
    return "; ".join([text, *(f"{key} {as_yaml(value)}" for key, value in settings.items())])


def _shape(part) -> str:
    return f"1 of {part.n}" if isinstance(part, Discrete) else " x ".join(map(str, part.shape))


def _mean(fact: np.ndarray | None, count: int) -> str:
    mean = nan_if_none(fact, count).mean()
    return UNKNOWN if np.isnan(mean) else number(float(mean), ".2f")


def _searcher(world, tasks: np.ndarray, length: int) -> str:
    """Return the mean return of the best searcher, or a dash."""
    references = world.references(tasks, length, EPISODES)
    if "explorer" not in references:
        return UNKNOWN
    return number(float(np.nanmean(references["explorer"].returns)), ".2f")


def _steps_per_second(name: str, length: int) -> float:
    """Return the env steps a second of random actions in NUM_ENVS environments."""
    tasks = envs.make_base(name).all_tasks()
    env = envs.make_vec(name, tasks[np.arange(NUM_ENVS) % len(tasks)], length)
    env.reset(seed=0)
    mask = env.unwrapped.action_mask(env.unwrapped.tasks)
    actions = _random_actions(int(env.single_action_space.n), mask)
    for own in actions[:10]:
        env.step(own)
    steps, begin = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begin) < SECONDS:
        env.step(actions[steps % len(actions)])
        steps += 1
    return steps * NUM_ENVS / seconds


def _random_actions(num_actions: int, mask: np.ndarray | None) -> np.ndarray:
    """Return 100 random actions that its task has for each environment, int64 [100, NUM_ENVS]."""
    numbers = np.random.default_rng(0).random((100, NUM_ENVS, num_actions))
    return np.where(True if mask is None else mask, numbers, -1).argmax(-1)
