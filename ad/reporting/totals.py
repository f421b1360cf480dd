"""The table of totals: rewards of sources over many tasks beside those that a paper prints.

Duan et al. 2016 (arXiv 1611.02779), tables 1 and 2, have the total rewards of several algorithms
over 1,000 tasks of two families. Those of algorithms without constants check the worlds from
outside. The constants of the others are not printed, and those that were used here stand in a row.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from ad.collection.job import new_source
from ad.config.schema import EnvConfig, Experiment, SourceConfig
from ad.registry import SOURCES
from ad.reporting.tables import Table, number

NUM_TASKS = 1000
ERRORS = 3  # standard errors within which a total is the printed one
ROUNDING = 0.05  # of the printed totals
HEADER = ["world", "source", "settings", "after", "printed", "here", "the same"]


@dataclass(frozen=True)
class Family:
    """A family of tasks, the steps of its episodes, and what `period` of these steps are called."""

    name: str
    world: str
    kwargs: dict
    episode_length: int
    period: int
    noun: str


@dataclass(frozen=True)
class Player:
    """A source with settings, and the totals that are printed for it, by the number of periods."""

    name: str
    family: Family
    source: str
    printed: dict[int, float]
    settings: dict = field(default_factory=dict)

    @property
    def checks_its_world(self) -> bool:
        """Whether its totals depend on the tasks alone, and on no setting that is not printed."""
        return not self.settings


FIVE, TEN = (
    Family(
        f"Bernoulli bandit, {arms} arms",
        "BernoulliBandit-v0",
        {"arms": arms},
        episode_length=500,
        period=1,
        noun="pulls",
    )
    for arms in (5, 10)
)
MDP = Family("random MDP", "RandomMDP-v0", {}, 10, 10, "episodes")
RANDOM, THOMPSON, UCB, PSRL = "demonstrations", "thompson_sampling", "ucb", "psrl"
OPTIMISTIC = {"optimistic": True}
PLAYERS = [
    Player("random", FIVE, RANDOM, {10: 5.0, 100: 49.9, 500: 249.8}),
    Player("random", TEN, RANDOM, {10: 5.0, 100: 49.9, 500: 249.0}),
    Player("Thompson sampling", FIVE, THOMPSON, {10: 5.7, 100: 74.7, 500: 402.0}),
    Player("Thompson sampling", TEN, THOMPSON, {10: 5.5, 100: 76.7, 500: 429.5}),
    Player("optimistic Thompson sampling", FIVE, THOMPSON, {10: 6.5, 100: 77.9, 500: 406.7},
           OPTIMISTIC),
    Player("optimistic Thompson sampling", TEN, THOMPSON, {10: 6.2, 100: 81.4, 500: 438.9},
           OPTIMISTIC),
    Player("UCB1", FIVE, UCB, {10: 6.7, 100: 78.0, 500: 405.8}, {"exploration": 2.0}),
    Player("UCB1", TEN, UCB, {10: 6.7, 100: 82.4, 500: 437.1}, {"exploration": 2.0}),
    Player("random", MDP, RANDOM, {10: 100.1, 25: 250.2, 50: 499.7, 100: 999.4}),
    Player("PSRL", MDP, PSRL, {10: 138.1, 25: 408.8, 50: 904.4, 100: 1939.5}),
    Player("OPSRL", MDP, PSRL, {10: 144.1, 25: 425.2, 50: 930.7, 100: 1973.9}, {"samples": 10}),
]  # fmt: skip


def totals_table() -> Table:
    """Return a row for each printed total, with the mean of 1,000 tasks and its standard error."""
    with tqdm(PLAYERS, desc="totals", unit=" sources", disable=None) as bar:
        return Table(HEADER, [row for player in bar for row in _rows(player)])


def totals(player: Player) -> np.ndarray:
    """Return the total reward after each printed number of periods on each task, float64 [P, K]."""
    family = player.family
    config = Experiment(
        env=EnvConfig(
            family.world, family.kwargs | {"num_tasks": NUM_TASKS}, family.episode_length
        ),
        source=SourceConfig(algorithm=player.source, num_envs=1),
    )
    settings = SOURCES.load(player.source).Settings(**player.settings)
    source = new_source(config, np.arange(NUM_TASKS)[:, None], settings)
    steps = family.period * max(player.printed)
    rewards = [chunk.arrays["reward"][..., 0] for chunk in source.run(steps)]
    total = np.concatenate(rewards).cumsum(0, dtype=np.float64)
    return total[[family.period * periods - 1 for periods in player.printed]]


def is_printed(total: np.ndarray, printed: float) -> bool:
    """Return whether the mean of the totals [K] is `printed`, but for its standard error."""
    error = total.std(ddof=1) / math.sqrt(len(total))
    return bool(abs(total.mean() - printed) < ERRORS * error + ROUNDING)


def _rows(player: Player) -> list[list[str]]:
    settings = ", ".join(f"{name} {value}" for name, value in player.settings.items())
    rows = []
    for (periods, printed), total in zip(player.printed.items(), totals(player), strict=True):
        error = total.std(ddof=1) / math.sqrt(len(total))
        rows.append([
            *(player.family.name, player.name, settings or "none"),
            f"{periods} {player.family.noun}",
            *(number(printed, ".1f"), f"{total.mean():.1f} ± {error:.1f}"),
            "yes" if is_printed(total, printed) else "no",
        ])  # fmt: skip
    return rows
