"""Direct attribution: what each component of the model adds to the preference for one action.

The output layer reads the residual stream: the sum of the outputs of the embedding, the attention
heads and the MLPs. With the scale of the final normalization fixed at its value in the forward
pass, the output for action a minus the output for action b is a sum over these components. The term
of a head is a sum over the tokens that it attends to, and the term of an MLP over its neurons
(Elhage et al. 2021, "A mathematical framework for transformer circuits"). The outputs are logits,
or action values where a method learns those.
"""

import itertools
from typing import ClassVar

import numpy as np
import torch

from ad.data.episodes import ratio
from ad.interpret.analyses.reading import Reading, component_names, preferred, read_values
from ad.interpret.analysis import Analysis, estimate_text, over_groups, texts
from ad.interpret.contexts import Contexts
from ad.interpret.directions import MOST_PAIRS
from ad.interpret.labeled import Axes, LabeledArray, Results, with_interval
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
        sums, counts = _preferred_sums(model, contexts, subject.output_direction)
        axes = {"component": component_names(model)}
        estimate = over_groups(ratio(sums["components"].sum(1), counts.sum(1)))
        totals = {name: ratio(s.sum((0, 1)), counts.sum((0, 1))) for name, s in sums.items()}
        neurons, occurs = totals["neurons"], totals["tokens"] > 0
        names = relation_names(model)
        names = [name for name, one in zip(names, occurs, strict=True) if one]
        about = "contribution to the output of the best action minus that of the second"
        if subject.choice.direction:
            about = f"contribution to the output along {subject.choice.direction}"
        mean = f"{about}: mean over {contexts.unit}s"
        results = with_interval("preferred", *estimate, axes, mean, contexts.unit)
        results |= {
            "by_relation": LabeledArray(
                totals["relations"][:, occurs],
                {"head": subject.heads, "relation": names},
                f"{about}, of the tokens in a relation: mean over all decisions",
            ),
            "neurons": LabeledArray(
                neurons,
                {"layer": list(range(len(neurons))), "neuron": list(range(neurons.shape[1]))},
                f"size of the {about}: mean over all decisions",
            ),
        }
        if contexts.num_episodes > 1:
            results["by_episode"] = LabeledArray(
                ratio(sums["components"].sum(0), counts.sum(0)),
                {"episode": list(range(1, contexts.num_episodes + 1)), **axes},
                f"{about}: mean over the decisions of an in-context episode",
            )
        return results | _pairs(model, contexts, axes)

    def table(self, results):
        """Return the contribution of each component, and of each head by relation of tokens."""
        mean, interval = results["preferred"], results["preferred_interval"]
        relations = results["by_relation"]
        names, rows = relations.axes["relation"], []
        for component in mean.axes["component"]:
            is_head = component in relations.axes["head"]
            by_relation = relations.at(head=component) if is_head else [np.nan] * len(names)
            numbers = mean.at(component=component), *interval.at(component=component)
            cells = [estimate_text(*numbers, "+.3f"), *texts(by_relation, "+.3f")]
            rows.append([component, *cells])
        return Table(["component", "contribution", *names], rows)


def _preferred_sums(
    model: SequenceModel, contexts: Contexts, direction: torch.Tensor | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return sums of contributions by group and episode, and the numbers of decisions [K, E, 1].

    The sums are `components` [K, E, P], `tokens` [K, E, R], the numbers of tokens in each relation,
    `relations` [K, E, heads, R], over these, and `neurons` [K, E, layers, F], of absolute values.
    """
    sums: dict[str, np.ndarray] = {}
    counts = 0.0
    for batch in contexts.batches():
        values = read_values(model, batch)
        directions = preferred(values["outputs"])
        if direction is not None:
            directions = direction.expand(directions.shape)
        reading = Reading(model, values, directions)
        masks = torch.stack(list(relations(model, batch).values()), 2).float()
        values = {
            "components": reading.components(),
            "tokens": masks.sum(3),
            "relations": torch.einsum("bthk,btrk->bthr", reading.tokens().cpu(), masks),
            "neurons": reading.neurons().abs(),
        }
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + batch.total(value)
        counts = counts + batch.total(torch.ones(*directions.shape[:2], 1))
    return sums, counts


def _pairs(model: SequenceModel, contexts: Contexts, axes: dict[str, list[str]]) -> Results:
    """Return the mean and the standard deviation of the contributions by pair of actions."""
    actions = range(model.spec.num_actions)
    pairs = list(itertools.combinations(actions, 2))
    if len(pairs) > MOST_PAIRS:
        return {}
    total = square = count = 0.0
    for batch in contexts.batches():
        values = read_values(model, batch)
        directions = torch.eye(len(actions), device=model.head.weight.device)
        by_action = [Reading(model, values, direction).components() for direction in directions]
        added = torch.stack([by_action[a] - by_action[b] for a, b in pairs], 2)
        total = total + batch.total(added).sum((0, 1))
        square = square + batch.total(added.double() ** 2).sum((0, 1))
        count = count + batch.total(torch.ones(added.shape[:2])).sum()
    mean = total / count
    axes = {"pair": [f"{a} - {b}" for a, b in pairs], **axes}
    about = "contribution to the output of an action minus that of another, over all decisions"
    deviation = np.sqrt(np.maximum(square / count - mean**2, 0))
    return {
        "pairs": LabeledArray(mean, axes, f"{about}: mean"),
        "spread": LabeledArray(deviation, axes, f"{about}: standard deviation"),
    }
