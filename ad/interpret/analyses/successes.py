"""Successes: how much of a decision rests on one rewarded transition, by how many it has seen.

The rewards of the context are set to 0: all of them, the last one above 0, or all but the last. The
recovery of the rewards that are left is 1 - D(some) / D(none), where D is the KL divergence of the
action probabilities from those with all rewards: 0 if they do no more than none, 1 if they do as
much as all.
"""

from typing import ClassVar

import numpy as np

from ad.interpret.analysis import Analysis, Subject, estimate_text
from ad.interpret.changes import Queries, changed
from ad.interpret.contexts import Contexts
from ad.interpret.labeled import BOUND, Axes, LabeledArray
from ad.interpret.pairs import Pair, recovery
from ad.interpret.relations import tells_rewards
from ad.reporting.tables import Table
from envs.rng import derive_key

FIRST = (1, 2, 3, 4, 6, 9)  # the fewest successes of each group of decisions
MOST = 128  # decisions of a group
LEFT = {"all but the last": "last success removed", "only the last": "earlier successes removed"}


class Successes(Analysis):
    """Recovery of the effect of rewards by the last success, or by all others, by their number."""

    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "divergence": ("successes",),
        "decisions": ("successes",),
        "recovery": ("successes", "rewards left"),
        "recovery_interval": (BOUND, "successes", "rewards left"),
    }

    @classmethod
    def problem(cls, subject):
        """Return why the model does not have this analysis, None if it does."""
        if not tells_rewards(subject.model):
            return "needs a model that reads rewards"
        return super().problem(subject)

    def run(self, subject):
        """Return `divergence` (nats) without rewards, and `recovery` with an interval by group."""
        groups = draw_queries(subject.contexts)
        divergence, found, counts = [], [], []
        for queries in groups.values():
            none, *some = (
                self._divergence(subject, queries, change)
                for change in ("no rewards", *LEFT.values())
            )
            divergence.append(none.sum() / len(queries.last))
            found.append(recovery(np.stack(some, 1), none))
            counts.append(len(queries.last))
        axes, left = {"successes": list(groups)}, {"rewards left": list(LEFT)}
        values = np.array(found).reshape(len(groups), 3, len(LEFT))
        return {
            "divergence": LabeledArray(
                np.array(divergence), axes, "divergence without any reward, nats: mean"
            ),
            "decisions": LabeledArray(np.array(counts), axes, "number of decisions"),
            "recovery": LabeledArray(
                values[:, 0], {**axes, **left}, "1 - divergence / divergence without any reward"
            ),
            "recovery_interval": LabeledArray(
                values[:, 1:].swapaxes(0, 1),
                {"bound": ["low", "high"], **axes, **left},
                "95 % interval of recovery over tasks",
            ),
        }

    def table(self, results):
        """Return the divergence and the recoveries of each group."""
        found, interval = results["recovery"], results["recovery_interval"]
        header = ["successes in context", "decisions", "divergence, no rewards (nats)"]
        rows = []
        for group in found.axes["successes"]:
            numbers = zip(found.at(successes=group), *interval.at(successes=group), strict=True)
            cells = [estimate_text(*each, ".2f") for each in numbers]
            count, nats = (
                results[name].at(successes=group) for name in ("decisions", "divergence")
            )
            rows.append([group, str(count), f"{nats:.2f}", *cells])
        return Table([*header, *(f"recovery, {left}" for left in LEFT)], rows)

    def _divergence(self, subject: Subject, queries: Queries, change: str) -> np.ndarray:
        """Return the sums [K] over the contexts of each task of the divergence after a change."""
        other = changed(queries, change, subject.model, subject.method)
        return Pair(subject.model, queries, other).divergence


def draw_queries(contexts: Contexts) -> dict[str, Queries]:
    """Return decisions by the number of rewards above 0 before them, drawn at random."""
    success = np.cumsum(contexts.valid & (contexts.reward > 0), axis=1)
    seen = np.pad(success[:, :-1], ((0, 0), (1, 0)))  # before each decision
    rng = np.random.default_rng(derive_key(0, "interpret", "successes"))
    groups = {}
    for first, following in zip(FIRST, (*FIRST[1:], np.inf), strict=True):
        rows, last = np.nonzero(contexts.decided & (first <= seen) & (seen < following))
        chosen = np.sort(rng.permutation(len(rows))[:MOST])
        if len(chosen):
            queries = Queries(contexts.select(rows[chosen]), last[chosen])
            groups[_group_name(first, following)] = queries
    return groups


def _group_name(first: int, following: float) -> str:
    if following == np.inf:
        return f"{first} or more"
    return str(first) if following == first + 1 else f"{first} to {following - 1}"
