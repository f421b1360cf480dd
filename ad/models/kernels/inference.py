"""The compiled decoder of rollouts on a CPU: a frozen transformer with its cache.

In a step of a rollout each environment has one to three new tokens. As PyTorch operations such a
step is mostly the cost of the calls, and of reading all keys and values; here it is one call, and
keys and values are kept in bfloat16. The logits differ from those of the plain path by that
rounding only.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ad.models.kernels.inference_loops import ROWS, VECTOR_PAIR, decode
from ad.models.kernels.llvm import LANES
from ad.models.kernels.weights import Weights, modules_of, parameters_of, stacked
from ad.runtime.parallel import run_all


class CompiledDecoder:
    """A `Cache` that also holds the transformer's weights as they were when it was made.

    Keys and values are bfloat16 in uint16 arrays, laid out for `inference_loops.decode`: keys
    [layers, N, H, ceil(capacity / VECTOR_PAIR), D, VECTOR_PAIR], values [layers, N, H, capacity, D]
    with the last two padded to multiples of VECTOR_PAIR and LANES.
    """

    def __init__(self, transformer: torch.nn.Module, num_envs: int, capacity: int):
        self.weights, heads = _weights(transformer), transformer.heads
        layers, head_dim = len(transformer.blocks), transformer.width // heads
        pairs, vectors = -(-capacity // VECTOR_PAIR), -(-head_dim // LANES)
        keys = layers, num_envs, heads, pairs, head_dim, VECTOR_PAIR
        values = layers, num_envs, heads, pairs * VECTOR_PAIR, vectors * LANES
        self.keys, self.values = np.zeros(keys, np.uint16), np.zeros(values, np.uint16)
        self.capacity, self.length = capacity, 0
        self.threads = torch.get_num_threads()

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append `tokens` [N, L, C] and return the hidden states [N, 1, C] of the last of them."""
        num_envs, new, width = tokens.shape
        assert num_envs == self.keys.shape[1] and self.length + new <= self.capacity
        hidden = np.empty((num_envs, width), np.float32)
        inputs, counter = tokens.detach().contiguous().numpy(), np.zeros(1, np.int64)
        data = (self.weights, self.keys, self.values, self.length, inputs, hidden, counter)
        run_all([lambda: decode(*data)] * min(self.threads, -(-num_envs // ROWS)))
        self.length += new
        return torch.from_numpy(hidden)[:, None]

    def reset(self) -> None:
        """Forget every token; the memory stays allocated."""
        self.length = 0

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order."""
        self.keys, self.values = (x.take(envs.numpy(), axis=1) for x in (self.keys, self.values))


def _weights(transformer: torch.nn.Module) -> Weights:
    """Stack the parameters of all blocks in the layout of `inference_loops.decode`."""

    def padded(values: torch.Tensor) -> np.ndarray:
        return F.pad(values.contiguous(), (0, -values.shape[-1] % VECTOR_PAIR)).numpy()

    fields, parameters = {}, parameters_of(modules_of(transformer))
    for name, weight, bias in stacked(parameters, len(transformer.blocks)):
        if name.startswith("norm"):
            fields[name] = torch.stack([weight, bias], dim=1).numpy()
        else:
            fields[name], fields[f"{name}_bias"] = padded(weight.mT), padded(bias)
    return Weights(**fields)
