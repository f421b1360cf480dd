"""The precision of training: float32, or bfloat16 autocast where that is faster."""

import torch

from ad.config.schema import Experiment
from ad.models.backend import choose_backend
from ad.registry import BACKENDS


def uses_bfloat16(config: Experiment, device: torch.device) -> bool:
    """Return whether training runs in bfloat16: as configured, or for `auto` where it is faster."""
    precision = config.training.precision
    return precision == "bfloat16" or (precision == "auto" and _is_faster(config, device))


def _is_faster(config: Experiment, device: torch.device) -> bool:
    """Return whether bfloat16 trains faster than float32 on `device`."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    backend = BACKENDS.load(choose_backend(config, device))
    return bool(_cpu_features() & backend.bfloat16_features)


def _cpu_features() -> set[str]:
    return {name for name, present in torch.cpu.get_capabilities().items() if present is True}
