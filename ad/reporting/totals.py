"""The table of totals: total rewards of sources over many tasks beside published ones.

Duan et al. 2016 (arXiv 1611.02779), tables 1 and 2, have totals over 1,000 tasks of two families.
Those of random actions, Thompson sampling and PSRL depend on no setting but the prior, and test the
worlds. The settings of the others are not published; the table has those that were used here.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from ad.collection.job import new_source
from ad.config.schema import EnvConfig, Experiment, SourceConfig
from ad.registry import SOURCES
from ad.reporting.tables import UNKNOWN, Table, number

NUM_TASKS = 1000
ERRORS = 3  # standard errors of a difference, within which two totals agree
ROUNDING = 0.05  # of the published totals
HEADER = ["world", "source", "settings", "after", "published", "here", "agrees"]


@dataclass(frozen=True)
class Family:
    """A family of tasks and the env steps of its episodes; `noun` names `period` env steps."""

    name: str
    world: str
    kwargs: dict
    episode_length: int
    period: int
    noun: str


@dataclass(frozen=True)
class Baseline:
    """A source with settings, and its published total rewards by the number of periods.

    constants_known: whether the settings are published, or the source has none but the prior.
    """

    name: str
    family: Family
    source: str
    published: dict[int, float]
    settings: dict = field(default_factory=dict)
    constants_known: bool = True


FIVE_ARMS, TEN_ARMS = (
    Family(
        name=f"Bernoulli bandit, {arms} arms",
        world="BernoulliBandit-v0",
        kwargs={"arms": arms},
        episode_length=500,
        period=1,
        noun="pulls",
    )
    for arms in (5, 10)
)
MDP = Family(
    name="random MDP",
    world="RandomMDP-v0",
    kwargs={},
    episode_length=10,
    period=10,
    noun="episodes",
)
RANDOM, THOMPSON, UCB, PSRL = "demonstrations", "thompson_sampling", "ucb", "psrl"
OPTIMISTIC, UCB1, OPSRL = {"optimistic": True}, {"exploration": 2.0}, {"samples": 10}
BASELINES = [
    Baseline("random", FIVE_ARMS, RANDOM, {10: 5.0, 100: 49.9, 500: 249.8}),
    Baseline("random", TEN_ARMS, RANDOM, {10: 5.0, 100: 49.9, 500: 249.0}),
    Baseline("Thompson sampling", FIVE_ARMS, THOMPSON, {10: 5.7, 100: 74.7, 500: 402.0}),
    Baseline("Thompson sampling", TEN_ARMS, THOMPSON, {10: 5.5, 100: 76.7, 500: 429.5}),
    Baseline("optimistic Thompson sampling", FIVE_ARMS, THOMPSON,
             {10: 6.5, 100: 77.9, 500: 406.7}, OPTIMISTIC, constants_known=False),
    Baseline("optimistic Thompson sampling", TEN_ARMS, THOMPSON,
             {10: 6.2, 100: 81.4, 500: 438.9}, OPTIMISTIC, constants_known=False),
    Baseline("UCB1", FIVE_ARMS, UCB, {10: 6.7, 100: 78.0, 500: 405.8}, UCB1, constants_known=False),
    Baseline("UCB1", TEN_ARMS, UCB, {10: 6.7, 100: 82.4, 500: 437.1}, UCB1, constants_known=False),
    Baseline("random", MDP, RANDOM, {10: 100.1, 25: 250.2, 50: 499.7, 100: 999.4}),
    Baseline("PSRL", MDP, PSRL, {10: 138.1, 25: 408.8, 50: 904.4, 100: 1939.5}),
    Baseline("OPSRL", MDP, PSRL, {10: 144.1, 25: 425.2, 50: 930.7, 100: 1973.9}, OPSRL,
             constants_known=False),
]  # fmt: skip


def totals_table() -> Table:
    """Return a row for each published total, with the mean here and its standard error."""
    with tqdm(BASELINES, desc="totals", unit=" sources", disable=None) as bar:
        return Table(HEADER, [row for baseline in bar for row in _rows(baseline)])


def total_rewards(baseline: Baseline) -> np.ndarray:
    """Return the total reward on each task up to each published number of periods, float64 [P, K].

    A source has one actor on each task, which lives once.
    """
    family = baseline.family
    kwargs = family.kwargs | {"num_tasks": NUM_TASKS}
    config = Experiment(
        env=EnvConfig(family.world, kwargs, family.episode_length),
        source=SourceConfig(algorithm=baseline.source, num_envs=1),
    )
    settings = SOURCES.load(baseline.source).Settings(**baseline.settings)
    source = new_source(config, np.arange(NUM_TASKS)[:, None], settings)
    steps = family.period * max(baseline.published)
    rewards = [chunk.arrays["reward"][..., 0] for chunk in source.run(steps)]
    total = np.concatenate(rewards).cumsum(0, dtype=np.float64)
    return total[[family.period * periods - 1 for periods in baseline.published]]


def agrees(total: np.ndarray, published: float) -> bool:
    """Return whether the mean of `total`, float [K], differs from `published` by chance alone.

    Both are means over as many tasks of a family, so the variance of their difference is twice
    that of one of them.
    """
    limit = ERRORS * math.sqrt(2) * _standard_error(total) + ROUNDING
    return bool(abs(total.mean() - published) < limit)


def _standard_error(total: np.ndarray) -> float:
    return float(total.std(ddof=1)) / math.sqrt(len(total))


def _rows(baseline: Baseline) -> list[list[str]]:
    settings = ", ".join(f"{name} {value}" for name, value in baseline.settings.items())
    about, noun = [baseline.family.name, baseline.name, settings or "none"], baseline.family.noun
    rows, totals = [], total_rewards(baseline)
    for (periods, published), total in zip(baseline.published.items(), totals, strict=True):
        here = f"{total.mean():.1f} ± {_standard_error(total):.1f}"
        same = "yes" if agrees(total, published) else "no"
        verdict = same if baseline.constants_known else UNKNOWN
        rows.append([*about, f"{periods} {noun}", number(published, ".1f"), here, verdict])
    return rows
