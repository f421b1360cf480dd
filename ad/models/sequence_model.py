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

    With a `segment_length` the memory reads windows of any length in segments of that many
    decisions, and carries a state from one to the next, without its gradient (truncated
    backpropagation through time: Williams and Peng 1990). A decision of a rollout then reads the
    new tokens alone, however many came before. None: a window is read as a whole.
    """

    reads_rewards: ClassVar[bool] = True
    segment_length: int | None = None

    def __init__(
        self, spec: Spec, config: ModelConfig, inputs: Mapping[str, nn.Module] | None = None
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
    def carries(self) -> bool:
        """Whether a state goes from one segment to the next."""
        return self.segment_length is not None

    @property
    def transformer(self) -> "Transformer":
        """The memory, if it is a transformer. Raises ConfigError for another one."""
        from ad.models.memories.transformer import Transformer

        if not isinstance(self.memory, Transformer):
            name = type(self.memory).__name__
            raise ConfigError(f"the memory of the model is a {name}, which has no attention")
        return self.memory

    def forward(self, window: Window, cache: Cache | None = None, start: Start = 0) -> torch.Tensor:
        """Return the logits [B, T, A] of a window [B, T + 1]; the arguments are `hidden`'s."""
        return self.logits(self.hidden(window, cache, start))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the action logits [..., A] of hidden states [..., C]."""
        return self.head(hidden)

    def hidden(self, window: Window, cache: Cache | None = None, start: Start = 0) -> torch.Tensor:
        """Return the hidden states [B, T, C] of the decisions of a window [B, T + 1].

        With a `cache`, which holds the tokens of the window's beginning, the other tokens are added
        to it, and the state of the last decision is returned, [B, 1, C]. `window` may then be the
        part from decision `start` on, if it holds these other tokens. With a cache of `Episodes`,
        `start` is int64 [B, 1], and -1 where an episode begins.
        """
        tokens = self.tokenizer(window, start)
        if cache is None:
            state = self.memory.new_state(len(window["time"])) if self.carries else None
            return self.tokenizer.at_decisions(self._read(tokens, state))
        if isinstance(cache, Episodes):
            new = cache.new
        else:
            num_decisions = int(start) + window["time"].shape[1] - 1
            new = self.tokenizer.num_tokens(num_decisions) - cache.read
        return self.tokenizer.at_last_decision(self._read(tokens[:, -new:], cache))

    def new_cache(self, num_envs: int, num_decisions: int) -> Cache:
        """Return an empty cache for windows of at most `num_decisions` decisions.

        With a `segment_length` it has room for two segments, and reads on without end.
        """
        if self.segment_length is not None:
            num_decisions = 2 * self.segment_length + 1
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

    def _read(self, tokens: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        """Return the hidden states of the `tokens`, which follow those in `cache` and enter it.

        A segment ends with the token that its last decision is made at.
        """
        if self.segment_length is None:
            return self.memory(tokens, cache)
        assert cache is not None
        num_tokens, hidden, begin = self.tokenizer.num_tokens, [], 0
        first = num_tokens(self.segment_length)
        each = num_tokens(self.segment_length + 1) - num_tokens(1)  # of the segments after it
        while begin < tokens.shape[1]:
            left = each - (cache.read - first) % each  # tokens until the segment ends
            if left == each:
                cache.next_segment()
            hidden.append(self.memory(tokens[:, begin : begin + left], cache))
            begin += left
        return torch.cat(hidden, 1)

    def _initialize(self) -> None:
        for module in self.tokenizer.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)  # a fused token adds about six of these
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
