"""Make the tables of worlds, sources and published totals anew: python -m scripts.readme_tables.

The names of tables as arguments choose some: worlds, sources, totals. Each table stands in a
Markdown file between the lines `<!-- table of <name> -->` and `<!-- /table of <name> -->`. A row
keeps the cells that are not computed: papers, checks, the length of episodes, settings and
published numbers.
Speeds are measured on one core of this machine; all tables take ten minutes.
"""

import argparse
import math
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

import envs
from ad.collection.job import new_source
from ad.config.fields import as_yaml
from ad.config.schema import EnvConfig, Experiment, SourceConfig
from ad.evaluation.scores import UNKNOWN
from ad.registry import SOURCES
from ad.reporting.page import Table
from ad.runtime.files import read_marked, replace_between
from ad.runtime.parallel import limit_threads
from ad.sources import fits
from envs.presets import PRESETS
from envs.spaces import Discrete, observation_parts

ROOT = Path(__file__).parent.parent
WORLDS_PAGE, TOTALS_PAGE = ROOT / "envs/worlds.md", ROOT / "envs/totals.md"
SOURCES_PAGE = ROOT / "ad/sources/README.md"
MAX_TASKS, EPISODES, SECONDS, NUM_ENVS = 200, 100, 0.3, 256  # of a world's row
BATCH, ALONE = (80, 10), 9  # in a source's row: tasks, environments of each; tasks timed alone
TIMED = ({}, 200)  # settings and env steps of a source
SLOW = {  # sources that TIMED does not fit: by default they learn too late
    "stable_baselines3": ({"arguments": {"n_steps": 25, "batch_size": 25, "n_epochs": 4}}, 50)
}
TOTALS = 1000  # tasks of a published total
BANDIT, MDP = EnvConfig("BernoulliBandit-v0", {}, 500), EnvConfig("RandomMDP-v0", {}, 10)
FAMILIES = {  # of the published totals -> world, and the env steps of a pull or an episode
    "Bernoulli bandit, 5 arms": (BANDIT, {"arms": 5}, 1),
    "Bernoulli bandit, 10 arms": (BANDIT, {"arms": 10}, 1),
    "random MDP": (MDP, {}, 10),
}
ALGORITHMS = {  # of the published totals -> source
    "random": "demonstrations",
    "Thompson sampling": "thompson_sampling",
    "optimistic Thompson sampling": "thompson_sampling",
    "UCB1": "ucb",
    "PSRL": "psrl",
    "OPSRL": "psrl",
}
ERRORS, ROUNDING = 3, 0.05  # standard errors within which totals agree; rounding of published ones


def read_table(page: Path, name: str) -> Table:
    """Return the table called `name` in a file."""
    mark = f"table of {name}"
    text = read_marked(page, [mark]).split(f"<!-- {mark} -->")[1].split(f"<!-- /{mark} -->")[0]
    header, _, *rows = [line.strip("| ").split(" | ") for line in text.strip().splitlines()]
    return Table(header, rows)


