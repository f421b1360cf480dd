"""The weights alone, without any context: embeddings, circuits of heads, statistics.

A head is two maps of the residual stream (Elhage et al. 2021): W_Q W_K^T says which tokens attend
to which, W_V W_O what is moved. The composition of a head's queries, keys or values with an earlier
head's output is |A B| / (|A| |B|) in Frobenius norms, less the mean over random maps of the same
rank (section "Composition" of that paper). An MLP reads by its first linear map and writes by its
second one. The maps contain the weights of the normalization before them and the mean that it
subtracts, but not its scale, which depends on the context.
"""

import itertools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from ad.evaluation.scores import UNKNOWN
from ad.interpret.analyses.linear import (
    MOST_ROWS,
    PLANES,
    _reading,
    first_map,
    head_circuits,
    labeled,
    layout,
    row_names,
)
from ad.interpret.analysis import Analysis, Subject, correlation, texts
from ad.interpret.labeled import LabeledArray, Results
from ad.models.encoders.base import TabularEncoder
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import Tokenizer
from ad.reporting.page import Table
from envs.minigrid.encoding import SIZES
from envs.rng import derive_key

COMPONENTS = 3  # principal components of a table
RANDOM_PAIRS = 20  # of random heads, whose composition is subtracted


class Static(Analysis):
    """Embeddings, QK and OV circuits, composition of heads, singular values, parameters."""

    reads_contexts: ClassVar[bool] = False

    def run(self, subject):
        """Return the arrays of each embedding table, of the heads, and of the parameters."""
        with torch.inference_mode():
            results: Results = {}
            for name, table in embedding_tables(subject.model.tokenizer).items():
                part = subject.model.spec.observation_fields.get(name)
                results |= _embedding(name, table, row_names(part, len(table)))
            for name, (table, rows) in picture_tables(subject.model).items():
                results |= _embedding(name, table, rows)
            return results | _circuits(subject) | _parameters(subject.model)

    def table(self, results):
        """Return the ranks of each head, its copying score, and its strongest compositions."""
        singular, copying = results["singular_values"], results["copying"]
        composition, rows = results["composition"], []
        names, kinds = composition.axes["component"], composition.axes["kind"]
        for name in names:
            row = [name, UNKNOWN, UNKNOWN, UNKNOWN]
            if name in copying.axes["head"]:
                ranks = [effective_rank(singular.at(head=name, circuit=c)) for c in ("QK", "OV")]
                copies = texts(copying.at(head=name)[None], "+.2f")
                row[1:] = *(f"{rank:.1f}" for rank in ranks), *copies
            each = [_strongest(composition.at(component=name, kind=kind), names) for kind in kinds]
            rows.append(row + each)
        header = ["component", "effective rank QK", "effective rank OV", "copying"]
        header += [f"strongest {kind} composition" for kind in kinds]
        return Table(header, rows).compact()


def _strongest(scores: np.ndarray, names: list[str]) -> str:
    """Return the earlier component with the highest of `scores`, and its score."""
    if not np.isfinite(scores).any():
        return UNKNOWN
    best = int(np.nanargmax(scores))
    return f"{names[best]} ({scores[best]:+.2f})"


