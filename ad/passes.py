"""The blocks of a transformer forward and backward, written out: training in bfloat16 on a CPU.

Under autograd half of such a step is not matrix products but what lies between them, each operation
a pass over memory of its own. Here some windows at a time go through all blocks in a core's cache,
with one compiled loop between two products (`ad/transformer_kernel.py`), on one thread: whoever has
more of them gives each a part of the batch (`ad/gradients.py`). Numbers are rounded where autocast
rounds them: products take and give bfloat16; the stream between the blocks, norms and biases are
float32. tests/test_passes.py holds this against the plain transformer.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from ad import transformer_kernel as kernel
from ad.attention import BLOCK
from ad.part_streams import draw
from ad.parts import at_most

TOKENS = 4096  # that go through the blocks together, about; at least one window
MATRICES = ("qkv", "out", "up", "down")


class Passes:
    """The blocks of a `transformer` as one function; it keeps the memory that they work in."""

    def __init__(self, transformer: torch.nn.Module):
        self.blocks, self.heads = list(transformer.blocks), transformer.heads
        attention = self.blocks[0].attention
        self.dropouts = attention.dropout, self.blocks[0].dropout
        self.plain = attention.rotate is not None or transformer.streams > 1
        self.free: dict[tuple[int, ...], list[_Room]] = defaultdict(list)  # by shape

    def serve(self, tokens: torch.Tensor) -> bool:
        """Whether this can stand in for the blocks: they train in bfloat16 on a CPU, unrotated."""
        rough = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
        differentiated = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        on_cpu = tokens.device.type == "cpu" and tokens.dtype == torch.float32
        return on_cpu and rough == torch.bfloat16 and differentiated and not self.plain

    def __getstate__(self) -> dict:
        """Without rooms: a copy of one is two memories in place of one seen in two ways."""
        return vars(self) | {"free": defaultdict(list)}

    def __call__(self, tokens: torch.Tensor, training: bool) -> torch.Tensor:
        """What comes out of the last block for `tokens` [B, L, C], float32."""
        dropouts = self.dropouts if training else (0.0, 0.0)
        parameters = [p for block in self.blocks for p in _parameters(block)]
        return _Through.apply(tokens, self, dropouts, *parameters)

    def room(self, *shape: int) -> "_Room":
        """Memory for a part of a batch; `_Room` has the words of `shape`."""
        try:
            return self.free[shape].pop()  # at once: other threads look for rooms too
        except IndexError:
            return _Room(*shape)


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens, passes, dropouts, *parameters):
        windows, length, width = tokens.shape
        each = len(parameters) // len(passes.blocks)
        ctx.passes, ctx.parts = passes, []
        ctx.layers = [_Layer(parameters[i : i + each]) for i in range(0, len(parameters), each)]
        words = np.random.SFC64(draw()) if any(dropouts) else None
        x = tokens.detach().contiguous().numpy()
        out = np.empty_like(x)
        for start, stop in at_most(windows, max(round(TOKENS / length), 1)):
            sizes = length, width, ctx.layers[0].up.shape[0], passes.heads, len(ctx.layers)
            room = passes.room(stop - start, *sizes)
            rows = slice(start, stop)
            room.forward(ctx.layers, x[rows].reshape(-1, width), out[rows], dropouts, words)
            ctx.parts.append((rows, room))
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gradients = [_Gradients(layer) for layer in ctx.layers]
        known = gradient.clone(memory_format=torch.contiguous_format).numpy()
        for rows, room in ctx.parts:
            room.backward(ctx.layers, gradients, known[rows].reshape(-1, known.shape[-1]))
            ctx.passes.free[room.shape].append(room)
        ctx.parts = None  # the rooms are others' now
        return torch.from_numpy(known), None, None, *(g for each in gradients for g in each)


def _product(a: torch.Tensor, b: torch.Tensor, into: torch.Tensor) -> None:
    """`into` = `a` @ `b`, in batches; without a copy where it is not a part of something."""
    if into.is_contiguous():
        torch.bmm(a, b, out=into)
    else:
        into.copy_(a @ b)


class Half(NamedTuple):
    """bfloat16 numbers: a tensor for products, and the same memory as uint16 for the kernel."""

    tensor: torch.Tensor
    array: np.ndarray


def _half(*shape: int) -> Half:
    array = np.empty(shape, np.uint16)
    return Half(torch.from_numpy(array).view(torch.bfloat16), array)


class _Layer:
    """A block's weights: matrices as bfloat16 tensors, the others as float32 arrays."""

    def __init__(self, parameters: tuple[torch.Tensor, ...]):
        parameters = [p.detach() for p in parameters]
        norms, linears = parameters[:4], parameters[4:]
        self.norm_attention, self.norm_mlp = torch.stack(norms).view(2, 2, -1).numpy()
        self.qkv, self.out, self.up, self.down = (w.to(torch.bfloat16) for w in linears[::2])
        biases = (b.float().numpy() for b in linears[1::2])
        self.qkv_bias, self.out_bias, self.up_bias, self.down_bias = biases


