"""What is linear in a model: directions, readouts, and the features that encoders add up.

A feature is a channel of a cell of an observation. A `subject` is a Subject of `analysis.py`.
"""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ad.data.spec import field_name
from ad.interpret.contexts import Contexts
from ad.interpret.directions import AGAINST, direction_names, parse_direction
from ad.interpret.hooks import hooked
from ad.interpret.labeled import LabeledArray
from ad.models.encoders.base import TabularEncoder
from ad.models.encoders.linear import IndexLinear, OneHotLinear
from ad.models.encoders.pictures import Patches
from ad.models.encoders.words import MissionWords
from ad.models.memories.blocks import Norm
from ad.models.sequence_model import SequenceModel
from envs.minigrid.encoding import (
    COLORS,
    OBJECTS,
    STATES,
    WORDS,
    cells_in,
    encoded_cells,
    shows_cells,
)
from envs.spaces import Discrete, Part
from envs.tasks import task_name

MOST_ROWS = 512  # of a table, whose cosines and components are written
PLANES, NUMBERS = [*OBJECTS, *COLORS, *STATES], ["object", "color", "state"]  # channels of a cell
DECISIONS = 512  # at which scales and gradients are read
SHOWN = 5  # strongest features in a table
COLUMNS = 6  # directions in a table; of more, those of one action against the others
EMPTY = np.array([OBJECTS.index("empty"), 0, 0], np.uint8)


def directions_of(subject) -> dict[str, torch.Tensor]:
    """Return the chosen direction [A] by name, or all of `direction_names`."""
    world, actions = subject.run and subject.run.world, subject.model.spec.num_actions
    chosen = subject.choice.direction
    names = [chosen] if chosen else direction_names(world, actions)
    called = getattr(world, "action_names", ())
    return {name: parse_direction(name, called, actions) for name in names}


def shown_directions(array: LabeledArray) -> list[str]:
    """Return the directions for the columns of a table: those of one action if all are many."""
    names = [str(name) for name in array.axes["direction"]]
    return names if len(names) <= COLUMNS else [name for name in names if AGAINST not in name]


def strongest(array: LabeledArray, **at: str) -> list[dict[str, str]]:
    """Return the channels and cells of the largest values of `array` at labels of other axes."""
    features = list(itertools.product(array.axes["channel"], array.axes["cell"]))
    order = np.argsort(-np.abs(array.at(**at)), axis=None, kind="stable")[:SHOWN]
    return [dict(zip(("channel", "cell"), features[n], strict=True)) for n in order]


def labeled(values: torch.Tensor, axes: Mapping[str, Sequence], about: str) -> LabeledArray:
    """Return `values` with named axes, as float64."""
    return LabeledArray(values.double().cpu().numpy(), axes, about)


