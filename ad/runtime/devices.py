"""The device and the precision that a configuration asks for."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ad.config.schema import Experiment
from ad.errors import MachineError
from ad.models.tokenizer import is_plain


def choose_device(config: Experiment) -> torch.device:
    """`auto` is cuda where there is one. Sets the number of CPU threads. Raises MachineError."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise MachineError("device is cuda, but PyTorch finds no GPU here: use --device auto")
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def autocast(config: Experiment, device: torch.device) -> torch.autocast:
    """bfloat16 autocast where the configuration and, for `auto`, the machine favour it."""
    wanted = config.training.precision
    enabled = wanted == "bfloat16" or (wanted == "auto" and _bfloat16_pays(config, device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the generators of a training step on `device`.

    On a CPU that is one: `torch.manual_seed` looks for all kinds of GPU too, a third of a
    millisecond each time.
    """
    (torch.default_generator if device.type == "cpu" else torch).manual_seed(seed)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads of torch in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _bfloat16_pays(config: Experiment, device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = _cpu_flags()
    if flags & {"avx512_bf16", "amx_bf16"}:
        return True
    # PyTorch would be slow without those; the compiled loops, which take bfloat16, are not.
    return "avx2" in flags and not config.training.compile and is_plain(config.model)


def _cpu_flags() -> set[str]:
    return {name for name, present in torch.cpu.get_capabilities().items() if present is True}
