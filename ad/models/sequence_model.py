"""The sequence model: a token layout, a transformer and a linear head for action logits."""

import torch
from torch import nn

from ad.config.schema import Experiment, ModelConfig
from ad.data.spec import Spec
from ad.errors import ConfigError
from ad.models.kv_cache import Cache
from ad.models.tokenizer import Window
from ad.registry import BACKENDS, TOKENIZERS


class SequenceModel(nn.Module):
    """Action logits for every decision of a window, from what was known at each."""

    def __init__(self, spec: Spec, config: ModelConfig, backend: str = "torch"):
        super().__init__()
        self.spec = spec
        self.layout = TOKENIZERS.load(config.tokenizer)(spec, config)
        self.transformer = BACKENDS.load(backend)(
            config.width,
            config.layers,
            config.heads,
            config.feed_forward,
            config.dropout,
            config.attention_dropout,
            self.layout.position.rotate,
            self.layout.streams,
        )
        self.head = nn.Linear(config.width, spec.num_actions)
        self._initialise()

    def forward(self, window: Window, cache: Cache | None = None, start: int = 0) -> torch.Tensor:
        """Logits [B, T, A] of a window [B, T + 1]; with a cache of its last decision, [B, 1, A].

        A cache that holds tokens of the window's beginning gets those that it does not have yet;
        then `window` may be the part that begins with decision `start` (from 0), if that holds them
        all.
        """
        tokens = self.layout(window, start)
        if cache is None:
            return self.head(self.layout.decisions(self.transformer(tokens)))
        known = start + window["time"].shape[1] - 1
        fresh = self.layout.count(known) - cache.length
        return self.head(self.layout.newest(self.transformer(tokens[:, -fresh:], cache)))

    def new_cache(self, lanes: int, decisions: int) -> Cache:
        """An empty cache for windows of at most so many decisions."""
        return self.transformer.new_cache(lanes, self.layout.count(decisions))

    def _initialise(self) -> None:
        for module in self.layout.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)  # a token is a sum of six or more of these
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)


def choose_backend(config: Experiment, device: torch.device) -> str:
    """Return the configured backend; for `auto` the first that supports the model on `device`.

    Raises ConfigError if the configured one does not support them.
    """
    supported = [name for name in BACKENDS if BACKENDS.load(name).supports(config.model, device)]
    if config.backend == "auto":
        return supported[0]
    if config.backend not in supported:
        raise ConfigError(
            f"backend {config.backend} does not support this model on {device.type}: use auto"
        )
    return config.backend


def build_model(spec: Spec, config: Experiment, device: torch.device) -> SequenceModel:
    """Return a new model on `device`, with the backend that `choose_backend` names."""
    return SequenceModel(spec, config.model, choose_backend(config, device)).to(device)
