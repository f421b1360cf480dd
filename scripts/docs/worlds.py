"""The gallery: each world with a picture, its docstring, exact returns and published numbers.

The returns are those of the table in envs/worlds.md. A published number is a line of
configs/leaderboard/published.csv, whose `world` is a group of the leaderboard, a preset or a world.
"""

import csv
import inspect
import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

import envs
from ad.config.fields import as_yaml
from ad.reporting.page import Table
from envs.presets import PRESETS
from scripts.docs import LEADERBOARD, ROOT
from scripts.docs.docstrings import as_markdown
from scripts.readme_tables import WORLDS_PAGE, read_table

STEPS, TASK, SEED = 20, 0.9, 3  # of the episode in a picture; its task by its place among all
COLUMNS = ["steps of an episode", "tasks", "observation", "actions", "random", "optimal"]
COLUMNS += ["best known policy", "paper", "checked against"]
TEXT = (8, 9, 10)  # the columns of a section's table that are prose


def gallery(site: Path) -> str:
    """Draw a picture of each world of the registry, and return their sections as Markdown."""
    table, published = read_table(WORLDS_PAGE, "worlds"), _published()
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    (site / "pictures").mkdir()
    return "\n\n".join(
        _section(name, [row for row in rows if _world(row["world"]) == name], published, site)
        for name in envs.REGISTRY.names()
    )


def _world(name: str) -> str:
    """Return the name in the registry of a world or a preset."""
    return PRESETS[name].world if name in PRESETS else name


def _section(name: str, rows: list[dict], published: list[dict], site: Path) -> str:
    world = envs.find(name)
    Image.fromarray(_picture(name)).save(site / f"pictures/{name}.png")
    cells = [
        [f"`{row['world']}`", *(row[key] for key in COLUMNS), _settings(row["world"])]
        for row in rows
    ]
    place = f"[`{world.__name__}`][{world.__module__}.{world.__name__}]"
    blocks = [
        f"## {name}",
        f"![An episode of {name}](pictures/{name}.png){{ .world }}",
        as_markdown(sys.modules[world.__module__].__doc__),
        f"{place}: {as_markdown(inspect.getdoc(world))}",
        Table(["name", *COLUMNS, "settings"], cells, TEXT).markdown(),
    ]
    if own := [list(row.values()) for row in published if _world(row["world"]) == name]:
        header = list(published[0])
        blocks += ["Best published numbers, under the protocols of their papers:"]
        blocks += [Table(header, own, tuple(range(len(header)))).markdown()]
    else:
        blocks += ["No published number belongs to this definition."]
    return "\n\n".join(blocks)


def _settings(name: str) -> str:
    """Return the settings of a preset, as they stand in YAML."""
    settings = PRESETS[name].kwargs if name in PRESETS else {}
    return "; ".join(f"{key} {as_yaml(value)}" for key, value in settings.items()) or "defaults"


def _published() -> list[dict[str, str]]:
    """Return the best published number of each world and metric; a regret is best if small."""
    groups = yaml.safe_load(LEADERBOARD.read_text("utf-8"))["groups"]
    with open(ROOT / "configs/leaderboard/published.csv", newline="", encoding="utf-8") as file:
        rows = [row | {"world": _id(row["world"], groups)} for row in csv.DictReader(file)]
    best: dict[tuple[str, str], dict[str, str]] = {}
    for row in sorted(rows, key=_rank, reverse=True):
        best.setdefault((row["world"], row["metric"]), row)
    return sorted(best.values(), key=lambda row: (row["world"], row["metric"]))


def _id(world: str, groups: dict[str, dict]) -> str:
    """Return the id or the preset of what a line of the CSV file calls its world."""
    if world not in groups:
        return world
    group = groups[world]
    experiment = ROOT / groups[group.get("settings_of", world)]["experiment"]
    return yaml.safe_load(experiment.read_text("utf-8"))["env"]["id"]


def _rank(row: dict[str, str]) -> float:
    value = float(row["value"].split()[0])
    return -value if row["metric"].startswith("regret") else value


def _picture(name: str) -> np.ndarray:
    """Draw the end of an episode, uint8 [H, W, 3], of the optimal policy where it is known.

    The optimal policy of a bandit pulls one arm alone: there the actions are random.
    """
    tasks = envs.make_base(name).all_tasks()
    task = tasks[int(TASK * len(tasks))]
    world, rng = envs.make_base(name, tasks=task[None]), np.random.default_rng(SEED)
    policy, num_actions = world.optimal_policy(task[None]), int(world.single_action_space.n)
    observation, _ = world.reset(seed=SEED)
    steps = []
    for _ in range(STEPS):
        state = observation if world.states() is None else world.states()
        weights = np.full(num_actions, 1 / num_actions)
        if policy is not None and policy.shape[1] > 1:
            weights = policy[0, int(state[0])]
        action = rng.choice(num_actions, p=weights)
        following, reward, terminated, *_ = world.step(np.array([action]))
        steps.append((observation[0], action, reward[0], following[0]))
        observation = following
        if terminated[0]:
            break
    arrays = [np.array(values) for values in zip(*steps, strict=True)]
    fields = ("observation", "action", "reward", "next_observation")
    return world.frames(task, dict(zip(fields, arrays, strict=True)))[-1]
