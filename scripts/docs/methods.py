"""The methods: each with its docstrings, and its train time in the records of the leaderboard."""

import inspect
import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import yaml

from ad.config.schema import MethodConfig
from ad.registry import METHODS
from scripts.docs import LEADERBOARD
from scripts.docs.docstrings import as_markdown

BASELINE = "algorithm distillation"


def sections(site: Path) -> str:
    """Return the sections of the methods of the registry as Markdown."""
    seconds = _train_seconds()
    return "\n\n".join(_section(name, seconds) for name in METHODS.names())


def _section(name: str, seconds: dict[str, dict[str, float]]) -> str:
    method = METHODS.load(name)
    place = f"[`{method.__name__}`][{method.__module__}.{method.__name__}]"
    return "\n\n".join(
        (
            f"## {name}",
            as_markdown(sys.modules[method.__module__].__doc__),
            f"{place}: {as_markdown(inspect.getdoc(method))}",
            train_time(_row(name), seconds),
        )
    )


def _row(name: str) -> str:
    """Return the title of the first row of the leaderboard with a method."""
    rows = yaml.safe_load(LEADERBOARD.read_text("utf-8"))["rows"]
    for title, own in rows.items():
        if own.get("settings", {}).get("method.name", MethodConfig().name) == name:
            return title
    return ""


def train_time(row: str, seconds: dict[str, dict[str, float]]) -> str:
    """Return a sentence about the train time of a row, in worlds that the baseline has, too."""
    own, others = seconds.get(row, {}), seconds[BASELINE]
    ratios = [own[world] / others[world] for world in own if world in others]
    if row == BASELINE:
        return "*Train time*: what those of the other methods are compared with."
    if not ratios:
        return "*Train time*: the leaderboard has no record of it."
    worlds = f"{len(ratios)} {'world' if len(ratios) == 1 else 'worlds'}"
    span = f"{min(ratios):.1f} to {max(ratios):.1f}"
    return f"*Train time*: {span} times that of {BASELINE} in {worlds} of the leaderboard."


def _train_seconds() -> dict[str, dict[str, float]]:
    """Return the mean seconds of training of each row and world of the leaderboard's records."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in LEADERBOARD.with_suffix(".jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        if (own := record["seconds"].get("train_s")) and not record["failure"]:
            found[record["row"]][record["group"]].append(own)
    return {row: {world: mean(own[world]) for world in own} for row, own in found.items()}
