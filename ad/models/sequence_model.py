"""The sequence model: a tokenizer, a memory and a linear head for action logits."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from ad.config.schema import ModelConfig
from ad.data.spec import Spec
from ad.errors import ConfigError
from ad.models.memories.base import Cache, Episodes
from ad.models.positions import Start
from ad.models.tokenizer import Window
from ad.registry import MEMORIES, TOKENIZERS

if TYPE_CHECKING:
    from ad.models.memories.transformer import Transformer


class SequenceModel(nn.Module):
    """Predicts the action of each decision of a window from what was known at that decision.

    `inputs` maps further fields of a window, numbers [B, T, 1], to vectors [B, T, C] that are added
    to the tokens of the observations. A subclass may add heads on `hidden`. `reads_rewards` says
    whether the field `reward` of its windows, if its tokens tell it, is the reward.
    """

    reads_rewards: ClassVar[bool] = True

    def __init__(
        self,
        spec: Spec,
        config: ModelConfig,
        inputs: Mapping[str, nn.Module] | None = None,
    ):
        super().__init__()
        self.spec = spec
        self.tokenizer = TOKENIZERS.load(config.tokenizer)(spec, config, inputs)
        self.memory = MEMORIES.load(config.memory)(
            config, self.tokenizer.streams, self.tokenizer.position.rotate
        )
        self.head = nn.Linear(config.width, spec.num_actions)
        self._initialize()

    @property
    def transformer(self) -> "Transformer":
        """The memory, if it is a transformer. Raises ConfigError for another one."""
        from ad.models.memories.transformer import Transformer

        if not isinstance(self.memory, Transformer):
            name = type(self.memory).__name__
            raise ConfigError(f"the memory of the model is a {name}, which has no attention")
        return self.memory

    def forward(
        self,
        window: Window,
        cache: Cache | None = None,
        start: Start = 0,
    ) -> torch.Tensor:
        """Return the logits [B, T, A] of a window [B, T + 1]; the arguments are `hidden`'s."""
        return self.logits(self.hidden(window, cache, start))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the action logits [..., A] of hidden states [..., C]."""
        return self.head(hidden)

    def hidden(
        self,
        window: Window,
        cache: Cache | None = None,
        start: Start = 0,
    ) -> torch.Tensor:
        """Return the hidden states [B, T, C] of the decisions of a window [B, T + 1].

        With a `cache`, which holds the tokens of the window's beginning, the other tokens are added
        to it, and the state of the last decision is returned, [B, 1, C]. `window` may then be the
        part from decision `start` on, if it holds these other tokens. With a cache of `Episodes`,
        `start` is int64 [B, 1], and -1 where an episode begins.
        """
        tokens = self.tokenizer(window, start)
        if cache is None:
            return self.tokenizer.at_decisions(self.memory(tokens))
        if isinstance(cache, Episodes):
            new = cache.new
        else:
            num_decisions = int(start) + window["time"].shape[1] - 1
            new = self.tokenizer.num_tokens(num_decisions) - cache.length
        return self.tokenizer.at_last_decision(self.memory(tokens[:, -new:], cache))

    def new_cache(self, num_envs: int, num_decisions: int) -> Cache:
        """Return an empty cache for windows of at most `num_decisions` decisions."""
        return self.memory.new_cache(num_envs, self.tokenizer.num_tokens(num_decisions))

    def new_episode_cache(self, num_envs: int, num_decisions: int) -> Episodes | None:
        """Return an empty cache for episodes of at most `num_decisions` decisions.

        Each step adds the tokens of a decision. None if the memory has no such cache; there is none
        for parallel streams.
        """
        if self.tokenizer.streams > 1:
            return None
        first, two, capacity = map(self.tokenizer.num_tokens, (1, 2, num_decisions))
        return self.memory.new_episode_cache(num_envs, capacity, first, two - first)

    def _initialize(self) -> None:
        for module in self.tokenizer.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(
                    module.weight, std=0.1
                )  # a fused token is a sum of about six of these
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
