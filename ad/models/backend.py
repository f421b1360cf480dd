"""The choice of the class that runs a model's transformer."""

import torch

from ad.config.schema import Experiment
from ad.errors import ConfigError
from ad.registry import BACKENDS


def choose_backend(config: Experiment, device: torch.device) -> str:
    """Return the configured backend; for `auto` the first that supports the model on `device`.

    Raises ConfigError if the configured one does not support them.
    """
    supported = [name for name in BACKENDS if BACKENDS.load(name).supports(config.model, device)]
    if config.training.activation_checkpointing:
        fitting = [name for name in supported if BACKENDS.load(name).can_checkpoint_activations]
        if config.backend in set(supported) - set(fitting):
            raise ConfigError(
                f"backend {config.backend} has no training.activation_checkpointing: use auto"
            )
        supported = fitting
    if config.backend == "auto":
        return supported[0]
    if config.backend not in supported:
        raise ConfigError(
            f"backend {config.backend} does not support this model on {device.type}: use auto"
        )
    return config.backend
