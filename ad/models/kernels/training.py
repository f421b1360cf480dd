"""The blocks of a transformer forward and backward in compiled loops: training on a CPU.

Under autograd half of such a step is not matrix products but what lies between them, each operation
a call and a pass over memory of its own. Here windows go through all blocks in one call
(`training_loops.py`), each thread's in one of its own. Products take bfloat16, as under
autocast; the stream between the blocks, norms and biases are float32. tests/test_passes.py holds
this against the plain transformer.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from ad.models.kernels import training_loops as kernel
from ad.models.kernels.attention_loops import QUERY_BLOCK, AttentionWorkspace
from ad.models.rng import draw
from ad.runtime.parallel import at_once, split_evenly

TOKENS = 4096  # of a part of a batch, about; at least one window
NEAR = 512  # tokens that go from block to block together, about, in a core's cache
LINE = 64  # bytes of a core's cache that come together, and of a vector
NAMES = {  # field of `kernel.Weights`: module of a block, in the order of `_Through`'s parameters
    "norm_attention": "norm_attention",
    "qkv": "attention.qkv",
    "out": "attention.out",
    "norm_mlp": "norm_mlp",
    "up": "up",
    "down": "down",
}


class Passes:
    """A `transformer` as one function of its tokens; it keeps the memory that this works in."""

    def __init__(self, transformer: torch.nn.Module):
        self.layers, self.heads = len(transformer.blocks), transformer.heads
        first = transformer.blocks[0]
        self.modules = [
            block.get_submodule(name) for name in NAMES.values() for block in transformer.blocks
        ]
        self.modules.append(transformer.norm)
        self.dropouts = first.attention.dropout, first.dropout
        self.plain = transformer.plain
        self.threads = torch.get_num_threads()
        self.free: dict[tuple[int, ...], list[kernel.Saved]] = defaultdict(list)  # by shape

    def serve(self, tokens: torch.Tensor) -> bool:
        """Whether this can stand in for the blocks: they are plain, and train in loops."""
        return trains_rough_on_cpu(tokens) and self.plain

    def __getstate__(self) -> dict:
        """Without memory: a copy of this works in its own."""
        return vars(self) | {"free": defaultdict(list)}

    def __call__(self, tokens: torch.Tensor, training: bool) -> torch.Tensor:
        """Hidden states for `tokens` [B, L, C], float32: what comes out, normalised."""
        dropouts = self.dropouts if training else (0.0, 0.0)
        parameters = (p for module in self.modules for p in (module.weight, module.bias))
        return _Through.apply(tokens, self, dropouts, *parameters)

    def memory(self, *shape: int) -> kernel.Saved:
        """For a part of a batch, until it is `free` again; `_saved` has the words of `shape`."""
        try:
            return self.free[shape].pop()
        except IndexError:
            return _saved(*shape)


def trains_rough_on_cpu(values: torch.Tensor) -> bool:
    """Whether what follows these `values` trains in bfloat16 on a CPU, and uncompiled."""
    rough = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
    differentiated = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    on_cpu = values.device.type == "cpu" and values.dtype == torch.float32
    return on_cpu and rough == torch.bfloat16 and differentiated


class _Part(NamedTuple):
    """Some windows of a batch: their rows, what the way back needs of them, and what they drop."""

    rows: slice
    shape: tuple[int, ...]
    saved: kernel.Saved
    drops: kernel.DropoutKeys | None


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens, passes, dropouts, *parameters):
        windows, length, width = tokens.shape
        layers, heads = passes.layers, passes.heads
        ctx.passes, ctx.shapes = passes, [parameter.shape for parameter in parameters]
        ctx.weights = weights = _weights(parameters, layers)
        words = np.random.SFC64(draw()) if any(dropouts) else None
        x = _filled(tokens.detach()).flatten(0, 1).numpy()
        out = np.empty_like(x)
        # Which thread takes which part is fixed: so many threads always give the same bits.
        ctx.parts = [[] for _ in range(passes.threads)]
        for number, (start, stop) in enumerate(_parts(windows, length, passes.threads)):
            rows, hidden = (stop - start) * length, weights.up_bias.shape[1]
            shape = layers, rows, length, width, heads, hidden
            saved, drops = passes.memory(*shape), words and _drops(layers, dropouts, words)
            part = _Part(slice(start * length, stop * length), shape, saved, drops)
            ctx.parts[number % passes.threads].append(part)

        def work(mine: list[_Part]) -> None:
            for rows, _, saved, drops in mine:
                kernel.forward(weights, x[rows], length, width, heads, saved, drops, out[rows])

        at_once([partial(work, mine) for mine in ctx.parts if mine])
        return torch.from_numpy(out).view(windows, length, -1)[..., :width]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (windows, length, width), heads = gradient.shape, ctx.passes.heads
        d = _filled(gradient).flatten(0, 1).numpy()
        dx = np.empty_like(d)
        busy = [mine for mine in ctx.parts if mine]
        gradients = [_gradients(ctx.weights) for _ in busy]

        def work(mine: list[_Part], known: kernel.Gradients) -> None:
            for rows, _, saved, drops in mine:
                of_part = length, width, heads, saved, drops, d[rows], dx[rows]
                kernel.backward(ctx.weights, *of_part, known)

        at_once([partial(work, *both) for both in zip(busy, gradients, strict=True)])
        for part in chain(*busy):
            ctx.passes.free[part.shape].append(part.saved)
        ctx.parts = None  # the memory is others' now
        total = kernel.Gradients(*(reduce(np.add, each) for each in zip(*gradients, strict=True)))
        of_tokens = torch.from_numpy(dx).view(windows, length, -1)[..., :width]
        return of_tokens, None, None, *_by_parameter(total, ctx.shapes)


def _parts(windows: int, length: int, threads: int) -> list[tuple[int, int]]:
    """(start, stop) of parts for all `threads` of about `TOKENS` tokens, at least one window."""
    rounds = -(-windows * length // (TOKENS * threads))
    return split_evenly(windows, min(max(rounds, 1) * threads, windows))


def _weights(parameters: Sequence[torch.Tensor], layers: int) -> kernel.Weights:
    fields = {}
    left = list(parameters)
    for name, blocks in _counts(layers):
        mine, left = left[: 2 * blocks], left[2 * blocks :]
        weight, bias = (torch.stack([p.detach() for p in mine[i::2]]).float() for i in (0, 1))
        if name.startswith("norm"):
            fields[name] = _filled(torch.stack([weight, bias], dim=1)).numpy()
            continue
        outputs, inputs = map(_up, weight.shape[1:])
        matrix = fields[name] = kernel.PackedMatrix(
            _zeros(layers, inputs // 2, outputs + kernel.ROW_PADDING, dtype=np.uint32),
            _zeros(layers, outputs // 2, inputs + kernel.ROW_PADDING, dtype=np.uint32),
        )
        weight = F.pad(weight, (0, inputs - weight.shape[2], 0, outputs - weight.shape[1]))
        kernel.pack(weight.numpy(), _zeros(outputs, inputs, dtype=np.uint16), *matrix)
        fields[f"{name}_bias"] = _filled(bias).numpy()
    return kernel.Weights(**fields)


def _counts(layers: int) -> Iterator[tuple[str, int]]:
    """The fields of `kernel.Weights` but for biases, and in how many places there is such a one."""
    yield from ((name, layers) for name in NAMES)
    yield "norm", 1


def _filled(values: torch.Tensor) -> torch.Tensor:
    """With zeros behind the last dimension, to a multiple of what the loops take at once."""
    missing = -values.shape[-1] % kernel.LANES
    return F.pad(values, (0, missing)) if missing else values.contiguous()


def _gradients(weights: kernel.Weights) -> kernel.Gradients:
    def zeros(value: np.ndarray | kernel.PackedMatrix) -> np.ndarray:
        if isinstance(value, kernel.PackedMatrix):
            layers, outputs, inputs = (
                len(value.forward),
                2 * value.backward.shape[1],
                value.forward.shape[1],
            )
            return _zeros(layers, outputs, 2 * inputs)
        return _zeros(*value.shape)

    return kernel.Gradients(*map(zeros, weights))


def _by_parameter(
    gradients: kernel.Gradients, shapes: Sequence[torch.Size]
) -> Iterator[torch.Tensor]:
    """The `gradients` in the order of `_Through`'s parameters, without what fills them up."""
    shapes = iter(shapes)
    for name, blocks in _counts(len(gradients.qkv)):
        both = getattr(gradients, name), getattr(gradients, f"{name}_bias", None)
        for layer in range(blocks):
            weight, bias = both[0][layer] if both[1] is None else (part[layer] for part in both)
            for part in (weight, bias):
                crop = tuple(slice(size) for size in next(shapes))
                yield torch.from_numpy(part[crop])


