"""The policy of a frozen model in a rollout, with its context: the last transitions."""

import torch

from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import EmbeddingCache, Window


class ContextPolicy:
    """Action logits for N environments in lockstep, from the window of each.

    The logits are those of a full forward pass over the window, but for the rounding of a backend's
    cache. When the window of `context_length` decisions is full, its oldest half is dropped and
    the cache is filled again from the rest, since the keys of every layer depend on what was
    dropped.
    """

    def __init__(self, model: SequenceModel, num_envs: int, context_length: int):
        spec, device = model.spec, model.head.weight.device
        self.model, self.length, self.capacity = model, 0, context_length
        self.step = 0  # decisions so far, also dropped ones
        self.rewards = torch.tensor(spec.rewards, device=device)
        self.first_positive = sum(reward <= 0 for reward in spec.rewards)  # index; they ascend
        shape = num_envs, context_length + 1  # a transition, then the decisions after it
        self.padding_index = spec.padding_index | {"step": 0}
        self.fields = {
            name: torch.full(shape, value, dtype=torch.int64, device=device)
            for name, value in self.padding_index.items()
        }
        self.embeddings: EmbeddingCache = {}  # computed at the first decision: the model is frozen
        self.cache = model.new_cache(num_envs, context_length)
        self.inference_context = model.transformer.inference_context

    def act(self, observation: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Return logits [N, A] for the decision at `observation` and `time`, both int64 [N]."""
        refill = self.length == self.capacity
        if refill:
            self._drop_oldest()
        self.length += 1
        for name, value in (("observation", observation), ("time", time), ("step", self.step)):
            self.fields[name][:, self.length] = value
        self.step += 1
        # The decision before has its outcome now, which is not in the cache yet.
        start = 0 if refill or self.length == 1 else self.length - 2
        return self._logits(start)

    def _logits(self, start: int) -> torch.Tensor:
        """Return the logits of the last decision from the window's part that begins at `start`."""
        with self.model.tokenizer.caching(self.embeddings), self.inference_context():
            return self.model(self._window_from(start), self.cache, start)[:, -1]

    def observe(
        self, action: torch.Tensor, reward: torch.Tensor, next_observation: torch.Tensor
    ) -> None:
        """Add the outcome of the last decision, [N] each; rewards become their nearest index.

        `next_observation` is the true one, also at the end of an episode.
        """
        with self.inference_context():
            nearest = (reward[:, None] - self.rewards).abs().argmin(1)
            outcome = {"action": action, "reward": nearest, "next_observation": next_observation}
            for name, value in outcome.items():
                self.fields[name][:, self.length] = value

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order."""
        self.fields = {name: value[envs] for name, value in self.fields.items()}
        self.cache.select(envs)

    def reward_in_context(self) -> torch.Tensor:
        """Return whether a reward above 0 is in the window or right before it, bool [N]."""
        reward, padding = self.fields["reward"], self.padding_index["reward"]
        with self.inference_context():
            return ((reward >= self.first_positive) & (reward < padding)).any(1)

    def window(self) -> Window:
        """Return the window [N, T + 1] of T decisions; the last one has no outcome yet."""
        return self._window_from(0)

    def _window_from(self, start: int) -> Window:
        return {name: value[:, start : self.length + 1] for name, value in self.fields.items()}

    def _drop_oldest(self) -> None:
        kept = self.capacity // 2  # decisions
        for name, value in self.fields.items():
            # The transition before the first kept decision stays too.
            value[:, : kept + 1] = value[:, self.length - kept : self.length + 1].clone()
            value[:, kept + 1 :] = self.padding_index[name]
        self.length = kept
        self.cache.reset()
