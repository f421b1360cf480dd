"""The precision of training: float32, or bfloat16 autocast where that is faster."""

import torch

from ad.config.schema import Experiment
from ad.registry import METHODS

# CPU features any one of which makes training in bfloat16 faster than in float32.
FEATURES = frozenset({"avx512_bf16", "amx_bf16"})


def uses_bfloat16(config: Experiment, device: torch.device) -> bool:
    """Return whether training runs in bfloat16: as configured, or for `auto` where it is faster.

    A method that reads no histories trains nothing, or by a learner of its own in float32.
    """
    if not METHODS.load(config.method.name).reads_histories:
        return False
    precision = config.training.precision
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_cpu_features() & FEATURES)


def _cpu_features() -> set[str]:
    return {name for name, present in torch.cpu.get_capabilities().items() if present is True}
