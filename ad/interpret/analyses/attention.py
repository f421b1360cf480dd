"""Attention by relation: how much of each head's attention goes to which kind of token.

A matrix of all tokens by all tokens differs in every context; its sums over the relations of
`relations.py` can be averaged. The scores of a head are its mean attention on each relation, e.g.
on the same cell (a duplicate-token head), on the step after it (an induction head; Olsson et al.
2022, arXiv 2209.11895) and on rewarded transitions. The row "uniform" is uniform attention.
"""

from typing import ClassVar

import numpy as np
import torch

from ad.data.episodes import ratio
from ad.interpret.analysis import Analysis, estimated, rows_of
from ad.interpret.contexts import Contexts
from ad.interpret.hooks import hooked
from ad.interpret.labeled import Axes, LabeledArray
from ad.interpret.relations import Masks, at_tokens, decision_tokens, relation_names, relations
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table


class Attention(Analysis):
    """Attention of each head by relation, over heads and over in-context episodes."""

    arrays: ClassVar[Axes] = {
        "scores": ("head", "relation"),
        "by_episode": ("episode", "head", "relation"),
    }

    def run(self, subject):
        """Return the attention by relation: `scores`, their intervals, and `by_episode`."""
        contexts, heads = subject.contexts, ["uniform", *subject.heads]
        sums, counts = attention_sums(subject.model, contexts)  # [K, E, heads, R], [K, E, R]
        names, occurs = relation_names(subject.model), counts.any((0, 1))
        sums, counts = sums[..., occurs], counts[:, :, None, occurs]
        axes = {"head": heads, "relation": [names[n] for n in np.flatnonzero(occurs)]}
        about = "share of attention on the tokens of a relation, where there are some"
        by_group = ratio(sums.sum(1), counts.sum(1))
        results = estimated("scores", by_group, axes, about, contexts.unit)
        if contexts.num_episodes > 1:
            results["by_episode"] = LabeledArray(
                ratio(sums.sum(0), counts.sum(0)),
                {"episode": list(range(1, contexts.num_episodes + 1)), **axes},
                f"{about}: mean over the decisions of an in-context episode",
            )
        return results

    def table(self, results):
        """Return the scores of each head and of uniform attention."""
        return Table(
            ["head", *results["scores"].axes["relation"]], rows_of(results, ("scores", ".3f"))
        )


def attention_sums(model: SequenceModel, contexts: Contexts) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of the attention by relation, and the number of decisions, by group and episode.

    The sums are [K, E, heads + 1, R], uniform attention first; the numbers are [K, E, R]. A
    decision counts in the window that it was made in, if that has a token in the relation.
    """

    def measure(batch: Contexts) -> dict[str, torch.Tensor]:
        masks = relations(model, batch)
        mass = torch.stack([_uniform(masks, model, batch), *masses(model, batch, masks)], 2)
        present = torch.stack([mask.any(2) for mask in masks.values()], 2)  # [B, T, R]
        return {"mass": mass * present[:, :, None], "present": present}

    sums = contexts.sums(measure)
    return sums["mass"], sums["present"]


def masses(model: SequenceModel, batch: Contexts, masks: Masks) -> list[torch.Tensor]:
    """Return the attention of each head on each relation, [B, T, R] in the order of the heads."""
    with torch.inference_mode(), hooked(model, ("*.hook_pattern",)) as values:
        model(batch.window)
    stacked = torch.stack(list(masks.values()), 2).float()  # [B, T, R, K]
    queries = decision_tokens(model, batch.length)
    added = []
    for pattern in values.values():
        of_decisions = at_tokens(pattern.cpu(), model.tokenizer.streams, queries)
        added += torch.einsum("bhtk,btrk->hbtr", of_decisions, stacked).unbind(0)
    return added


def _uniform(masks: Masks, model: SequenceModel, batch: Contexts) -> torch.Tensor:
    """Return the attention of a uniform head on each relation, [B, T, R]."""
    counts = torch.stack([mask.sum(2) for mask in masks.values()], 2)
    streams, length = model.tokenizer.entries(batch.length)["decision"].shape
    visible = (decision_tokens(model, batch.length) % length + 1) * streams
    return counts / visible[:, None]
