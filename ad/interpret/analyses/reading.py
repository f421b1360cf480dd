"""What components, tokens and neurons add to the outputs of a model along a direction."""

import itertools
from collections.abc import Mapping

import torch
from torch import nn

from ad.interpret.contexts import Contexts
from ad.interpret.hooks import Values, Write, hooked
from ad.interpret.relations import at_tokens, decision_tokens
from ad.models.sequence_model import SequenceModel

POINTS = (
    "hook_embed",
    "*.hook_pattern",
    "*.hook_v",
    "*.hook_z",
    "*.hook_attn_out",
    "*.mlp.hook_post",
    "*.hook_mlp_out",
)


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
        for layer, block in enumerate(self.model.transformer.in_turn):
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
            for layer, block in enumerate(self.model.transformer.in_turn)
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
        out = self.model.transformer.in_turn[layer].attn.out.weight
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


def outputs(model: SequenceModel, batch: Contexts) -> torch.Tensor:
    """Return the outputs of the head at every decision, [B, T, A]."""
    with torch.inference_mode():
        return model.head(model.hidden(batch.window))
