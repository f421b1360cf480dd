"""Behavior: how often an agent that could step into a wall, an obstacle or the goal does so.

By situation and asked return, it is a mean over decisions: of the probability of the action that
enters the cell in front (sampled), and of whether that action is the most likely one (greedy). It
is told for the intact model, and for the same decisions with each component replaced by its mean
over the contexts; rollouts without a component are those of the analysis `ablation`. The decisions
are those of a bank of situations: found in rollouts, and made by placing the agent. The
bank is kept in `situations.npz`. With `--bank` it is that of another model or checkpoint, and the
probabilities of all actions are compared with those of that model in the same contexts.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from ad.errors import ConfigError
from ad.interpret.analyses.bank import BANK, SAVED, Bank, probabilities
from ad.interpret.analysis import ROLLOUT, Analysis, Subject, estimate_text, over_groups, texts
from ad.interpret.components import Ablated, Replacements, parse_components
from ad.interpret.labeled import Axes, LabeledArray, Results, with_interval
from ad.interpret.situations import situations_of
from ad.reporting.page import Table

INTACT, CHOICES = "none", ["sampled", "greedy"]
SHOWN = 3  # components in the table
BY = ("contexts", "situation", "asked return")
ABOUT = {
    "enters": "how often the agent takes the step into the cell in front, in the same decisions "
    "with and without a component: no rollouts are played without it",
    "effect": "change of how often the agent takes the step, in the same decisions",
    "probability": "probability of an action",
    "difference": "probability of an action minus that of the bank's model",
}


class Behavior(Analysis):
    """How often the agent steps into what is in front, by asked return and ablation."""

    reads_outputs: ClassVar[bool] = True
    reads_histories: ClassVar[bool] = True
    reads_components: ClassVar[bool] = True
    reads_bank: ClassVar[bool] = True
    sources: ClassVar[Sequence[str]] = (ROLLOUT,)
    arrays: ClassVar[Axes] = {
        "decisions": BY,
        "enters": (*BY, "ablated", "actions"),
        "effect": (*BY, "ablated", "actions"),
        "probability": (*BY, "action"),
        "difference": (*BY, "action"),
    }

    @classmethod
    def check(cls, subject):
        """Raise ConfigError with the reason if the subject cannot be analyzed."""
        run = subject.run
        if situations_of(run.world).step not in run.world.action_names:
            raise ConfigError("the world has no action that steps into what is in front")
        super().check(subject)

    def run(self, subject):
        """Return how often what is in front is entered, and the probabilities of all actions."""
        bank, names = _bank(subject), list(subject.choice.components or subject.components)
        by: dict[str, list] = {
            "contexts": sorted({kept.source for kept in bank.kept}),  # made is the last
            "situation": list(dict.fromkeys(kept.situation for kept in bank.kept)),
            "asked return": bank.asked,
        }
        action = {"action": list(range(subject.model.spec.num_actions))}
        ahead = [name for name in by["situation"] if name in situations_of(subject.run.world).ahead]
        own = {"situation": ahead, "ablated": [INTACT, *names], "actions": CHOICES}
        axes: dict[str, dict[str, list]] = {
            "enters": by | own,
            "effect": by | own | {"ablated": names},
        }
        axes["probability"] = by | action
        if subject.choice.bank:
            axes["difference"] = by | action
        shapes = {name: [len(labels) for labels in of.values()] for name, of in axes.items()}
        tables = {name: np.full((3, *shape), np.nan) for name, shape in shapes.items()}
        count = np.zeros([len(labels) for labels in by.values()])
        for kept, measured in zip(bank.kept, _measured(subject, bank, names), strict=True):
            for asked in bank.asked:
                rows, key = kept.rows(asked), (kept.source, kept.situation, asked)
                count[*(by[axis].index(k) for axis, k in zip(BY, key, strict=True))] = rows.sum()
                for name, values in measured.items() if rows.any() else ():
                    if kept.situation in axes[name]["situation"]:
                        at = [axes[name][axis].index(k) for axis, k in zip(BY, key, strict=True)]
                        tables[name][:, *at] = _estimate(values[rows], kept.contexts.group[rows])
        unit = f"{subject.contexts.unit}s and made context"
        results = {"decisions": LabeledArray(count, by, "number of decisions")}
        for name, (mean, *bounds) in tables.items():
            about = f"{ABOUT[name]}: mean over {unit}s"
            results |= with_interval(name, mean, np.stack(bounds), axes[name], about, unit)
        return results

    def table(self, results):
        """Return how often what is in front is entered, and which ablations change that most."""
        axes = results["enters"].axes
        sources = axes["contexts"]
        header = ["situation", "asked return", f"decisions: {', '.join(sources)}"]
        header += [f"{source}, {choice}" for source in sources for choice in CHOICES]
        header += [f"without component {n} ({sources[-1]}, sampled)" for n in range(1, SHOWN + 1)]
        cases = itertools.product(axes["situation"], axes["asked return"])
        return Table(header, [_row(results, *case) for case in cases])


def _row(results: Results, situation: str, asked: float | str) -> list[str]:
    """Return a row of the table."""
    at = {"situation": situation, "asked return": asked}
    names = ("decisions", "enters", "enters_interval")
    decisions, enters, bounds = (results[name].at(**at) for name in names)
    cells = [
        estimate_text(enters[source, 0, choice], *bounds[:, source, 0, choice], ".3f")
        for source, choice in np.ndindex(len(enters), len(CHOICES))
    ]
    components, sampled = results["enters"].axes["ablated"], enters[-1, :, 0]
    order = 1 + np.argsort(-np.abs(sampled[1:] - sampled[0]), kind="stable")[:SHOWN]
    strongest = zip((components[n] for n in order), texts(sampled[order], ".3f"), strict=True)
    cells += [f"{name}: {value}" for name, value in strongest] + [""] * (SHOWN - len(order))
    text = asked if isinstance(asked, str) else f"{asked:g}"
    return [situation, text, ", ".join(texts(decisions, ".0f")), *cells]


def _bank(subject: Subject) -> Bank:
    """Return the bank that the subject names, or a new one, which is kept with its run."""
    if subject.choice.bank:
        return Bank.load(Path(subject.choice.bank), subject.model)
    bank = Bank.of_subject(subject)
    if subject.choice.step is None and not subject.choice.situation and not subject.choice.asked:
        path, saved = subject.run.folder / "inspect" / BANK, []
        with suppress(ConfigError):  # there is no bank, or one for other windows
            saved = [one for one in Bank.load(path, subject.model).kept if one.source in SAVED]
        replace(bank, kept=[*bank.kept, *saved]).save(path, subject.model)
    return bank


def _measured(
    subject: Subject, bank: Bank, names: Sequence[str]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield what is measured in the B contexts of each entry of a bank, [B, ...] by name."""
    model, world = subject.model, subject.run.world
    components = [parse_components(name, model.transformer) for name in names]
    points = tuple(dict.fromkeys(one.point for each in components for one in each))
    replacements = Replacements.of_contexts(model, subject.all_contexts, points)
    step = world.action_names.index(situations_of(world).step)
    for kept in bank.kept:
        count = len(kept.contexts)
        rows = replacements.rows("mean", [None] * count)
        ablated = (Ablated(model, replacements, [one] * count, rows) for one in components)
        writes = [None, *(each.writes() for each in ablated)]
        by_name = np.stack([probabilities(subject, kept.contexts, w) for w in writes], 1)
        enters = np.stack([by_name[..., step], by_name.argmax(-1) == step], -1)
        yield (
            {
                "enters": enters,  # [B, 1 + components, choices]
                "effect": enters[:, 1:] - enters[:, :1],
                "probability": by_name[:, 0],
            }
            | ({"difference": by_name[:, 0] - kept.probability} if subject.choice.bank else {})
        )


def _estimate(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the mean over groups of the means of `values` [B, ...], and its interval: [3, ...]."""
    means = [values[group == one].mean(0) for one in np.unique(group)]
    mean, interval = over_groups(np.stack(means))
    return np.stack([mean, *interval])