def _saved(
    layers: int, rows: int, length: int, width: int, heads: int, hidden: int
) -> kernel.Saved:
    """For so many rows, a batch's windows times their length."""
    wide, triple, full = map(_up, (width, 3 * width, hidden))
    few, most = kernel.ROW_BLOCK, kernel.ROW_BLOCK // 2 * (max(triple, full) + kernel.ROW_PADDING)
    near = min(max(NEAR // length, 1) * length, rows)

    def more(rows: int) -> int:
        """With those behind the last one that are read too: of narrow rows two vectors."""
        return rows + -rows % kernel.ROW_BLOCK + 2 * kernel.LANES

    words, halves = np.uint32, np.uint16
    room = kernel.Workspace(
        normed=_zeros(few, wide, dtype=halves),
        hidden=_zeros(few, full, dtype=halves),
        d_branch=_zeros(few, wide, dtype=halves),
        d_up=_zeros(few, full, dtype=halves),
        product=_zeros(few, max(wide, kernel.COLUMN_BLOCK)),
        dy_pairs=_zeros(most, dtype=words),
        x_pairs=_zeros(most, dtype=words),
        group_rows=near,
        d_attn_out=_zeros(more(near), wide, dtype=halves),
        d_qkv=_zeros(more(near), triple, dtype=halves),
        attention=_attention_room(length, width // heads),
    )
    return kernel.Saved(
        x=_zeros(layers, rows, wide),
        x_stats=_zeros(layers, rows, 2),
        qkv=_zeros(layers, more(rows), triple, dtype=halves),
        softmax_stats=_zeros(layers, heads, 2, rows + kernel.LANES),
        attn_out=_zeros(layers, more(rows), wide, dtype=halves),
        x_mid=_zeros(layers, rows, wide),
        x_mid_stats=_zeros(layers, rows, 2),
        up=_zeros(layers, more(rows), full, dtype=halves),
        x_last=_zeros(rows, wide),
        x_last_stats=_zeros(rows, 2),
        workspace=room,
    )


def _attention_room(length: int, deep: int) -> AttentionWorkspace:
    whole, broad = _up(length), _up(deep)
    words, halves = np.uint32, np.uint16
    return AttentionWorkspace(
        queries_t=_zeros(_up(deep // 2), whole, dtype=words),
        d_out_t=_zeros(_up(deep // 2), whole, dtype=words),
        token_pairs=_zeros(3, whole // 2 * broad, dtype=words),
        scores=_zeros(whole, kernel.LANES),
        d_weights=_zeros(QUERY_BLOCK, kernel.LANES),
        key_pairs=_zeros(whole // 2, kernel.LANES, dtype=words),
        out=_zeros(kernel.LANES, broad),
        delta=_zeros(kernel.LANES),
        weights=_zeros(whole, QUERY_BLOCK, dtype=halves),
        d_scores=_zeros(whole, QUERY_BLOCK, dtype=halves),
        dk=_zeros(whole, broad),
        dv=_zeros(whole, broad),
    )


def _zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    """An array that begins where a vector of the loops may: else each would be two of the cache."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(count + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + count].view(dtype).reshape(shape)


def _up(size: int) -> int:
    """To whole vectors of the loops."""
    return size + -size % kernel.LANES


def _drops(
    layers: int, dropouts: tuple[float, float], words: np.random.SFC64
) -> kernel.DropoutKeys:
    weights, additions = dropouts
    probabilities = np.array([weights, additions, additions])
    keys = words.random_raw(3 * layers).view(np.uint32).reshape(layers, 3, 2)
    below = np.minimum(np.round(probabilities * 2**32), 2**32 - 1).astype(np.uint32)
    return kernel.DropoutKeys(keys, below, (1 / (1 - probabilities)).astype(np.float32))