def embedding_tables(tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    """Return the learned vectors [n, C] by name: observations, actions, rewards, positions."""
    tables = {"action": tokenizer.action.weight}
    for part, encoder in zip(tokenizer.parts, tokenizer.encoders, strict=True):
        if isinstance(encoder, TabularEncoder):
            tables["observation" + (f"-{part}" if part else "")] = encoder.table()
    if isinstance(tokenizer.reward, nn.Embedding):
        tables["reward"] = tokenizer.reward.weight
    vectors = getattr(tokenizer.position, "vectors", None)
    if vectors is not None:
        tables["position"] = getattr(vectors, "weight", vectors)
    return {name: table for name, table in tables.items() if 2 <= len(table) <= MOST_ROWS}


def picture_tables(model: SequenceModel) -> dict[str, tuple[torch.Tensor, list[str]]]:
    """Return the vectors [n, ...] of channels and positions of pictures, and their names.

    A linear encoder has a vector for each channel in each cell; one after another they are the
    vector of the channel, and likewise that of the position. Others have the same vectors in all
    cells, before anything that is not linear. Channels of one-hot cells are objects, colors and
    states.
    """
    found = {}
    for part, encoder in zip(model.tokenizer.parts, model.tokenizer.encoders, strict=True):
        declared, suffix = model.spec.observation[part], f"-{part}" if part else ""
        if isinstance(encoder, TabularEncoder) or len(declared.shape) != 3:
            continue
        channels, cells = layout(declared, encoder)
        vectors = first_map(encoder).weight.T.unflatten(0, (-1, len(channels)))  # [P or 1, K, C]
        by_channel, places = vectors.transpose(0, 1).flatten(1), getattr(encoder, "places", None)
        groups = SIZES if channels == PLANES else [len(channels)]
        names = ("object", "color", "state") if channels == PLANES else ("channel",)
        starts = np.cumsum([0, *groups])
        for name, rows, start in zip(names, by_channel.split(groups), starts, strict=False):
            found[name + suffix] = rows, channels[start : start + len(rows)]
        learned = {n: m for n, m in encoder.named_children() if isinstance(m, nn.Embedding)}
        found |= {n + suffix: (m.weight, list(range(len(m.weight)))) for n, m in learned.items()}
        if places is not None or len(vectors) > 1:
            places = vectors if places is None else places.flatten(0, 1)
            found[f"place{suffix}"] = places.flatten(1), cells
    return {name: entry for name, entry in found.items() if 2 <= len(entry[1]) <= MOST_ROWS}


def _embedding(name: str, table: torch.Tensor, rows: Sequence[str | int]) -> Results:
    """Return the cosines of a table's rows, and their principal components."""
    directions = table / table.norm(dim=1, keepdim=True).clamp(min=1e-12)
    centered = table - table.mean(0)
    _, sizes, components = torch.linalg.svd(centered, full_matrices=False)
    count = min(COMPONENTS, len(sizes))
    components = components[:count]
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    components = components * largest.sign()  # a component has no sign of its own
    share = sizes.square() / sizes.square().sum().clamp(min=1e-12)
    numbers = list(range(1, count + 1))
    return {
        f"{name}_cosine": labeled(
            directions @ directions.T, {"row": rows, "other row": rows}, f"cosines, {name} rows"
        ),
        f"{name}_components": labeled(
            centered @ components.T, {"row": rows, "component": numbers}, "principal components"
        ),
        f"{name}_variance": labeled(
            share[:count], {"component": numbers}, "share of the variance of a principal component"
        ),
    }


def composition_scores(model: SequenceModel) -> np.ndarray:
    """Return the composition of each component with earlier ones, [components, 4, components].

    Components are all heads, then the MLPs. Heads read by Q, K and V, MLPs in the fourth way. It is
    NaN for a component that is not earlier, and in ways in which a component does not read.
    """
    qk, ov = head_circuits(model)
    blocks, heads, width = model.transformer.in_turn, model.transformer.heads, qk.shape[1]
    into = [_reading(block.mlp.up.weight, block.ln2).T for block in blocks]
    readers = [*zip(qk, qk.mT, ov, strict=True), *([None, None, None, up] for up in into)]
    writers = [*ov, *(block.mlp.down.weight.T for block in blocks)]
    depth = [2 * (n // heads) for n in range(len(qk))] + [2 * n + 1 for n in range(len(blocks))]
    scores = np.full((len(depth), 4, len(depth)), np.nan)
    base = _random_composition(width, width // heads)
    for later, earlier in itertools.product(range(len(depth)), repeat=2):
        if depth[earlier] < depth[later]:
            both_heads = max(later, earlier) < len(qk)
            for kind, reader in enumerate(readers[later]):
                if reader is not None:
                    found = composition(writers[earlier], reader)
                    scores[later, kind, earlier] = found - (base if both_heads else width**-0.5)
    return scores


def composition(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return |first second| / (|first| |second|) in Frobenius norms, 0 for a map that is 0."""
    sizes = first.norm() * second.norm()
    return float((first @ second).norm() / sizes) if sizes > 0 else 0.0


def _random_composition(width: int, rank: int) -> float:
    """Return the mean composition of two random maps of rank `rank`."""
    rng = np.random.default_rng(derive_key(0, "interpret", "composition"))
    shape = (RANDOM_PAIRS, 4, width, rank)
    maps = torch.from_numpy(rng.standard_normal(shape))
    scores = [composition(a @ b.T, c @ d.T) for a, b, c, d in maps]
    return float(np.mean(scores))


def effective_rank(singular_values: np.ndarray) -> float:
    """Return exp of the entropy of the singular values' shares (Roy and Vetterli 2007)."""
    shares = singular_values / max(singular_values.sum(), 1e-12)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _circuits(subject: Subject) -> Results:
    """Return the circuits between actions, their singular values, and compositions."""
    model, heads = subject.model, subject.heads
    qk, ov = head_circuits(model)
    rank = model.transformer.width // model.transformer.heads
    singular = torch.stack([torch.linalg.svdvals(w)[:, :rank] for w in (qk, ov)], 1)
    actions = list(range(model.spec.num_actions))
    moved, copying = token_copying(model)
    axes = {"head": heads}
    components = subject.components
    return {
        "composition": LabeledArray(
            composition_scores(model),
            {"component": components, "kind": ["Q", "K", "V", "MLP"], "earlier": components},
            "composition with an earlier component, less that of random maps",
        ),
        "singular_values": labeled(
            singular,
            {**axes, "circuit": ["QK", "OV"], "number": list(range(1, rank + 1))},
            "singular values of W_Q W_K^T and W_V W_O",
        ),
        "action_to_action": LabeledArray(
            action_scores(model),
            {**axes, "action of the query": actions, "action of the key": actions},
            "what the actions of two tokens add to the score of attention, less the means",
        ),
        "action_to_output": LabeledArray(
            moved,
            {**axes, "action in a token": actions, "output": actions},
            "what attending to a token with an action adds to the outputs, less their mean",
        ),
        "copying": LabeledArray(copying, axes, "correlation of action_to_output with the identity"),
    }


def action_scores(model: SequenceModel) -> np.ndarray:
    """Return the part of each head's score due to the actions of a query and a key.

    float64 [heads, A, A], less the means over the actions of either, without scale and biases.
    """
    embedded = _action_vectors(model)
    scores = torch.einsum("ac,hce,be->hab", embedded, head_circuits(model)[0], embedded)
    return scores.double().cpu().numpy()


def token_copying(model: SequenceModel) -> tuple[np.ndarray, np.ndarray]:
    """Return each head's effect on the outputs [A] of attending to a token with each action.

    float64 [heads, A, A], less the means over outputs and over actions, and its correlation with
    the identity, [heads]: 1 for a head that repeats the actions that it attends to.
    """
    readout = _reading(model.head.weight, model.transformer.ln_final)  # [A, C]
    embedded = _action_vectors(model)
    moved = torch.einsum("ac,hcd,bd->hab", embedded, head_circuits(model)[1], readout).double()
    moved = (moved - moved.mean(2, keepdim=True)).cpu()
    moved, identity = moved.numpy(), np.eye(model.spec.num_actions).ravel()
    return moved, np.array([correlation(matrix.ravel(), identity) for matrix in moved])


def _action_vectors(model: SequenceModel) -> torch.Tensor:
    """Return the vectors of the actions less their mean, [A, C]."""
    vectors = model.tokenizer.action.weight[: model.spec.num_actions]
    return vectors - vectors.mean(0)


def _parameters(model: SequenceModel) -> Results:
    """Return the number, mean, standard deviation and largest size of each parameter's entries."""
    parameters = dict(model.named_parameters())
    rows = [
        [p.numel(), p.mean(), p.std(correction=0), p.abs().max(), p.norm()]
        for p in parameters.values()
    ]
    statistics = ["entries", "mean", "standard deviation", "largest size", "norm"]
    axes = {"parameter": list(parameters), "statistic": statistics}
    return {"parameters": LabeledArray(np.array(rows, float), axes, "statistics of entries")}
