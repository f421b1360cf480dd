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
from ad.sources import fits

NUM_TASKS = 80  # of the batch, with an agent each; as many as DarkRoom-v0 has
NUM_ENVS = 10  # of an agent
SINGLE_TASKS = 9  # on which a single environment is timed
HEADER = [
    *("source", "paper", "is told", "worlds", "timed in"),
    *("transitions/s, in a batch", "ratio to one environment at a time"),
]


@dataclass(frozen=True)
class Timed:
    """In what a source is timed.

    steps: env steps of each environment.
    """

    world: str = "DarkRoom-v0"
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 200


BANDIT = "BernoulliBandit-v0"
ARGUMENTS = {"n_steps": 25, "batch_size": 25, "n_epochs": 4}  # by default it learns too late
DEFAULT = Timed()
TIMED = {  # those that the default does not fit
    "psrl": Timed("RandomMDP-v0"),
    "stable_baselines3": Timed(settings={"arguments": ARGUMENTS}, steps=50),
    "thompson_sampling": Timed(BANDIT),
    "ucb": Timed(BANDIT),
}


def sources_table() -> Table:
    """Return a row for each registered source.

    The batch has NUM_TASKS tasks with NUM_ENVS environments each; a single environment is that of
    one agent on one task, for as many steps. Seconds are those of the process on one core.
    """
    return Table(HEADER, [_row(name, list(envs.REGISTRY)) for name in sorted(SOURCES)])


def _row(name: str, worlds: list[str]) -> list[str]:
    timed, source_class = TIMED.get(name, DEFAULT), SOURCES.load(name)
    paper = source_class.paper or UNKNOWN
    fitting = [world for world in worlds if fits(name, EnvConfig(id=world), envs.make_base(world))]
    speed = _speed(name, timed) if timed.world in fitting else [UNKNOWN, UNKNOWN]
    is_told = source_class.privileged_info or UNKNOWN
    return [name, paper, is_told, _names(fitting, worlds), timed.world, *speed]


def _names(some: list[str], every: list[str]) -> str:
    """Return the names of `some` worlds of `every`, or of those that are missing if they are few.

    The versions of the names are left out.
    """
    missing = [name for name in every if name not in some]
    if not missing:
        return "all"
    few, before = (missing, "all but ") if len(missing) < len(some) else (some, "")
    return before + (", ".join(name.removesuffix("-v0") for name in few) or UNKNOWN)


def _speed(name: str, timed: Timed) -> list[str]:
    """Return the transitions a second in the batch, and their ratio to one environment."""
    tasks = envs.make_base(timed.world).all_tasks()[:NUM_TASKS]
    _rate(name, timed, tasks[:1], 1)  # compiles what is compiled
    single = median(_rate(name, timed, task[None], 1) for task in tasks[:SINGLE_TASKS])
    batch = _rate(name, timed, tasks, NUM_ENVS)
    return [f"{float(f'{batch:.2g}'):,.0f}", f"{float(f'{batch / single:.2g}'):g}"]


def _rate(name: str, timed: Timed, tasks: np.ndarray, num_envs: int) -> float:
    """Return the transitions a second of a source on `tasks`, without the time to make it.

    The second is one of this process: other processes take nothing of it.
    """
    length = WORLDS[timed.world].episode_length
    config = Experiment(
        threads=1,
        env=EnvConfig(id=timed.world, episode_length=length),
        source=SourceConfig(algorithm=name, num_envs=num_envs),
    )
    limit_threads(config)
    source = new_source(config, tasks, SOURCES.load(name).Settings(**timed.settings))
    begin = time.process_time()
    for _ in source.run(timed.steps):
        pass
    return len(tasks) * num_envs * timed.steps / (time.process_time() - begin)
