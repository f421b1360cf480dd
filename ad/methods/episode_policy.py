"""The policy of a frozen model whose context is the present episode alone."""

import torch

from ad.methods.context_policy import ContextPolicy
from ad.models.tokenizer import Window


class EpisodePolicy(ContextPolicy):
    """Action logits for N environments in lockstep, each from the last decisions of its episode.

    The window of an environment begins at its episode's first decision, or `context_length`
    decisions ago: what a training window within an episode shows at that decision, at the same
    positions. As long as all windows have the same number of decisions and none slides, a cache
    keeps their keys. Where episodes end at different times, each decision is a forward pass over
    its window. The cache is exact, so that logits do not depend on the other environments.
    """

    def __init__(self, model, num_envs: int, context_length: int):
        super().__init__(model, num_envs, context_length)
        self.cache = model.new_cache(num_envs, context_length, exact=True)
        self.cached = 0  # first decisions of all windows, whose tokens are in the cache
        self.length = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return logits [N, A] for the decision at `observation` and `time`, int64 [N]."""
        self.enter(observation, time)
        return self._logits()

    def enter(self, observation, time: torch.Tensor) -> None:
        """Add the decision at `observation` and `time`, int64 [N], to the context."""
        with self.inference_context():
            self._slide(self.length == self.capacity)
            self.length += 1
            self._write(**self.padding)
            self._write(time=time, step=time, valid=True, **self.inputs())
            self._write_observation("observation", observation)

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Add the outcome of the last decision; forget the episodes that have ended."""
        super().observe(action, reward, terminated, truncated, next_observation)
        ended = terminated | truncated
        for name, value in self.fields.items():
            value[ended] = self.padding[name]
        self.length[ended] = 0
        if ended.any():
            self._reset_cache()

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.fields = {name: value[envs] for name, value in self.fields.items()}
        self.length = self.length[envs]
        self.cache.select(envs)

    def window(self) -> Window:
        """Return the windows [N, T + 1], T the longest: `valid` ends with each one's decisions."""
        longest = int(self.length.max())
        return {name: value[:, : longest + 1] for name, value in self.fields.items()}

    def _logits(self) -> torch.Tensor:
        longest = int(self.length.max())
        if (self.length < longest).any():
            return self._uncached_logits()
        if self.cached < longest - 1:  # decisions without logits came between
            self._reset_cache()
        # The decision before has its outcome now, which is not in the cache yet.
        start = longest - 2 if self.cached else 0
        self.cached = longest
        window = {name: value[:, start:] for name, value in self.window().items()}
        with self.model.tokenizer.caching(self.tables), self.inference_context():
            return self.model(window, self.cache, start)[:, -1]

    def _uncached_logits(self) -> torch.Tensor:
        with self.model.tokenizer.caching(self.tables), self.inference_context():
            logits = self.model(self.window())  # [N, T, A]
        return logits[torch.arange(len(logits), device=self.device), self.length - 1]

    def _reset_cache(self) -> None:
        self.cache.reset()
        self.cached = 0

    def _slide(self, full: torch.Tensor) -> None:
        """Forget the oldest entry of the windows `full`, bool [N]."""
        if full.any():
            for value in self.fields.values():
                value[full, :-1] = value[full, 1:]
            self.length -= full.long()
            self._reset_cache()

    def _write(self, **values) -> None:
        """Set fields of the last decision, each to a number or a tensor [N]."""
        envs = torch.arange(len(self.length), device=self.device)
        for name, value in values.items():
            field = self.fields[name]
            field[envs, self.length] = torch.as_tensor(value, dtype=field.dtype, device=self.device)
