"""Direct attribution: what each component of the model adds to the preference for one action.

The output layer reads the residual stream: the sum of the outputs of the embedding, the attention
heads and the MLPs. With the scale of the final normalization fixed at its value in the forward
pass, the output for action a minus the output for action b is a sum over these components. The term
of a head is a sum over the tokens that it attends to, and the term of an MLP over its neurons
(Elhage et al. 2021, "A mathematical framework for transformer circuits"). The outputs are logits,
or action values where a method learns those.
"""

import itertools
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from ad.data.episodes import ratio
from ad.interpret.analyses.reading import Reading, component_names, preferred, read_values
from ad.interpret.analysis import Analysis, estimated, rows_of
from ad.interpret.contexts import Contexts
from ad.interpret.directions import MOST_PAIRS, action_labels
from ad.interpret.labeled import Axes, LabeledArray
from ad.interpret.relations import relation_names, relations
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table


class Attribution(Analysis):
    """Contribution of each component to a direction of the outputs, and to each pair of actions."""

    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "preferred": ("component",),
        "by_relation": ("head", "relation"),
        "neurons": ("layer", "neuron"),
        "by_episode": ("episode", "component"),
        "pairs": ("pair", "component"),
        "spread": ("pair", "component"),
    }

    def run(self, subject):
        """Return mean contributions by component, episode, relation, pair and neuron."""
        model, contexts = subject.model, subject.contexts
        sums = contexts.sums(partial(_measured, model, subject.output_direction))
        count, axes = sums.pop("count"), {"component": component_names(model)}
        means = {name: total.sum((0, 1)) / count.sum() for name, total in sums.items()}
        neurons, occurs = means["neurons"], means["tokens"] > 0
        names = [name for name, one in zip(relation_names(model), occurs, strict=True) if one]
        about = "contribution to the output of the best action minus that of the second"
        if subject.choice.direction:
            about = f"contribution to the output along {subject.choice.direction}"
        added = sums["components"]
        by_group = ratio(added.sum(1), count.sum(1)[:, None])
        results = estimated("preferred", by_group, axes, about, contexts.unit)
        if contexts.num_episodes > 1:
            results["by_episode"] = LabeledArray(
                ratio(added.sum(0), count[..., None].sum(0)),
                {"episode": list(range(1, contexts.num_episodes + 1)), **axes},
                f"{about}: mean over the decisions of an in-context episode",
            )
        results |= {
            "by_relation": LabeledArray(
                means["relations"][:, occurs],
                {"head": subject.heads, "relation": names},
                f"{about}, of the tokens in a relation: mean over all decisions",
            ),
            "neurons": LabeledArray(
                neurons,
                {"layer": list(range(len(neurons))), "neuron": list(range(neurons.shape[1]))},
                f"size of the {about}: mean over all decisions",
            ),
        }
        if "pairs" not in means:
            return results
        labels = action_labels(subject.run and subject.run.world, model.spec.num_actions)
        axes = {"pair": [f"{labels[a]} - {labels[b]}" for a, b in _pairs(model)], **axes}
        about = "contribution to the output of an action minus that of another, over all decisions"
        deviation = np.sqrt(np.maximum(means["squares"] - means["pairs"] ** 2, 0))
        return results | {
            "pairs": LabeledArray(means["pairs"], axes, f"{about}: mean"),
            "spread": LabeledArray(deviation, axes, f"{about}: standard deviation"),
        }

    def table(self, results):
        """Return the contribution of each component, and of each head by relation of tokens."""
        columns = ("preferred", "+.3f"), ("by_relation", "+.3f")
        header = ["component", "contribution", *results["by_relation"].axes["relation"]]
        return Table(header, rows_of(results, *columns, intervals=["preferred"]))


def _pairs(model: SequenceModel) -> list[tuple[int, int]]:
    """Return the pairs of actions, none if there are more than MOST_PAIRS."""
    pairs = list(itertools.combinations(range(model.spec.num_actions), 2))
    return pairs if len(pairs) <= MOST_PAIRS else []


def _measured(
    model: SequenceModel, direction: torch.Tensor | None, batch: Contexts
) -> dict[str, torch.Tensor]:
    """Return contributions along `direction` [A], None for the best action against the second.

    They are `components` [B, T, P], `tokens` [B, T, R], the numbers of tokens in each relation,
    `relations` [B, T, heads, R], over these, and `neurons` [B, T, layers, F], absolute values;
    also `pairs` [B, T, pairs, P] by pair of actions, and their `squares`.
    """
    values = read_values(model, batch)
    along = preferred(values["outputs"]) if direction is None else direction
    reading = Reading(model, values, along)
    masks = torch.stack(list(relations(model, batch).values()), 2).float()
    measured = {
        "components": reading.components(),
        "tokens": masks.sum(3),
        "relations": torch.einsum("bthk,btrk->bthr", reading.tokens().cpu(), masks),
        "neurons": reading.neurons().abs(),
    }
    if pairs := _pairs(model):
        actions = torch.eye(model.spec.num_actions, device=model.head.weight.device)
        by_action = [Reading(model, values, action).components() for action in actions]
        added = torch.stack([by_action[a] - by_action[b] for a, b in pairs], 2)
        measured |= {"pairs": added, "squares": added.double() ** 2}
    return measured