def _parameters(block: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    """In the order of `_Layer` and `_Gradients`."""
    attention = block.attention
    norms, linears = (block.norm_attention, block.norm_mlp), (attention.qkv, attention.out)
    for module in (*norms, *linears, block.up, block.down):
        yield from (module.weight, module.bias)


class _Gradients:
    """Of a block's parameters, float32, summed over the parts of a batch."""

    def __init__(self, layer: _Layer):
        self.matrices = {name: torch.zeros(getattr(layer, name).shape) for name in MATRICES}
        self.biases = {name: np.zeros(len(m), np.float32) for name, m in self.matrices.items()}
        self.norm_attention = np.zeros_like(layer.norm_attention)
        self.norm_mlp = np.zeros_like(layer.norm_mlp)

    def add(self, name: str, d: Half, x: Half) -> None:
        """What `d` [N, out], known of a product with `x` [N, in], says of the matrix `name`."""
        self.matrices[name] += d.tensor.t() @ x.tensor

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from torch.from_numpy(np.concatenate([self.norm_attention, self.norm_mlp]))
        for name in MATRICES:
            yield from (self.matrices[name], torch.from_numpy(self.biases[name]))


class _Block:
    """What the backward pass of a block needs of the forward one, for N = B L rows."""

    def __init__(self, b: int, length: int, c: int, f: int, h: int):
        n = b * length
        self.x = np.empty((n, c), np.float32)  # the stream that comes in
        self.between = np.empty((n, c), np.float32)  # after attention
        self.x_stats, self.between_stats = np.empty((2, n, 2), np.float32)
        self.x_normal, self.between_normal = _half(n, c), _half(n, c)
        self.qkv = _half(3, b * h, length, c // h)
        self.weights = [_half(b * h, j - i, j) for i, j in at_most(length, BLOCK)]
        self.mixed = _half(n, c)
        self.up = _half(n, f)  # without its bias
        self.drop_weights: list[kernel.Drop | None] = []
        self.drop_attention: kernel.Drop | None = None
        self.drop_mlp: kernel.Drop | None = None

    def draw(self, dropouts: tuple[float, float], words: np.random.SFC64 | None) -> None:
        """New random numbers for dropout of attention weights and of both additions."""
        weights, additions = dropouts
        self.drop_weights = [_drop(weights, words) for _ in self.weights]
        self.drop_attention, self.drop_mlp = _drop(additions, words), _drop(additions, words)


def _drop(probability: float, words: np.random.SFC64 | None) -> kernel.Drop | None:
    if probability == 0:
        return None
    key, other_key = np.uint64([words.random_raw()]).view(np.uint32)
    below = np.uint32(min(round(probability * 2**32), 2**32 - 1))
    return kernel.Drop(key, other_key, below, np.float32(1 / (1 - probability)))


class _Room:
    """Memory for B windows of L tokens, and the passes of all blocks over them."""

    def __init__(self, b: int, length: int, c: int, f: int, h: int, layers: int):
        self.shape = b, length, c, f, h, layers
        n, d = b * length, c // h
        self.saved = [_Block(b, length, c, f, h) for _ in range(layers)]
        self.edges = at_most(length, BLOCK)
        self.scale = d**-0.5
        # Both passes write over these as they go.
        self.narrow, self.other = _half(n, c), _half(n, c)
        self.wide, self.hidden, self.d_hidden = _half(n, 3 * c), _half(n, f), _half(n, f)
        self.split, self.mixed = _half(3, b * h, length, d), _half(1, b * h, length, d)
        self.d_weights = [_half(*saved.tensor.shape) for saved in self.saved[0].weights]
        self.used: list[Half] | None = None  # attention weights after dropout, once there is any
        self.no_bias, self.unread = np.zeros((3, h, d), np.float32), np.zeros((1, h, d), np.float32)
        # The same memory as the loops that turn rows into heads, and back, take it.
        by_row, by_head = (b, length, -1, h, d), (-1, b, h, length, d)
        self.wide_rows, self.other_rows = (x.array.reshape(by_row) for x in (self.wide, self.other))
        self.split_heads, self.mixed_heads = (
            x.array.reshape(by_head) for x in (self.split, self.mixed)
        )
        self.qkv_heads = [block.qkv.array.reshape(by_head) for block in self.saved]
        self.mixed_rows = [block.mixed.array.reshape(by_row) for block in self.saved]

    def forward(self, layers, x: np.ndarray, out: np.ndarray, dropouts, words) -> None:
        """`out` = what comes out of the last block for `x` [N, C]; all that `backward` needs."""
        for block in self.saved:
            block.draw(dropouts, words)
        if dropouts[0] and self.used is None:
            self.used = [_half(*weights.tensor.shape) for weights in self.saved[0].weights]
        first = self.saved[0]
        first.x[:] = x
        kernel.normalise(x, layers[0].norm_attention, first.x_normal.array, first.x_stats)
        for i, (layer, block) in enumerate(zip(layers, self.saved, strict=True)):
            self._attend(layer, i)
            torch.mm(block.mixed.tensor, layer.out.t(), out=self.narrow.tensor)
            change = block.x, self.narrow.array, layer.out_bias, block.between
            normal = layer.norm_mlp, block.between_normal.array, block.between_stats
            kernel.add_and_normalise(*change, block.drop_attention, *normal)
            torch.mm(block.between_normal.tensor, layer.up.t(), out=block.up.tensor)
            kernel.activate(block.up.array, layer.up_bias, self.hidden.array)
            torch.mm(self.hidden.tensor, layer.down.t(), out=self.narrow.tensor)
            change = block.between, self.narrow.array, layer.down_bias
            if i + 1 < len(layers):
                after, norm = self.saved[i + 1], layers[i + 1].norm_attention
                normal = norm, after.x_normal.array, after.x_stats
                kernel.add_and_normalise(*change, after.x, block.drop_mlp, *normal)
            else:
                kernel.add(*change, out.reshape(x.shape), block.drop_mlp)

    def _attend(self, layer: _Layer, number: int) -> None:
        """`mixed` of that block = what its queries find."""
        block, heads = self.saved[number], self.qkv_heads[number]
        torch.mm(block.x_normal.tensor, layer.qkv.t(), out=self.wide.tensor)
        kernel.split(self.wide_rows, layer.qkv_bias.reshape(self.no_bias.shape), heads)
        q, k, v = block.qkv.tensor
        for i, (start, stop) in enumerate(self.edges):
            scores, used = block.weights[i], self._used(i)
            torch.bmm(q[:, start:stop], k[:, :stop].transpose(1, 2), out=scores.tensor)
            kernel.weigh(
                scores.array, start, self.scale, block.drop_weights[i], used and used.array
            )
            weights = used or scores
            _product(weights.tensor, v[:, :stop], self.mixed.tensor[0, :, start:stop])
        kernel.merge(self.mixed_heads, self.mixed_rows[number], self.unread)

    def _used(self, i: int) -> Half | None:
        """Where the attention weights of the queries of `edges[i]` go after dropout, if any."""
        return None if self.saved[0].drop_weights[i] is None else self.used[i]

    def backward(self, layers, gradients: list[_Gradients], dx: np.ndarray) -> None:
        """`dx` [N, C], known of what came out, becomes what is known of `x`; `gradients` grow."""
        below = [*(g.biases["down"] for g in gradients), np.zeros(dx.shape[1], np.float32)]
        kernel.add_back(dx, self.saved[-1].drop_mlp, self.narrow.array, below[-2])
        for i in reversed(range(len(layers))):
            layer, block, g = layers[i], self.saved[i], gradients[i]
            d, other = self.narrow, self.other
            torch.mm(d.tensor, layer.down, out=self.d_hidden.tensor)
            hidden, d_hidden = self.hidden, self.d_hidden
            kernel.activate_back(
                block.up.array, layer.up_bias, hidden.array, d_hidden.array, g.biases["up"]
            )
            g.add("down", d, hidden)
            g.add("up", d_hidden, block.between_normal)
            torch.mm(d_hidden.tensor, layer.up, out=other.tensor)
            normal = block.between, block.between_stats, layer.norm_mlp, dx, g.norm_mlp
            change = block.drop_attention, d.array, g.biases["out"]
            kernel.normalise_back(other.array, *normal, *change)
            g.add("out", d, block.mixed)
            torch.mm(d.tensor, layer.out, out=other.tensor)
            self._attend_back(block, g)
            g.add("qkv", self.wide, block.x_normal)
            torch.mm(self.wide.tensor, layer.qkv, out=other.tensor)
            normal = block.x, block.x_stats, layer.norm_attention, dx, g.norm_attention
            drop = self.saved[i - 1].drop_mlp if i else None
            kernel.normalise_back(other.array, *normal, drop, d.array, below[i - 1])

    def _attend_back(self, block: _Block, g: _Gradients) -> None:
        """From what is known of `block.mixed`, in `other`, to that of q, k and v, in `wide`."""
        kernel.split(self.other_rows, self.no_bias[:1], self.mixed_heads)
        (q, k, v), (dq, dk, dv) = block.qkv.tensor, self.split.tensor
        for i, (start, stop) in reversed(list(enumerate(self.edges))):
            weights, d, used = block.weights[i], self.d_weights[i], self._used(i)
            mine = self.mixed.tensor[0, :, start:stop]
            torch.bmm(mine, v[:, :stop].transpose(1, 2), out=d.tensor)
            drop = block.drop_weights[i], used and used.array
            kernel.weigh_back(weights.array, d.array, start, self.scale, *drop)
            _product(d.tensor, k[:, :stop], dq[:, start:stop])
            for into, given, read in ((dk, d, q[:, start:stop]), (dv, used or weights, mine)):
                if stop == len(q[0]):  # the first of these: it has all keys
                    torch.bmm(given.tensor.transpose(1, 2), read, out=into)
                else:
                    into[:, :stop].baddbmm_(given.tensor.transpose(1, 2), read)
        total = g.biases["qkv"].reshape(self.no_bias.shape)
        kernel.merge(self.split_heads, self.wide_rows, total)
