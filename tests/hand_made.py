"""Transformers of known circuits: every coordinate of the residual stream and each head has a use.

The model reads fused tokens of the 3 x 3 room of the fixture `spec`, without normalization. What a
token tells is one-hot in a block of coordinates of its own, and logits are read from the block
`out`. Heads and MLPs do nothing until one is built.

`conditioned` is another model, a decision transformer of one time step for MiniGrid. What it adds:

    embedding of the state   to forward: WALL with a wall in front, GOAL with a goal
    embedding of the time    to turn left: TIME t / T
    head 0                   to forward: AVOIDS if something is in front, for then it attends to the
                             state, else to the return-to-go
    head 1                   to forward: COPIES times the asked return, since it attends to it

The embedding of the return-to-go would add RETURN times the asked return to forward, but it stands
at another token than the decision, and no head reads that.
"""

import torch
from torch import nn

from ad.config.schema import ModelConfig
from ad.data.spec import Spec
from ad.models.rewards import ReturnToGo
from ad.models.sequence_model import SequenceModel
from envs.minigrid.encoding import HIGHEST, NUM_PLANES, OBJECTS
from envs.spaces import Array

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


# The residual stream of `conditioned`: the logits, whether a token is a state or a return-to-go,
# the asked return, and on states 1 if something is in front, else -1.
LEFT, RIGHT, FORWARD, IS_STATE, IS_RETURN, ASKED, BLOCKED, _ = range(8)
WALL, GOAL, AVOIDS, COPIES, TIME, RETURN = -3.0, 1.0, -2.0, 1.5, 0.5, 0.25
FRONT = 3, 5  # of a view of 7 x 7 cells: the agent stands at (3, 6) and looks along y to 0
NOTHING = ("unseen", "empty", "floor")  # objects that are not "something in front"
GRID_SPEC = Spec({"": Array((7, 7, 3), "uint8", 0, HIGHEST)}, 3, (), (-1.0, 1.0), 300, (-1.0, 0.95))


def conditioned(spec: Spec = GRID_SPEC) -> SequenceModel:
    """A decision transformer of one time step: head 0 avoids what is in front, head 1 obeys."""
    sizes = {"width": 8, "layers": 1, "heads": HEADS, "feed_forward": 8, "norm": "none"}
    names = {"encoder": "one_hot", "tokenizer": "conditioned", "position": "env_time"}
    config = ModelConfig(**sizes, **names, reward="none")
    inputs = {"return_to_go": ReturnToGo(spec, config.width)}
    model = SequenceModel(spec, config, inputs).eval().requires_grad_(False)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    asked, encoder = inputs["return_to_go"].linear, model.tokenizer.encoders[0].linear
    asked.weight[[ASKED, FORWARD], 0] = torch.tensor([1.0, RETURN])
    asked.bias[IS_RETURN] = encoder.bias[IS_STATE] = 1.0
    encoder.bias[BLOCKED] = -1.0
    front = encoder.weight.unflatten(1, (7, 7, NUM_PLANES))[:, *FRONT]  # [C, planes]
    front[BLOCKED, [n for n, name in enumerate(OBJECTS) if name not in NOTHING]] = 2.0
    front[FORWARD, OBJECTS.index("wall")] = WALL
    front[FORWARD, OBJECTS.index("goal")] = GOAL
    times = model.tokenizer.position.vectors.weight
    times[:, LEFT] = TIME * torch.arange(len(times)) / len(times)
    attends(model, 0, 0, [BLOCKED], [IS_STATE], not_itself=False)
    copies(model, 0, 0, [IS_STATE], [FORWARD], gain=AVOIDS)
    attends(model, 0, 1, [IS_STATE], [IS_RETURN], not_itself=False)
    copies(model, 0, 1, [ASKED], [FORWARD], gain=COPIES)
    model.head.weight[:, [LEFT, RIGHT, FORWARD]] = torch.eye(3)
    return model


def front_window(objects: list[str], asked: list[float], time: int = 0) -> dict[str, torch.Tensor]:
    """Windows [B, 2] of one decision: an object of OBJECTS in front, the asked return, the time."""
    count = len(objects)
    cells = torch.zeros(count, 2, 7, 7, 3, dtype=torch.uint8)
    cells[..., 0] = OBJECTS.index("empty")
    cells[:, 1, *FRONT, 0] = torch.tensor([OBJECTS.index(name) for name in objects]).byte()
    none = torch.zeros(count, 2, dtype=torch.int64)
    return {
        **{"observation": cells, "next_observation": cells, "action": none, "step": none},
        "reward": torch.zeros(count, 2),
        "time": none + time,
        "valid": torch.tensor([[False, True]]).expand(count, -1),
        "return_to_go": torch.tensor(asked)[:, None].expand(-1, 2),
    }
