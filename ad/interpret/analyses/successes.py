"""Successes: how much of a decision rests on one rewarded transition, by their number in context.

Rewards of the context are set to 0: all of them, the last one above 0, or all but the last. The
recovery by the remaining rewards is 1 - D(some) / D(none), where D is the KL divergence of the
action probabilities from the probabilities with all rewards: 0 if the remaining rewards do no more
than none, 1 if they do as much as all.
"""

from typing import ClassVar

import numpy as np

from ad.errors import ConfigError
from ad.interpret.analyses.pairs import Pair, labeled_recoveries, recovery
from ad.interpret.analysis import Analysis, Subject, rows_of
from ad.interpret.changes import Queries, changed
from ad.interpret.contexts import Contexts
from ad.interpret.labeled import Axes, LabeledArray
from ad.interpret.relations import encodes_rewards
from ad.reporting.page import Table
from envs.rng import derive_key

FIRST = (1, 2, 3, 4, 6, 9)  # fewest successes of each group of decisions
MOST = 128  # decisions of a group
LEFT = {"all but the last": "last success removed", "only the last": "earlier successes removed"}


class Successes(Analysis):
    """Recovery of the effect of rewards by the last success, or by all others, by their number."""

    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "divergence": ("successes",),
        "decisions": ("successes",),
        "recovery": ("successes", "rewards left"),
    }

    @classmethod
    def check(cls, subject):
        """Raise ConfigError with the reason if the subject cannot be analyzed."""
        if not encodes_rewards(subject.model):
            raise ConfigError(
                "the model reads no rewards: train one with model.reward table or projection"
            )
        super().check(subject)

    def run(self, subject):
        """Return `divergence` (nats) without rewards, and `recovery` with an interval by group."""
        groups = draw_queries(subject.contexts)
        divergence, recoveries, counts = [], [], []
        for queries in groups.values():
            none, *some = (
                self._divergence(subject, queries, change)
                for change in ("no rewards", *LEFT.values())
            )
            divergence.append(none.sum() / len(queries.last))
            recoveries.append(recovery(np.stack(some, 1), none))
            counts.append(len(queries.last))
        axes = {"successes": list(groups)}
        about = "divergence without any reward, nats: mean"
        return {
            "divergence": LabeledArray(np.array(divergence), axes, about),
            "decisions": LabeledArray(np.array(counts), axes, "number of decisions"),
            **labeled_recoveries(
                "recovery",
                np.array(recoveries).reshape(len(groups), 3, len(LEFT)),
                {**axes, "rewards left": list(LEFT)},
                "1 - divergence / divergence without any reward",
                subject.contexts.unit,
            ),
        }

    def table(self, results):
        """Return the divergence and the recoveries of each group."""
        header = ["successes in context", "decisions", "divergence, no rewards (nats)"]
        columns = ("decisions", ".0f"), ("divergence", ".2f"), ("recovery", ".2f")
        rows = rows_of(results, *columns, intervals=["recovery"])
        return Table([*header, *(f"recovery, {left}" for left in LEFT)], rows)

    def _divergence(self, subject: Subject, queries: Queries, change: str) -> np.ndarray:
        """Return the divergence after a change, summed over the contexts of each group, [K]."""
        other = changed(queries, change, subject.model, subject.method)
        return Pair(subject.model, queries, other).divergence


def draw_queries(contexts: Contexts) -> dict[str, Queries]:
    """Draw decisions at random, in groups by the number of rewards above 0 before them."""
    success = np.cumsum(contexts.valid & (contexts.reward > 0), axis=1)
    seen = np.pad(success[:, :-1], ((0, 0), (1, 0)))  # before each decision
    rng = np.random.default_rng(derive_key(0, "interpret", "successes"))
    groups = {}
    for first, following in zip(FIRST, (*FIRST[1:], np.inf), strict=True):
        rows, last = np.nonzero(contexts.decided & (first <= seen) & (seen < following))
        drawn = np.sort(rng.permutation(len(rows))[:MOST])
        if len(drawn):
            queries = Queries(contexts.select(rows[drawn]), last[drawn])
            groups[_group_name(first, following)] = queries
    return groups


def _group_name(first: int, following: float) -> str:
    if following == np.inf:
        return f"{first} or more"
    return str(first) if following == first + 1 else f"{first} to {following - 1}"
