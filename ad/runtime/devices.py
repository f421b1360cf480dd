"""The device that a configuration asks for, its threads and its random generators."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

from ad.config.schema import Experiment
from ad.errors import MachineError


def choose_device(config: Experiment) -> torch.device:
    """Return the configured device (`auto` is cuda where there is one) and set the CPU threads.

    Raises MachineError for cuda where PyTorch finds no GPU.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise MachineError("device is cuda, but PyTorch finds no GPU here: use --device auto")
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the generators that a training step on `device` draws from.

    On a CPU that is the default generator only: `torch.manual_seed` looks for every kind of GPU
    too, which takes a third of a millisecond each time.
    """
    (torch.default_generator if device.type == "cpu" else torch).manual_seed(seed)


@contextmanager
def torch_threads(count: int) -> Generator[None]:
    """Set the number of threads of torch's operations in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
