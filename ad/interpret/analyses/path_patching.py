"""Path patching: along which edges the output of a head carries a change of the context.

The model runs on the changed context of a pair (`pairs.py`). A sender is a head; a
receiver is the query, key or value of a later head, an MLP, or the logits. The receiver is computed
with the sender's output on the original context, while its other inputs are frozen. Whatever
follows the receiver is computed anew (Wang et al. 2023, arXiv 2211.00593, section 3.1, where MLPs
between sender and receiver are not frozen).
"""

from typing import ClassVar

import numpy as np
import torch

from ad.evaluation.scores import UNKNOWN
from ad.interpret.analyses.pairs import (
    Pair,
    Patches,
    effects,
    head_patches,
    labeled_recoveries,
    make_pairs,
)
from ad.interpret.analysis import Analysis, estimate_text
from ad.interpret.hooks import Write, hooked
from ad.interpret.labeled import Axes
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table

MOST_HEADS = 8  # the heads whose whole output recovers most of any change
FAINT = 0.01  # nats: changes of smaller divergence have no part in the choice of heads
SHOWN = 3  # edges of each change in the table
INPUTS = ("q", "k", "v")

Heads = list[tuple[int, int]]  # layer and number


class PathPatching(Analysis):
    """Recovery of each change of the context by the edge from a head to each later component."""

    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "effect": ("change", "measure"),
        "sender": ("change", "sender"),
        "edge": ("change", "sender", "receiver"),
    }

    def run(self, subject):
        """Return the recoveries of each edge and of the senders' whole outputs, by change."""
        pairs = make_pairs(subject)
        whole = np.stack([pair.recoveries(dict(head_patches(pair))) for pair in pairs.values()])
        effect = effects(pairs)
        is_clear = effect.at(measure="divergence (nats)")[:, None] >= FAINT
        heads = strongest_heads(subject.model, np.where(is_clear, whole[:, 0], np.nan))
        names = [f"{layer}.{head}" for layer, head in heads]
        axes = {"change": list(pairs), "sender": names}
        whole = whole[..., [subject.heads.index(name) for name in names]]
        edges = np.stack([edge_recoveries(pair, heads) for pair in pairs.values()])
        edge_axes = {**axes, "receiver": receivers(subject.model, heads)}
        about = "recovery by {} of the sender: 1 - divergence with the patch / divergence without"
        unit, by_whole = subject.contexts.unit, about.format("the whole output")
        return {
            "effect": effect,
            **labeled_recoveries("sender", whole, axes, by_whole, unit),
            **labeled_recoveries("edge", edges, edge_axes, about.format("one edge"), unit),
        }

    def table(self, results):
        """Return the edges that recover most of each change, with their intervals."""
        edge, interval = results["edge"], results["edge_interval"]
        header = ["change", "sender", "receiver", "recovery", "whole sender"]
        rows = []
        for change in edge.axes["change"]:
            values = edge.at(change=change)
            if np.isnan(values).all():
                rows.append([change, *[UNKNOWN] * 4])
                continue
            order = np.argsort(-np.nan_to_num(values, nan=-np.inf), axis=None)[:SHOWN]
            for place in zip(*np.unravel_index(order, values.shape), strict=True):
                if np.isnan(values[place]):
                    break
                sender, receiver = place
                whole = results["sender"].at(change=change)[sender]
                bounds = interval.at(change=change)[:, sender, receiver]
                labels = [edge.axes["sender"][sender], edge.axes["receiver"][receiver]]
                numbers = [estimate_text(values[place], *bounds, ".2f"), f"{whole:.2f}"]
                rows.append([change, *labels, *numbers])
        return Table(header, rows)


def strongest_heads(model: SequenceModel, recoveries: np.ndarray) -> Heads:
    """Return the MOST_HEADS heads with the highest `recoveries` [changes, heads], in order."""
    highest = np.nan_to_num(recoveries, nan=-np.inf).max(0)
    chosen = np.sort(np.argsort(-highest, kind="stable")[:MOST_HEADS])
    return [divmod(int(index), model.transformer.heads) for index in chosen]


def receivers(model: SequenceModel, heads: Heads) -> list[str]:
    """Return the names of all receivers: the inputs of `heads`, the MLPs and the logits."""
    inputs = [f"{letter} {layer}.{head}" for layer, head in heads for letter in INPUTS]
    return [*inputs, *(f"mlp {n}" for n in range(len(model.transformer.blocks))), "logits"]


def edge_recoveries(pair: Pair, heads: Heads) -> np.ndarray:
    """Return the recovery of each edge and its interval, [3, senders, receivers].

    NaN where the receiver is not after the sender.
    """
    names = receivers(pair.model, heads)
    values = np.full((3, len(heads), len(names)), np.nan)
    for row, sender in enumerate(heads):
        patches = dict(edge_patches(pair, sender, heads))
        values[:, row, [names.index(name) for name in patches]] = pair.recoveries(patches)
    return values


def edge_patches(pair: Pair, sender: tuple[int, int], heads: Heads) -> Patches:
    """Yield the hook that writes each receiver after `sender`, by its name in `receivers`.

    The values of all receivers come from one pass, in which every block reads the frozen residual
    stream plus the sender's difference.
    """
    layers = range(sender[0], len(pair.model.transformer.blocks))
    added = sender_difference(pair, *sender)
    read = [f"blocks.{layer}.hook_resid_{part}" for layer in layers for part in ("pre", "mid")][1:]
    frozen = {name: _constant(pair.other_values[name] + added) for name in read}
    points = (*(f"*.attn.hook_{letter}" for letter in INPUTS), "*.hook_mlp_out")
    with torch.no_grad(), hooked(pair.model, points, frozen) as values:
        pair.model(pair.other.window)
    for layer in layers:
        name = f"blocks.{layer}"
        for head in (head for own, head in heads if own == layer > sender[0]):
            for letter in INPUTS:
                point = f"{name}.attn.hook_{letter}"
                yield f"{letter} {layer}.{head}", {point: _of_head(values[point], head)}
        point = f"{name}.hook_mlp_out"
        yield f"mlp {layer}", {point: _constant(values[point])}
    yield "logits", {f"{name}.hook_resid_post": lambda value, point: value + added}


@torch.no_grad()
def sender_difference(pair: Pair, layer: int, head: int) -> torch.Tensor:
    """Return the head's output on the original minus that on the changed context, [N * S, L, C]."""
    name, attention = f"blocks.{layer}.attn.hook_z", pair.model.transformer.in_turn[layer].attn
    difference = (pair.values[name] - pair.other_values[name])[:, :, head]
    return difference @ attention.out.weight.unflatten(1, (attention.heads, -1))[:, head].T


def _constant(new: torch.Tensor) -> Write:
    """Return a hook that replaces a value by `new`."""
    return lambda value, point: new


def _of_head(new: torch.Tensor, head: int) -> Write:
    """Return a hook that replaces a value [N * S, L, H, D] by `new` in one head."""
    mask = (torch.arange(new.shape[2], device=new.device) == head)[:, None]
    return lambda value, point: torch.where(mask, new, value)
