"""Direct attribution: what each component of the model adds to the preference for one action.

The output layer reads the residual stream: the sum of the outputs of the embedding, the attention
heads and the MLPs. With the scale of the final normalization fixed at its value in the forward
pass, the output for action a minus the output for action b is a sum over these components. The term
of a head is a sum over the tokens that it attends to, and the term of an MLP over its neurons
(Elhage et al. 2021, "A mathematical framework for transformer circuits"). The outputs are logits,
or action values where a method learns those.
"""

import itertools
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from ad.data.episodes import ratio
from ad.errors import ConfigError
from ad.interpret.analysis import Analysis, estimate_text, over_groups, texts
from ad.interpret.contexts import Contexts
from ad.interpret.directions import MOST_PAIRS
from ad.interpret.hooks import Values, Write, hooked
from ad.interpret.labeled import BOUND, Axes, LabeledArray, Results, with_interval
from ad.interpret.relations import at_tokens, decision_tokens, relation_names, relations
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table

POINTS = (
    "hook_embed",
    "*.hook_pattern",
    "*.hook_v",
    "*.hook_z",
    "*.hook_attn_out",
    "*.mlp.hook_post",
    "*.hook_mlp_out",
)


class Attribution(Analysis):
    """Contribution of each component to a direction of the outputs, and to each pair of actions."""

    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "preferred": ("component",),
        "preferred_interval": (BOUND, "component"),
        "by_relation": ("head", "relation"),
        "neurons": ("layer", "neuron"),
        "by_episode": ("episode", "component"),
        "pairs": ("pair", "component"),
        "spread": ("pair", "component"),
    }

    @classmethod
    def check(cls, subject):
        """Raise ConfigError with the reason if the subject cannot be analyzed."""
        if subject.model.spec.num_actions < 2:
            raise ConfigError("the world has a single action")
        super().check(subject)

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
        if subject.direction:
            about = f"contribution to the output along {subject.direction}"
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


def component_names(model: SequenceModel) -> list[str]:
    """Return the terms of the embedding, the heads and MLPs, and the sum of all biases."""
    heads = range(model.transformer.heads)
    layers = range(len(model.transformer.blocks))
    blocks = [[*(f"{layer}.{head}" for head in heads), f"mlp {layer}"] for layer in layers]
    return [*model.tokenizer.decision_terms, *itertools.chain.from_iterable(blocks), "bias"]


class Reading:
    """Contributions to the head's outputs along `directions` at T decisions of B windows.

    `directions` are [B, T, A] or [A]: with 1 at action a and -1 at action b, the preference for a
    against b. `values` come from `read_values`. `components` sum to the difference of outputs,
    `tokens` to the component of its head, and `neurons` to the component of its MLP without the
    MLP's bias.
    """

    def __init__(self, model: SequenceModel, values: Values, directions: torch.Tensor):
        self.model, self.values, self.at = model, values, model.tokenizer.at_decisions
        norm, head = model.transformer.ln_final, model.head
        directions = directions.to(head.weight.dtype)
        reader, bias = directions @ head.weight, head.bias  # [B, T, C]
        if isinstance(norm, nn.LayerNorm):
            bias = bias + head.weight @ norm.bias
            reader = reader * norm.weight
            reader = reader - reader.mean(-1, keepdim=True)
            reader = reader / self.at(values["ln_final.hook_scale"])
        embedded = self.at(values["hook_embed"])
        self.reader = reader.expand(embedded.shape)  # d difference / d residual stream
        self.bias = (directions @ bias).expand(embedded.shape[:2])

    def components(self) -> torch.Tensor:
        """Return the contribution of each of `component_names`, [B, T, P]."""
        terms = [self.at(self.values[f"terms.{n}"]) for n in self.model.tokenizer.decision_terms]
        components = [(term * self.reader).sum(-1)[..., None] for term in terms]
        bias = self.bias
        for layer, block in enumerate(self.model.transformer.blocks):
            z = self.at(self.values[f"blocks.{layer}.attn.hook_z"])
            mlp = self.at(self.values[f"blocks.{layer}.hook_mlp_out"])
            components += [
                (z * self._head_readers(layer)).sum(-1),
                (mlp * self.reader).sum(-1)[..., None],
            ]
            bias = bias + self.reader @ block.attn.out.bias
        return torch.cat([*components, bias[..., None]], 2)

    def neurons(self) -> torch.Tensor:
        """Return the contribution of each neuron, [B, T, layers, F]."""
        added = [
            self.at(self.values[f"blocks.{layer}.mlp.hook_post"])
            * (self.reader @ block.mlp.down.weight)
            for layer, block in enumerate(self.model.transformer.blocks)
        ]
        return torch.stack(added, 2)

    def tokens(self) -> torch.Tensor:
        """Return the contribution of each of K tokens through each head, [B, T, heads, K]."""
        streams, added = self.model.tokenizer.streams, []
        queries = decision_tokens(self.model, self.reader.shape[1])
        for layer in range(len(self.model.transformer.blocks)):
            name = f"blocks.{layer}.attn"
            pattern = at_tokens(self.values[f"{name}.hook_pattern"], streams, queries)
            v = self.values[f"{name}.hook_v"].unflatten(0, (-1, streams)).flatten(1, 2)
            readers = self._head_readers(layer)
            added.append(torch.einsum("bhtk,bthd,bkhd->bthk", pattern, readers, v))
        return torch.cat(added, 2)

    def _head_readers(self, layer: int) -> torch.Tensor:
        """Return `reader` as a map of the outputs z of a layer's heads, [B, T, H, D]."""
        out = self.model.transformer.blocks[layer].attn.out.weight
        by_head = out.unflatten(1, (self.model.transformer.heads, -1))  # [C, H, D]
        return torch.einsum("btc,chd->bthd", self.reader, by_head)


def read_values(
    model: SequenceModel, batch: Contexts, write: Mapping[str, Write] | None = None
) -> Values:
    """Return the values at the points that a Reading needs, the tokens' terms, and the outputs.

    The terms are called `terms.<name>`, and `outputs` [B, T, A] are those of the head. `write` are
    hooks of `hooked`, whose replacements are read.
    """
    scales = isinstance(model.transformer.ln_final, nn.LayerNorm)
    points = (*POINTS, "ln_final.hook_scale") if scales else POINTS
    with torch.inference_mode(), hooked(model, points, write) as values:
        outputs = model.head(model.hidden(batch.window))
        terms = model.tokenizer.terms(batch.window)
    return values | {f"terms.{name}": term for name, term in terms.items()} | {"outputs": outputs}


def preferred(outputs: torch.Tensor) -> torch.Tensor:
    """Return the direction [..., A] of the best action of `outputs` [..., A] against the second."""
    best = outputs.topk(2, dim=-1).indices
    one_hot = nn.functional.one_hot(best, outputs.shape[-1])
    return one_hot[..., 0, :] - one_hot[..., 1, :]


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


def outputs(model: SequenceModel, batch: Contexts) -> torch.Tensor:
    """Return the outputs of the head at every decision, [B, T, A]."""
    with torch.inference_mode():
        return model.head(model.hidden(batch.window))
