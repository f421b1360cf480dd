"""The table of sources: what they are told, where they run, and how fast they are in a batch."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

import envs
from ad.collection.job import limit_threads, new_source
from ad.config.schema import EnvConfig, Experiment, SourceConfig
from ad.registry import SOURCES
from ad.reporting.tables import UNKNOWN, Table
from ad.reporting.worlds import WORLDS
from ad.sources import told

NUM_TASKS = 80  # of the batch, with an agent each; as many as DarkRoom-v0 has
NUM_ENVS = 10  # of an agent
SINGLE_TASKS = 9  # on which a single environment is timed
HEADER = [
    *("source", "paper", "is told", "worlds", "timed in"),
    *("transitions/s, in a batch", "ratio to one environment at a time"),
]


@dataclass(frozen=True)
class About:
    """What a source does not tell: its paper, and in what it is timed.

    steps: env steps of each environment.
    """

    paper: str
    world: str = "DarkRoom-v0"
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 200


BANDIT = "BernoulliBandit-v0"
ARGUMENTS = {"n_steps": 25, "batch_size": 25, "n_epochs": 4}  # by default it learns too late
ABOUT = {
    "a2c": About("arXiv 1602.01783"),
    "demonstrations": About(UNKNOWN),
    "noise_distillation": About("arXiv 2312.12275"),
    "posterior_sampling": About("Strens 2000"),
    "ppo": About("arXiv 1707.06347"),
    "psrl": About("arXiv 1306.0940", "RandomMDP-v0"),
    "q_learning": About("Watkins and Dayan 1992; Sutton 1990"),
    "stable_baselines3": About("Raffin et al. 2021", settings={"arguments": ARGUMENTS}, steps=50),
    "thompson_sampling": About("Thompson 1933", BANDIT),
    "ucb": About("Auer et al. 2002", BANDIT),
}


def sources_table() -> Table:
    """Return a row for each registered source.

    The batch has NUM_TASKS tasks with NUM_ENVS environments each; a single environment is that of
    one agent on one task, for as many steps. Seconds are those of the process on one core.
    """
    worlds = {name: envs.make_base(name) for name in envs.REGISTRY}
    return Table(HEADER, [_row(name, worlds) for name in sorted(SOURCES)])


def _row(name: str, worlds: dict) -> list[str]:
    about, source_class = ABOUT[name], SOURCES.load(name)
    problem = getattr(source_class, "problem", lambda world, tasks: None)
    fitting = [one for one, world in worlds.items() if problem(world, world.all_tasks()) is None]
    speed = _speed(name, about) if about.world in fitting else [UNKNOWN, UNKNOWN]
    return [
        name,
        about.paper,
        told(name) or UNKNOWN,
        _names(fitting, list(worlds)),
        about.world,
        *speed,
    ]


def _names(some: list[str], every: list[str]) -> str:
    """Return the names of `some` worlds of `every`, or of those that are missing if they are few.

    The versions of the names are left out.
    """
    missing = [name for name in every if name not in some]
    if not missing:
        return "all"
    few, before = (missing, "all but ") if len(missing) < len(some) else (some, "")
    return before + (", ".join(name.removesuffix("-v0") for name in few) or UNKNOWN)


def _speed(name: str, about: About) -> list[str]:
    """Return the transitions a second in the batch, and their ratio to one environment."""
    tasks = envs.make_base(about.world).all_tasks()[:NUM_TASKS]
    _rate(name, about, tasks[:1], 1)  # compiles what is compiled
    single = median(_rate(name, about, task[None], 1) for task in tasks[:SINGLE_TASKS])
    batch = _rate(name, about, tasks, NUM_ENVS)
    return [f"{float(f'{batch:.2g}'):,.0f}", f"{float(f'{batch / single:.2g}'):g}"]


def _rate(name: str, about: About, tasks: np.ndarray, num_envs: int) -> float:
    """Return the transitions a second of a source on `tasks`, without the time to make it.

    The second is one of this process: other processes take nothing of it.
    """
    length = WORLDS[about.world].episode_length
    config = Experiment(
        threads=1,
        env=EnvConfig(id=about.world, episode_length=length),
        source=SourceConfig(algorithm=name, num_envs=num_envs),
    )
    limit_threads(config)
    source = new_source(config, tasks, SOURCES.load(name).Settings(**about.settings))
    begin = time.process_time()
    for _ in source.run(about.steps):
        pass
    return len(tasks) * num_envs * about.steps / (time.process_time() - begin)
