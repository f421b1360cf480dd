"""The blocks of a transformer as one autograd function of compiled loops: training on a CPU.

Under autograd half of a training step of a small model is spent between the matrix products, in
calls and in passes over memory. Here all blocks run in one call (`training_loops.py`) per thread,
forward and backward, over chunks of whole windows. Matrix products take bfloat16, as under
autocast; the residual stream, norms and biases are float32. tests/test_compiled_blocks.py compares
this with the plain transformer.
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
from ad.models.kernels.weights import MODULES, Weights, modules_of, parameters_of, stacked
from ad.runtime.parallel import run_all, split_evenly

CHUNK_TOKENS = 4096  # approximate number of tokens of a chunk, which holds at least one window
GROUP_TOKENS = 512  # approximate number of tokens that go through all blocks together
CACHE_LINE = 64  # bytes


class CompiledBlocks:
    """The blocks of a `transformer` as one function of its tokens, with reusable workspaces."""

    def __init__(self, transformer: torch.nn.Module):
        self.layers, self.heads = len(transformer.blocks), transformer.heads
        first = transformer.blocks[0]
        self.modules = modules_of(transformer)
        self.dropouts = first.attention.dropout, first.dropout
        self.threads = torch.get_num_threads()
        self.free: dict[tuple[int, ...], list[kernel.Saved]] = defaultdict(list)  # by shape

    def __getstate__(self) -> dict:
        """Leave the workspaces out: a copy allocates its own."""
        return vars(self) | {"free": defaultdict(list)}

    def __call__(self, tokens: torch.Tensor, training: bool) -> torch.Tensor:
        """Return the normalized hidden states of `tokens` [B, L, C], float32."""
        dropouts = self.dropouts if training else (0.0, 0.0)
        return CompiledBlocksFunction.apply(tokens, self, dropouts, *parameters_of(self.modules))

    def take(self, *shape: int) -> kernel.Saved:
        """Return saved activations and a workspace of `shape` (the arguments of `_saved`)."""
        try:
            return self.free[shape].pop()
        except IndexError:
            return _saved(*shape)


class _Chunk(NamedTuple):
    """Whole windows of a batch: their rows, activations saved for backward, and dropout keys."""

    rows: slice
    shape: tuple[int, ...]
    saved: kernel.Saved
    dropout_keys: kernel.DropoutKeys | None


class CompiledBlocksFunction(torch.autograd.Function):
    """Forward and backward pass of all blocks; `ctx.chunks` holds the chunks of each thread."""

    @staticmethod
    def forward(ctx, tokens, blocks, dropouts, *parameters):
        windows, length, width = tokens.shape
        layers, heads = blocks.layers, blocks.heads
        ctx.blocks, ctx.shapes = blocks, [parameter.shape for parameter in parameters]
        ctx.weights = weights = _weights(parameters, layers)
        bits = np.random.SFC64(int(torch.randint(2**62, ()))) if any(dropouts) else None
        x = _padded(tokens.detach()).flatten(0, 1).numpy()
        out = np.empty_like(x)
        # Which thread runs which chunk is fixed, so a number of threads always gives the same bits.
        ctx.chunks = [[] for _ in range(blocks.threads)]
        for number, (start, stop) in enumerate(_split(windows, length, blocks.threads)):
            rows, hidden = (stop - start) * length, weights.up_bias.shape[1]
            shape = layers, rows, length, width, heads, hidden
            saved, keys = blocks.take(*shape), bits and _dropout_keys(layers, dropouts, bits)
            chunk = _Chunk(slice(start * length, stop * length), shape, saved, keys)
            ctx.chunks[number % blocks.threads].append(chunk)

        def work(chunks: list[_Chunk]) -> None:
            for rows, _, saved, keys in chunks:
                kernel.forward(weights, x[rows], length, width, heads, saved, keys, out[rows])

        run_all([partial(work, chunks) for chunks in ctx.chunks if chunks])
        return torch.from_numpy(out).view(windows, length, -1)[..., :width]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (windows, length, width), heads = grad_output.shape, ctx.blocks.heads
        d = _padded(grad_output).flatten(0, 1).numpy()
        dx = np.empty_like(d)
        busy = [chunks for chunks in ctx.chunks if chunks]
        gradients = [_gradients(ctx.weights) for _ in busy]

        def work(chunks: list[_Chunk], total: Weights) -> None:
            for rows, _, saved, keys in chunks:
                of_chunk = length, width, heads, saved, keys, d[rows], dx[rows]
                kernel.backward(ctx.weights, *of_chunk, total)

        run_all([partial(work, *both) for both in zip(busy, gradients, strict=True)])
        for chunk in chain(*busy):
            ctx.blocks.free[chunk.shape].append(chunk.saved)
        ctx.chunks = None  # their memory may be another batch's from now on
        total = Weights(*(reduce(np.add, each) for each in zip(*gradients, strict=True)))
        grad_tokens = torch.from_numpy(dx).view(windows, length, -1)[..., :width]
        return grad_tokens, None, None, *_by_parameter(total, ctx.shapes)


def _split(windows: int, length: int, threads: int) -> list[tuple[int, int]]:
    """Return (start, stop) of chunks for all `threads`, about `CHUNK_TOKENS` tokens each."""
    rounds = -(-windows * length // (CHUNK_TOKENS * threads))
    return split_evenly(windows, min(max(rounds, 1) * threads, windows))


def _weights(parameters: Sequence[torch.Tensor], layers: int) -> Weights:
    """Stack and pack the parameters of all blocks in the layout of the compiled loops."""
    fields = {}
    for name, weight, bias in stacked(parameters, layers):
        if name.startswith("norm"):
            fields[name] = _padded(torch.stack([weight, bias], dim=1)).numpy()
            continue
        outputs, inputs = map(_round_up, weight.shape[1:])
        matrix = fields[name] = kernel.PackedMatrix(
            _zeros(layers, inputs // 2, outputs + kernel.ROW_PADDING, dtype=np.uint32),
            _zeros(layers, outputs // 2, inputs + kernel.ROW_PADDING, dtype=np.uint32),
        )
        weight = F.pad(weight, (0, inputs - weight.shape[2], 0, outputs - weight.shape[1]))
        kernel.pack(weight.numpy(), _zeros(outputs, inputs, dtype=np.uint16), *matrix)
        fields[f"{name}_bias"] = _padded(bias).numpy()
    return Weights(**fields)


def _padded(values: torch.Tensor) -> torch.Tensor:
    """Pad the last dimension with zeros to a multiple of the SIMD width."""
    missing = -values.shape[-1] % kernel.LANES
    return F.pad(values, (0, missing)) if missing else values.contiguous()


def _gradients(weights: Weights) -> Weights:
    """Return zeros, float32, for the gradient of each of `weights`."""

    def zeros(value: np.ndarray | kernel.PackedMatrix) -> np.ndarray:
        if isinstance(value, kernel.PackedMatrix):
            layers, input_pairs, _ = value.forward.shape
            return _zeros(layers, 2 * value.backward.shape[1], 2 * input_pairs)
        return _zeros(*value.shape)

    return Weights(*map(zeros, weights))


def _by_parameter(gradients: Weights, shapes: Sequence[torch.Size]) -> Iterator[torch.Tensor]:
    """Yield the gradient of each parameter in their order, cropped to `shapes`."""
    shapes, fields = iter(shapes), gradients._asdict()
    for name in (*MODULES, "norm"):
        is_norm = name.startswith("norm")
        layers = fields[name] if is_norm else zip(fields[name], fields[f"{name}_bias"], strict=True)
        for weight, bias in layers:
            for part in (weight, bias):
                crop = tuple(slice(size) for size in next(shapes))
                yield torch.from_numpy(part[crop])


def _saved(
    layers: int, rows: int, length: int, width: int, heads: int, hidden: int
) -> kernel.Saved:
    """Allocate the saved activations and the workspace of a chunk of `rows` tokens."""
    width_padded, qkv_width, hidden_padded = map(_round_up, (width, 3 * width, hidden))
    block, num_pairs = (
        kernel.ROW_BLOCK,
        kernel.ROW_BLOCK // 2 * (max(qkv_width, hidden_padded) + kernel.ROW_PADDING),
    )
    group_rows = min(max(GROUP_TOKENS // length, 1) * length, rows)

    def with_margin(rows: int) -> int:
        """Add the rows after the last one that the loops may read."""
        return rows + -rows % kernel.ROW_BLOCK + 2 * kernel.LANES

    pairs, bf16 = np.uint32, np.uint16
    workspace = kernel.Workspace(
        normed=_zeros(block, width_padded, dtype=bf16),
        hidden=_zeros(block, hidden_padded, dtype=bf16),
        d_branch=_zeros(block, width_padded, dtype=bf16),
        d_up=_zeros(block, hidden_padded, dtype=bf16),
        product=_zeros(block, max(width_padded, kernel.COLUMN_BLOCK)),
        dy_pairs=_zeros(num_pairs, dtype=pairs),
        x_pairs=_zeros(num_pairs, dtype=pairs),
        group_rows=group_rows,
        d_attn_out=_zeros(with_margin(group_rows), width_padded, dtype=bf16),
        d_qkv=_zeros(with_margin(group_rows), qkv_width, dtype=bf16),
        attention=_attention_workspace(length, width // heads),
    )
    return kernel.Saved(
        x=_zeros(layers, rows, width_padded),
        x_stats=_zeros(layers, rows, 2),
        qkv=_zeros(layers, with_margin(rows), qkv_width, dtype=bf16),
        softmax_stats=_zeros(layers, heads, 2, rows + kernel.LANES),
        attn_out=_zeros(layers, with_margin(rows), width_padded, dtype=bf16),
        x_mid=_zeros(layers, rows, width_padded),
        x_mid_stats=_zeros(layers, rows, 2),
        up=_zeros(layers, with_margin(rows), hidden_padded, dtype=bf16),
        x_last=_zeros(rows, width_padded),
        x_last_stats=_zeros(rows, 2),
        workspace=workspace,
    )


def _attention_workspace(length: int, head_dim: int) -> AttentionWorkspace:
    """Allocate the workspace of one attention head of a window of `length` tokens."""
    length, padded = _round_up(length), _round_up(head_dim)
    pairs, bf16 = np.uint32, np.uint16
    return AttentionWorkspace(
        queries_t=_zeros(_round_up(head_dim // 2), length, dtype=pairs),
        d_out_t=_zeros(_round_up(head_dim // 2), length, dtype=pairs),
        token_pairs=_zeros(3, length // 2 * padded, dtype=pairs),
        scores=_zeros(length, kernel.LANES),
        d_weights=_zeros(QUERY_BLOCK, kernel.LANES),
        key_pairs=_zeros(length // 2, kernel.LANES, dtype=pairs),
        out=_zeros(kernel.LANES, padded),
        delta=_zeros(kernel.LANES),
        weights=_zeros(length, QUERY_BLOCK, dtype=bf16),
        d_scores=_zeros(length, QUERY_BLOCK, dtype=bf16),
        dk=_zeros(length, padded),
        dv=_zeros(length, padded),
    )


def _zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    """Return zeros aligned to a cache line, so that no vector spans two lines."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(count + CACHE_LINE, np.uint8)
    begin = -memory.ctypes.data % CACHE_LINE
    return memory[begin : begin + count].view(dtype).reshape(shape)


def _round_up(size: int) -> int:
    """Round `size` up to a multiple of the SIMD width."""
    return size + -size % kernel.LANES


def _dropout_keys(
    layers: int, dropouts: tuple[float, float], bits: np.random.SFC64
) -> kernel.DropoutKeys:
    """Draw the dropout keys of a chunk from the bit generator `bits`.

    `dropouts` are the probabilities for attention weights and for what a block adds to the residual
    stream.
    """
    weights, residual = dropouts
    probabilities = np.array([weights, residual, residual])
    keys = bits.random_raw(3 * layers).view(np.uint32).reshape(layers, 3, 2)
    threshold = np.minimum(np.round(probabilities * 2**32), 2**32 - 1).astype(np.uint32)
    return kernel.DropoutKeys(keys, threshold, (1 / (1 - probabilities)).astype(np.float32))
