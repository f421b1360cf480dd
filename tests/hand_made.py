"""Transformers of known circuits: every coordinate of the residual stream and each head has a use.

The model reads fused tokens of the 3 x 3 room of the fixture `spec`, without normalization. What a
token tells is one-hot in a block of coordinates of its own, and logits are read from the block
`out`. Heads and MLPs do nothing until one is built.
"""

import torch
from torch import nn

from ad.config.schema import ModelConfig
from ad.models.sequence_model import SequenceModel

SIZES = {
    **{"cell": 10, "before": 10, "next": 10},  # 9 cells and none
    **{"action": 6, "reward": 3, "position": 24, "one": 1, "out": 5, "other": 27},
}
STARTS = dict(zip(SIZES, torch.tensor([0, *SIZES.values()]).cumsum(0).tolist(), strict=False))
WIDTH, HEADS = sum(SIZES.values()), 2
STRENGTH = 60.0  # score of a match: exp(-60) of the attention is left for all other tokens
REWARD = 1  # the row of a reward of 1 in the block of rewards


def block(name: str) -> list[int]:
    """The coordinates of a block."""
    return list(range(STARTS[name], STARTS[name] + SIZES[name]))


def hand_made(spec, layers: int = 1, norm: str = "none", inputs=None) -> SequenceModel:
    """A model whose tokens fill their blocks, and whose heads, MLPs and inputs add nothing."""
    config = ModelConfig(
        width=WIDTH,
        layers=layers,
        heads=HEADS,
        feed_forward=8,
        encoder="table",
        position="window",
        positions=SIZES["position"],
        norm=norm,
    )
    model = SequenceModel(spec, config, inputs=inputs).eval().requires_grad_(False)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    tokenizer = model.tokenizer
    tables = {"cell": tokenizer.encoders[0].vectors, "action": tokenizer.action}
    tables["reward"] = tokenizer.reward
    for name, table in tables.items():
        table.weight[:, block(name)] = torch.eye(SIZES[name])
    tokenizer.position.vectors[:, block("position")] = torch.eye(SIZES["position"])
    for name, linear in (("before", tokenizer.prev_obs_proj), ("next", tokenizer.next_obs_proj)):
        linear.weight[block(name), block("cell")] = 1.0
    tokenizer.action.weight[:, block("one")] = 1.0
    model.head.weight[:, block("out")] = torch.eye(SIZES["out"])
    return model


def attends(
    model: SequenceModel,
    layer: int,
    head: int,
    queries: list[int],
    keys: list[int],
    not_itself: bool = True,
) -> None:
    """Make a head attend where coordinate `queries[i]` of the one and `keys[i]` of the other agree.

    With `not_itself` it never attends to the token itself.
    """
    attention = model.transformer.blocks[layer].attn
    q, k, _ = attention.qkv.weight.unflatten(0, (3, HEADS, -1))[:, head]
    scale = (STRENGTH * len(q) ** 0.5) ** 0.5
    for row, (query, key) in enumerate(zip(queries, keys, strict=True)):
        q[row, query] = k[row, key] = scale
    if not_itself:
        for row, place in enumerate(block("position"), len(queries)):
            q[row, place], k[row, place] = 2 * scale, -2 * scale


def copies(
    model: SequenceModel, layer: int, head: int, source: list[int], target: list[int], gain=1.0
) -> None:
    """Make a head add the coordinates `source` of what it attends to, times `gain`, to `target`."""
    attention = model.transformer.blocks[layer].attn
    value = attention.qkv.weight.unflatten(0, (3, HEADS, -1))[2, head]
    out = attention.out.weight.unflatten(1, (HEADS, -1))[:, head]
    for row, (one, other) in enumerate(zip(source, target, strict=True)):
        value[row, one], out[other, row] = 1.0, gain


def previous_step(model: SequenceModel, layer: int, head: int) -> None:
    """Make a head attend to the token before."""
    places = block("position")
    attends(model, layer, head, places[1:], places[:-1], not_itself=False)


def same_cell(model: SequenceModel, layer: int, head: int) -> None:
    """Make a duplicate-token head: it attends to earlier tokens of the same cell."""
    attends(model, layer, head, block("cell"), block("cell"))


def step_after(model: SequenceModel, layer: int, head: int) -> None:
    """Make an induction head: it attends to tokens that tell what was done at the same cell."""
    attends(model, layer, head, block("cell"), block("before"))


def rewarded(model: SequenceModel, layer: int, head: int) -> None:
    """Make a head attend to earlier tokens that tell a reward of 1."""
    attends(model, layer, head, block("one"), [block("reward")[REWARD]])
