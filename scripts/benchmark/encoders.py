"""The encoders of pictures of cells: parameters, and training steps beside the one-hot linear map.

The pictures are random ones of the shape of MiniGrid's partial view.
"""

import torch

from ad.registry import ENCODERS
from envs.minigrid.encoding import HIGHEST, SIZES
from envs.spaces import Array
from scripts.benchmark.measure import Effort, Measurement, Work, alternate, median, named

VIEW = Array((7, 7, 3), "uint8", 0.0, float(HIGHEST))
BATCH = 512  # observations of a training step
WIDTHS = (32, 128)
NAMES = [name for name in ENCODERS if ENCODERS.load(name).supports(VIEW)]
PEER = "one_hot"


def pictures(count: int) -> torch.Tensor:
    """Return random pictures of cells, uint8 [count, 7, 7, 3]."""
    generator, shape = torch.Generator().manual_seed(0), (count, *VIEW.shape[:2])
    words = [torch.randint(size, shape, generator=generator) for size in SIZES]
    return torch.stack(words, dim=-1).to(torch.uint8)


def steps(encoder: torch.nn.Module, count: int) -> Work:
    """Return work that takes `count` training steps of `encoder`; its unit is an observation."""
    batch, optimizer = pictures(BATCH), torch.optim.AdamW(encoder.parameters(), 1e-4)

    def work() -> float:
        for _ in range(count):
            optimizer.zero_grad()
            encoder(batch).square().mean().backward()
            optimizer.step()
        return float(count * BATCH)

    return work


def training(name: str, width: int, effort: Effort) -> Measurement:
    """Measure training steps of the encoder `name` at `width`, without a transformer."""
    encoder = ENCODERS.load(name)(VIEW, width)
    contenders = {"ours": steps(encoder, effort.scaled(40, 2))}
    if name != PEER:
        contenders[PEER] = steps(ENCODERS.load(PEER)(VIEW, width), effort.scaled(40, 2))
    rates = alternate(contenders, effort.repeats)
    parameters = sum(values.numel() for values in encoder.parameters())
    title = f"{name}, width {width}, {parameters:,} parameters"
    result = Measurement("encoders", title, "observations", median(rates["ours"]), rates)
    result.detail["parameters"] = parameters
    result.detail[f"milliseconds of a step on {BATCH} observations"] = 1e3 * BATCH / result.ours
    if name != PEER:
        result.peer_name, result.peer = PEER, median(rates[PEER])
    return result


BENCHMARKS = [named(training, name, width) for name in NAMES for width in WIDTHS]
