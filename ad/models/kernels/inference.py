"""A frozen transformer and what its lanes have read, in compiled loops: rollouts on a CPU.

At a step of a rollout each lane has a token or three. As operations on tensors that is mostly the
cost of calling them, and of waiting for the keys and values of all lanes; here a step is one call,
and keys and values are half as long. They are rounded to bfloat16: the logits are those of the
plain path but for that.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F

from ad.models.kernels.inference_loops import ROWS, VECTOR_PAIR, Weights, decode
from ad.models.kernels.llvm import LANES
from ad.runtime.devices import torch_threads
from ad.runtime.parallel import at_once


class Decoder:
    """What `KVCache` is, with the transformer's weights as they were when this was made.

    Keys and values lie as `ad.models.kernels.inference_loops.decode` goes through them.
    """

    def __init__(self, transformer: torch.nn.Module, lanes: int, capacity: int):
        self.weights, heads = _weights(transformer), transformer.heads
        layers, head_width = len(transformer.blocks), transformer.width // heads
        pairs, vectors = -(-capacity // VECTOR_PAIR), -(-head_width // LANES)
        keys = layers, lanes, heads, pairs, head_width, VECTOR_PAIR
        values = layers, lanes, heads, pairs * VECTOR_PAIR, vectors * LANES
        self.keys, self.values = np.zeros(keys, np.uint16), np.zeros(values, np.uint16)
        self.capacity, self.length = capacity, 0
        self.threads = torch.get_num_threads()

    @staticmethod
    def serves(transformer: torch.nn.Module) -> bool:
        """Whether this can stand in for the plain path: float32 on a CPU, nothing unusual."""
        like = transformer.norm.weight
        on_cpu = like.device.type == "cpu" and like.dtype == torch.float32
        return on_cpu and transformer.plain

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Hidden states [N, 1, C] of the last of `tokens` [N, L, C], all of which are kept."""
        lanes, fresh, width = tokens.shape
        assert lanes == self.keys.shape[1] and self.length + fresh <= self.capacity
        hidden = np.empty((lanes, width), np.float32)
        told, taken = tokens.detach().contiguous().numpy(), np.zeros(1, np.int64)
        data = (self.weights, self.keys, self.values, self.length, told, hidden, taken)
        at_once([lambda: decode(*data)] * min(self.threads, -(-lanes // ROWS)))
        self.length += fresh
        return torch.from_numpy(hidden)[:, None]

    def in_use(self) -> AbstractContextManager:
        """Around whatever reads with it: torch's own threads rest.

        After a call they wait for the next one by spinning, on the cores that `read` needs.
        """
        return torch_threads(1)

    def reset(self) -> None:
        """Forget everything; the memory stays."""
        self.length = 0

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with `lanes` alone, int64 [M], in this order."""
        self.keys, self.values = (x.take(lanes.numpy(), axis=1) for x in (self.keys, self.values))


def _weights(transformer: torch.nn.Module) -> Weights:
    def stacked(of: Callable[[torch.nn.Module], torch.Tensor]) -> torch.Tensor:
        return torch.stack([of(block) for block in transformer.blocks])

    def linear(of: Callable[[torch.nn.Module], torch.Tensor]) -> np.ndarray:
        """[layers, in, out], or [layers, out] of a bias."""
        values = stacked(of)
        return F.pad(values, (0, -values.shape[-1] % VECTOR_PAIR)).numpy()

    def norm(module: torch.nn.LayerNorm) -> torch.Tensor:
        return torch.stack([module.weight, module.bias])

    with torch.no_grad():
        return Weights(
            norm_attention=stacked(lambda block: norm(block.norm_attention)).numpy(),
            qkv=linear(lambda block: block.attention.qkv.weight.T),
            qkv_bias=linear(lambda block: block.attention.qkv.bias),
            out=linear(lambda block: block.attention.out.weight.T),
            out_bias=linear(lambda block: block.attention.out.bias),
            norm_mlp=stacked(lambda block: norm(block.norm_mlp)).numpy(),
            up=linear(lambda block: block.up.weight.T),
            up_bias=linear(lambda block: block.up.bias),
            down=linear(lambda block: block.down.weight.T),
            down_bias=linear(lambda block: block.down.bias),
            norm=norm(transformer.norm).numpy(),
        )