def world_cells(row: dict[str, str]) -> dict[str, str]:
    """Compute the cells of a world: its size, mean returns over at most MAX_TASKS, its speed."""
    name, length = row["world"], int(row["steps of an episode"])
    world, settings = envs.make_base(name), PRESETS[name].kwargs if name in PRESETS else {}
    tasks = world.all_tasks()
    some = tasks[:: -(-len(tasks) // MAX_TASKS)]
    about = sys.modules[type(world).__module__].__doc__.split("\n")[0].rstrip(".")
    best = world.references(some, length, EPISODES).get("explorer")
    return {
        "definition": "; ".join([about, *(f"{k} {as_yaml(v)}" for k, v in settings.items())]),
        "tasks": f"{len(tasks):,}",
        "observation": ", ".join(map(_shape, observation_parts(world).values())),
        "actions": str(world.single_action_space.n),
        "random": _mean(world.random_return(some, length)),
        "optimal": _mean(world.optimal_return(some, length)),
        "best known policy": _mean(best and best.returns),
        "million steps/s": f"{_world_speed(name, tasks, length) / 1e6:.2g}",
    }


def _shape(part) -> str:
    return f"1 of {part.n}" if isinstance(part, Discrete) else " x ".join(map(str, part.shape))


def _mean(values: np.ndarray | None) -> str:
    known = values is not None and np.isfinite(values).any()
    return f"{np.nanmean(values):.2f}" if known else UNKNOWN


def _world_speed(name: str, tasks: np.ndarray, length: int) -> float:
    """Return the env steps a second of random actions in NUM_ENVS environments."""
    env = envs.make_vec(name, tasks[np.arange(NUM_ENVS) % len(tasks)], length)
    env.reset(seed=0)
    mask = env.unwrapped.action_mask(env.unwrapped.tasks)
    numbers = np.random.default_rng(0).random((100, NUM_ENVS, int(env.single_action_space.n)))
    actions = np.where(True if mask is None else mask, numbers, -1).argmax(-1)
    for own in actions[:10]:
        env.step(own)
    steps, begin = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begin) < SECONDS:
        env.step(actions[steps % len(actions)])
        steps += 1
    return steps * NUM_ENVS / seconds


def source_cells(row: dict[str, str]) -> dict[str, str]:
    """Compute the cells of a source: what it knows, where it runs, its speed in a batch."""
    name, world = row["source"], row["timed in"]
    every, tasks = list(envs.REGISTRY), envs.make_base(world).all_tasks()[: BATCH[0]]
    fitting = [own for own in every if fits(name, EnvConfig(id=own), envs.make_base(own))]
    missing = [own for own in every if own not in fitting]
    few, before = (missing, "all but ") if len(missing) < len(fitting) else (fitting, "")
    names = before + ", ".join(own.removesuffix("-v0") for own in few)
    _rate(name, world, tasks[:1], 1)  # compiles what is compiled
    alone = median(_rate(name, world, task[None], 1) for task in tasks[:ALONE])
    batch = _rate(name, world, tasks, BATCH[1])
    return {
        "paper": SOURCES.load(name).paper or UNKNOWN,
        "privileged information": SOURCES.load(name).privileged_info or UNKNOWN,
        "worlds": names if missing else "all",
        "transitions/s, in a batch": f"{float(f'{batch:.2g}'):,.0f}",
        "ratio to one environment at a time": f"{float(f'{batch / alone:.2g}'):g}",
    }


def _rate(name: str, world: str, tasks: np.ndarray, num_envs: int) -> float:
    """Return the transitions a processor second of a source on `tasks`, without making it."""
    lengths = {row[0]: int(row[6]) for row in read_table(WORLDS_PAGE, "worlds").rows}
    settings, steps = SLOW.get(name, TIMED)
    source = SourceConfig(algorithm=name, num_envs=num_envs, settings=settings)
    config = Experiment(threads=1, env=EnvConfig(world, {}, lengths[world]), source=source)
    limit_threads(1)
    agents = new_source(config, tasks)
    begin = time.process_time()
    for _ in agents.run(steps):
        pass
    return len(tasks) * num_envs * steps / (time.process_time() - begin)


def total_cells(row: dict[str, str]) -> dict[str, str]:
    """Compute the cells of a published total: the mean over TOTALS tasks, and whether it agrees.

    Both are means over as many tasks, so the variance of their difference is twice that of one.
    """
    env, kwargs, period = FAMILIES[row["world"]]
    name, _, value = row["settings"].replace("none", "").partition(" ")
    algorithm, periods = ALGORITHMS[row["source"]], int(row["after"].split()[0])
    own = {name: {"True": True}.get(value) or float(value)} if name else {}
    own = {key: int(v) if key == "samples" else v for key, v in own.items()}
    config = Experiment(
        env=EnvConfig(env.id, kwargs | {"num_tasks": TOTALS}, env.episode_length),
        source=SourceConfig(algorithm=algorithm, num_envs=1, settings=own),
    )
    source = new_source(config, np.arange(TOTALS)[:, None])
    rewards = [chunk.arrays["reward"][..., 0] for chunk in source.run(period * periods)]
    total = np.concatenate(rewards)[: period * periods].sum(0, dtype=np.float64)
    error = float(total.std(ddof=1)) / math.sqrt(TOTALS)
    far = abs(total.mean() - float(row["published"])) >= ERRORS * math.sqrt(2) * error + ROUNDING
    agrees = UNKNOWN if row["agrees"] == UNKNOWN else "no" if far else "yes"
    return {"here": f"{total.mean():.1f} ± {error:.1f}", "agrees": agrees}


TABLES = {
    "worlds": (WORLDS_PAGE, world_cells),
    "sources": (SOURCES_PAGE, source_cells),
    "totals": (TOTALS_PAGE, total_cells),
}


def main() -> None:
    """Make anew the tables that the arguments name, all of them without arguments."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(TABLES))
    names = parser.parse_args().names
    if unknown := {*names} - {*TABLES}:
        parser.error(f"there is no table {min(unknown)}: {', '.join(TABLES)}")
    for name in names or TABLES:
        page, compute = TABLES[name]
        table = read_table(page, name)
        rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
        made = [[*(row | compute(row)).values()] for row in rows]
        replace_between(page, {f"table of {name}": Table(table.header, made).markdown()})


if __name__ == "__main__":
    main()
