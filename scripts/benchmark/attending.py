"""Attention alone, by path and shape: the table that `ad.models.attention.choose` follows."""

from collections.abc import Callable

import torch

from ad.config.schema import Experiment
from ad.models import attention
from ad.runtime.devices import choose_device
from scripts.benchmark.measure import Effort, Row, Work, alternate, median

SHAPES = ((32, 2, 256, 32), (32, 2, 64, 32), (32, 4, 256, 16), (8, 4, 768, 16), (115, 2, 1, 32))


def attention_paths(effort: Effort) -> Row:
    """Forward and backward of attention, path by path and shape by shape: which one to choose."""
    device, paths = choose_device(Experiment()), {}
    for shape in SHAPES:  # B x H x L x D
        for dtype in (torch.bfloat16, torch.float32):
            contenders = {
                name: _attention(path, shape, dtype, device)
                for name, path in attention.PATHS.items()
                if path is attention.attend_reference or shape[2] > 1
            }
            rates = alternate(contenders, effort.repeats, device.type)
            name = f"{' x '.join(map(str, shape))}, {str(dtype).removeprefix('torch.')}"
            chosen = attention.choose(torch.empty(shape, dtype=dtype, device=device), shape[2])
            paths[name] = {k: round(1e3 / median(v), 2) for k, v in rates.items()}
            paths[name]["chosen"] = chosen.__name__
    first = next(iter(paths.values()))
    reference, ours = first["attend_reference"], first[first["chosen"]]
    rates = {"ours": [1e3 / ours]}
    row = Row("train", "attention, 32 x 256", "passes", 1e3 / ours, rates)
    row.peer_name, row.peer = "fused kernel of PyTorch", 1e3 / reference
    row.detail["milliseconds by B x H x L x D"] = paths
    return row


def _attention(path: Callable, shape: tuple[int, ...], dtype: torch.dtype, device) -> Work:
    q, k, v = (torch.randn(shape, dtype=dtype, device=device) for _ in range(3))
    if shape[2] == 1:  # one query on a cache of 256
        k, v = (x.expand(-1, -1, 256, -1).contiguous() for x in (k, v))
    trains = shape[2] > 1
    q, k, v = (x.requires_grad_(trains) for x in (q, k, v))

    def work() -> float:
        out = path(q, k, v)
        if trains:
            out.backward(out.detach())
        return 1.0

    return work
