"""The sequence model: a tokenizer, a transformer and a linear head for action logits."""

import torch
from torch import nn

from ad.config.schema import Experiment, ModelConfig
from ad.data.spec import Spec
from ad.models.backend import choose_backend
from ad.models.kv_cache import Cache
from ad.models.tokenizer import Window
from ad.registry import BACKENDS, TOKENIZERS


class SequenceModel(nn.Module):
    """Predicts the action of each decision of a window from what was known at that decision."""

    def __init__(self, spec: Spec, config: ModelConfig, backend: str = "torch"):
        super().__init__()
        self.spec = spec
        self.tokenizer = TOKENIZERS.load(config.tokenizer)(spec, config)
        self.transformer = BACKENDS.load(backend)(
            config.width,
            config.layers,
            config.heads,
            config.feed_forward,
            config.dropout,
            config.attention_dropout,
            self.tokenizer.position.rotate,
            self.tokenizer.streams,
        )
        self.head = nn.Linear(config.width, spec.num_actions)
        self._initialize()

    def forward(self, window: Window, cache: Cache | None = None, start: int = 0) -> torch.Tensor:
        """Return the logits [B, T, A] of a window [B, T + 1].

        With a `cache`, which holds the tokens of the window's beginning, the other tokens are added
        to it, and the logits of the last decision are returned, [B, 1, A]. `window` may then be the
        part from decision `start` on, if it holds these other tokens.
        """
        tokens = self.tokenizer(window, start)
        if cache is None:
            return self.head(self.tokenizer.at_decisions(self.transformer(tokens)))
        num_decisions = start + window["time"].shape[1] - 1
        new = self.tokenizer.num_tokens(num_decisions) - cache.length
        hidden = self.transformer(tokens[:, -new:], cache)
        return self.head(self.tokenizer.at_last_decision(hidden))

    def new_cache(self, num_envs: int, num_decisions: int) -> Cache:
        """Return an empty cache for windows of at most `num_decisions` decisions."""
        return self.transformer.new_cache(num_envs, self.tokenizer.num_tokens(num_decisions))

    def _initialize(self) -> None:
        for module in self.tokenizer.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(
                    module.weight, std=0.1
                )  # a fused token is a sum of about six of these
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)


def build_model(spec: Spec, config: Experiment, device: torch.device) -> SequenceModel:
    """Return a new model on `device`, with the backend that `choose_backend` names."""
    return SequenceModel(spec, config.model, choose_backend(config, device)).to(device)