def spread(contexts: Contexts, decisions: int = DECISIONS) -> Contexts:
    """Return windows of about `decisions` decisions, spread over `contexts`."""
    return contexts.spread(max(decisions // contexts.length, 1))


def folded(
    linear: nn.Linear, norm: nn.Module, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights [n, C] and biases [n] of `linear` as a map of the input of `norm`.

    The normalization is linearized: it divides by `scale`.
    """
    bias = (
        linear.bias + linear.weight @ norm.bias if isinstance(norm, nn.LayerNorm) else linear.bias
    )
    return _reading(linear.weight, norm) / scale, bias


def _reading(weights: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """Return `weights` [n, C] as a map of the input of `norm`, without its scale."""
    if not isinstance(norm, nn.LayerNorm):
        return weights
    weights = weights * norm.weight
    return weights - weights.mean(1, keepdim=True)


def head_circuits(model: SequenceModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return W_Q W_K^T and W_V W_O of all heads, [heads, C, C] each, without rotations.

    A row vector x is the residual stream divided by the scale of the normalization. Without biases
    x QK y^T is the score of x attending to y, and x OV the head's output for attending to x.
    """
    qk, ov = affine_circuits(model)
    return qk[:, :-1, :-1], ov[:, :-1]


def affine_circuits(
    model: SequenceModel, scales: Mapping[str, float] = MappingProxyType({})
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the circuits with their biases, [heads, C + 1, C + 1] and [heads, C + 1, C].

    They act on the residual stream with a 1 appended. `scales` are those of normalizations by name,
    1 if they are missing.
    """
    heads, qk, ov = model.transformer.heads, [], []
    for layer, block in enumerate(model.transformer.in_turn):
        weight, bias = folded(block.attn.qkv, block.ln1, scales.get(f"blocks.{layer}.ln1", 1.0))
        affine = torch.cat([weight, bias[:, None]], 1)
        q, k, v = affine.unflatten(0, (3, heads, -1)).unbind(0)  # [H, D, C + 1]
        out = block.attn.out.weight.unflatten(1, (heads, -1))  # [C, H, D]
        qk.append(torch.einsum("hdc,hde->hce", q, k) / q.shape[1] ** 0.5)
        ov.append(torch.einsum("hdc,ehd->hce", v, out))
    return torch.cat(qk), torch.cat(ov)


def mean_scales(model: SequenceModel, contexts: Contexts) -> dict[str, float]:
    """Return the mean scale of each normalization at the decisions; none without normalization."""
    if not isinstance(model.transformer.ln_final, Norm):
        return {}
    with hooked(model, ("*.hook_scale",)) as values:
        model(contexts.window)
    decided, at = torch.from_numpy(contexts.decided[:, 1:]), model.tokenizer.at_decisions
    means = {name: float(at(value).cpu()[decided].mean()) for name, value in values.items()}
    return {name.removesuffix(".hook_scale"): mean for name, mean in means.items()}


def linear_note(model: SequenceModel) -> str:
    """Return what the meaning of an array says of normalization."""
    is_normed = isinstance(model.transformer.ln_final, Norm)
    return "; normalization is folded and linearized at the mean scale" if is_normed else ""


def readout(model: SequenceModel, directions: dict, scales: dict[str, float]) -> torch.Tensor:
    """Return the vectors [N, C] whose products with the residual stream are the preferences."""
    weight, _ = folded(model.head, model.transformer.ln_final, scales.get("ln_final", 1.0))
    return torch.stack(list(directions.values())).to(weight) @ weight


def input_vectors(model: SequenceModel) -> dict[str, torch.Tensor]:
    """Return what a further input adds to its token, [2, C] by name: for 1 more, and at 0."""
    found, values = {}, torch.tensor([[0.0], [1.0]]).to(model.head.weight)
    for name, module in model.tokenizer.inputs.items():
        zero, one = module(values)
        found[name] = torch.stack([one - zero, zero])
    return found


class Features(NamedTuple):
    """The vectors [channels, cells, C] that a linear encoder adds to a token for each feature."""

    vectors: torch.Tensor
    channels: list[str]
    cells: list[str]


def features_of(model: SequenceModel) -> dict[str, Features]:
    """Return the features of each part of the observation whose encoder is linear in them."""
    found, tokenizer = {}, model.tokenizer
    for name, encoder in zip(tokenizer.parts, tokenizer.encoders, strict=True):
        part = model.spec.observation[name]
        if isinstance(encoder, OneHotLinear | IndexLinear):
            channels, cells = layout(part, encoder)
            vectors = encoder.linear.weight.T.unflatten(0, (len(cells), len(channels)))
            found[name] = Features(vectors.transpose(0, 1), channels, cells)
        elif not isinstance(encoder, TabularEncoder) or not isinstance(part, Discrete):
            continue
        elif part.n <= MOST_ROWS:
            names = [str(row) for row in row_names(part, part.n)]
            found[name] = Features(encoder.table()[None, : part.n], ["value"], names)
    return found


def row_names(part: Part | None, count: int) -> list[str | int]:
    """Return the names of the `count` rows of a table: cells, e.g. "3-7", else their numbers."""
    is_index = isinstance(part, Discrete)
    cells = np.stack(np.unravel_index(np.arange(part.n), part.factors), 1) if is_index else []
    names = [task_name(cell) for cell in cells]
    return [*names, *range(len(names), count)]


def layout(part: Part, encoder: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of channels and cells, as the first linear map of `encoder` reads them.

    Those of a mission are its words and their places.
    """
    if isinstance(encoder, MissionWords):
        return ["no word", *WORDS], [str(place) for place in range(*part.shape)]
    patches = next((module for module in encoder.modules() if isinstance(module, Patches)), None)
    grid = part.shape[:2] if len(part.shape) == 3 else (int(np.prod(part.shape)),)
    grid = patches.grid if patches else grid
    depth = first_map(encoder).in_features // (1 if patches else int(np.prod(grid)))
    known = {len(PLANES): PLANES, len(NUMBERS): NUMBERS} if shows_cells(part) else {}
    places = [np.unravel_index(n, grid) for n in range(int(np.prod(grid)))]  # x first in a view
    cells = ["-".join(map(str, place[::-1] if known else place)) for place in places]
    return known.get(depth, [str(number) for number in range(depth)]), cells


def first_map(encoder: nn.Module) -> nn.Linear:
    """Return the linear map that reads the values of an array."""
    return next(module for module in encoder.modules() if isinstance(module, nn.Linear))


def front_cell(subject, part: str) -> str | None:
    """Return the cell in front of the agent where a part is its own view, e.g. "5-3"."""
    declared = subject.model.spec.observation[part]
    world = subject.run and subject.run.world
    if (world and not world.observes_view) or not shows_cells(declared):
        return None
    return f"{declared.shape[1] - 2}-{declared.shape[0] // 2}"


def things_in(contexts: Contexts, part: str, model: SequenceModel) -> dict[str, np.ndarray]:
    """Return the things (object, color, state), uint8 [3], that cells of the contexts show.

    They are by name, such as "empty", "green goal" or "locked red door"; there are none if the part
    shows no cells.
    """
    if not shows_cells(model.spec.observation[part]):
        return {}
    seen = contexts.window[field_name("observation", part)].cpu().numpy()[contexts.valid]
    things = np.unique(encoded_cells(seen).astype(np.uint8).reshape(-1, len(EMPTY)), axis=0)
    return {_thing_name(*thing): thing for thing in things}


def _thing_name(kind: int, color: int, state: int) -> str:
    words = [STATES[state]] if OBJECTS[kind] == "door" else []
    words += [COLORS[color]] if OBJECTS[kind] not in ("unseen", "empty") else []
    return " ".join([*words, OBJECTS[kind]])


def thing_vectors(features: Features, things) -> torch.Tensor:
    """Return what n things (object, color, state) add to a token in each cell, [n, cells, C]."""
    values = cells_in(len(features.channels), np.array(list(things), np.uint8))
    vectors = features.vectors
    return torch.einsum("nk,kpc->npc", torch.from_numpy(values).to(vectors), vectors)
