"""What a frozen model remembers in a rollout: its last transitions, their keys and values."""

import torch

from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import EmbeddingCache, Window


class ContextMemory:
    """The window of N lanes in lockstep; its logits are those of a full forward pass over it, but
    for the rounding of a backend's cache.

    When a decision comes for which the window of `context_length` decisions has no room, the oldest
    half goes and the cache is filled again from the rest: each kept token is then read without the
    dropped ones.
    """

    def __init__(self, model: SequenceModel, lanes: int, context_length: int):
        spec, device = model.spec, model.head.weight.device
        self.model, self.length, self.capacity = model, 0, context_length
        self.step = 0  # decisions so far, also those that are forgotten
        self.rewards = torch.tensor(spec.rewards, device=device)
        self.first_gain = sum(reward <= 0 for reward in spec.rewards)  # they ascend
        shape, none = (lanes, context_length + 1), spec.padding_index | {"step": 0}
        self.entries = {
            name: torch.full(shape, value, dtype=torch.int64, device=device)
            for name, value in none.items()
        }
        self.none = none
        self.vectors: EmbeddingCache = {}  # of a frozen model: made at the first decision
        self.cache = model.new_cache(lanes, context_length)
        self.inference_context = model.transformer.inference_context

    def act(self, observation: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Logits [N, A] for the decision at `observation` and `time` (both int64 [N])."""
        refill = self.length == self.capacity
        if refill:
            self._drop_oldest()
        self.length += 1
        for name, value in (("observation", observation), ("time", time), ("step", self.step)):
            self.entries[name][:, self.length] = value
        self.step += 1
        start = 0 if refill or self.length == 1 else self.length - 2
        return self._logits(start)

    def _logits(self, start: int) -> torch.Tensor:
        """Of the newest decision; the cache holds the tokens of those before `start`."""
        with self.model.tokenizer.caching(self.vectors), self.inference_context():
            return self.model(self._part(start), self.cache, start)[:, -1]

    def record(
        self, action: torch.Tensor, reward: torch.Tensor, next_observation: torch.Tensor
    ) -> None:
        """What came of the last decision, each [N]: action, reward, true next observation."""
        with self.inference_context():
            nearest = (reward[:, None] - self.rewards).abs().argmin(1)
            fresh = {"action": action, "reward": nearest, "next_observation": next_observation}
            for name, value in fresh.items():
                self.entries[name][:, self.length] = value

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with `lanes` alone, int64 [M], in this order."""
        self.entries = {name: value[lanes] for name, value in self.entries.items()}
        self.cache.select(lanes)

    def rewarded(self) -> torch.Tensor:
        """Whether there is a reward above 0 in the window or right before it, bool [N]."""
        reward = self.entries["reward"]
        with self.inference_context():
            return ((reward >= self.first_gain) & (reward < self.none["reward"])).any(1)

    def window(self) -> Window:
        """The present window [N, T + 1], T decisions, the last of them still open."""
        return self._part(0)

    def _part(self, start: int) -> Window:
        return {name: value[:, start : self.length + 1] for name, value in self.entries.items()}

    def _drop_oldest(self) -> None:
        kept = self.capacity // 2
        for name, value in self.entries.items():
            # One entry more than decisions: the transition before the first of them.
            value[:, : kept + 1] = value[:, self.length - kept : self.length + 1].clone()
            value[:, kept + 1 :] = self.none[name]
        self.length = kept
        self.cache.reset()
