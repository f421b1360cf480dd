"""The parameters of a transformer's blocks, stacked by layer for the compiled loops."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

MODULES = {  # field of `Weights` -> module of a block
    "norm_attention": "norm_attention",
    "qkv": "attention.qkv",
    "out": "attention.out",
    "norm_mlp": "norm_mlp",
    "up": "up",
    "down": "down",
}


class Weights(NamedTuple):
    """The parameters of all blocks, or their gradients; padding is zeros.

    Norms are scale and shift [layers, 2, C], biases [layers, out]. How a matrix is stored, the file
    of the loops says.
    """

    norm_attention: np.ndarray
    qkv: np.ndarray
    qkv_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray
    norm_mlp: np.ndarray
    up: np.ndarray
    up_bias: np.ndarray
    down: np.ndarray
    down_bias: np.ndarray
    norm: np.ndarray  # after the last block, [1, 2, C]


def modules_of(transformer: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the modules that have parameters: those of `MODULES` in each block, the last norm."""
    blocks = transformer.blocks
    in_blocks = (block.get_submodule(name) for name in MODULES.values() for block in blocks)
    return [*in_blocks, transformer.norm]


def parameters_of(modules: Sequence[torch.nn.Module]) -> list[torch.Tensor]:
    """Return the weight and the bias of each of `modules`."""
    return [p for module in modules for p in (module.weight, module.bias)]


def stacked(
    parameters: Sequence[torch.Tensor], layers: int
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield a field of `Weights`, its weights and its biases [layers, ...].

    `parameters` are those of the modules of `modules_of`.
    """
    left = (parameter.detach() for parameter in parameters)
    for name in (*MODULES, "norm"):
        both = list(islice(left, 2 if name == "norm" else 2 * layers))
        yield name, torch.stack(both[::2]).float(), torch.stack(both[1::2]).float()
