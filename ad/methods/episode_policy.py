"""The policy of a frozen model whose context is the present episode alone."""

import torch

from ad.methods.context_policy import ContextPolicy
from ad.models.tokenizer import Window


class EpisodePolicy(ContextPolicy):
    """Action logits for N environments in lockstep, each from the last decisions of its episode.

    The window of an environment begins at its episode's first decision, or `context_length`
    decisions ago: what a training window within an episode shows at that decision, at the same
    positions. If the episodes of the histories fit into the window, a cache keeps the keys of an
    episode's decisions. It is not used with parallel streams, nor while an environment has
    decisions that were entered without logits, a window that slid, or an episode that is longer
    than those of the histories: a decision is then a forward pass over the windows.
    """

    def __init__(self, model, num_envs: int, context_length: int):
        super().__init__(model, num_envs, context_length)
        self.length = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        # Decisions whose tokens are in the cache; -1 for a window that slid.
        self.cached = self.length.clone()

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return logits [N, A] for the decision at `observation` and `time`, int64 [N]."""
        self.enter(observation, time)
        return self._logits()

    def enter(self, observation, time: torch.Tensor) -> None:
        """Add the decision at `observation` and `time`, int64 [N], to the context."""
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
        self.length[ended] = self.cached[ended] = 0
        if self.cache is not None:
            self.cache.begin(ended)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.fields = {name: value[envs] for name, value in self.fields.items()}
        self.length, self.cached = self.length[envs], self.cached[envs]
        if self.cache is not None:
            self.cache.select(envs)

    def window(self) -> Window:
        """Return the windows [N, T + 1], T the longest: `valid` ends with each one's decisions."""
        longest = int(self.length.max())
        return {name: value[:, : longest + 1] for name, value in self.fields.items()}

    def _logits(self) -> torch.Tensor:
        if self.cache is None or not self._follows_the_cache():
            return self._uncached_logits()
        self.cached = self.length.clone()
        # The decision before has its outcome now, which is not in the cache yet.
        start = self.length[:, None] - 2
        entries = (start + torch.arange(3, device=self.device)).clamp(min=0)
        envs = torch.arange(len(entries), device=self.device)[:, None]
        window = {name: value[envs, entries] for name, value in self.fields.items()}
        with self.model.tokenizer.caching(self.tables):
            return self.model(window, self.cache, start)[:, -1]

    def _follows_the_cache(self) -> bool:
        """Return whether the present decisions are the next ones of a cache that has room."""
        follows = self.cached + 1 == self.length
        return bool((follows & (self.length <= self.model.spec.episode_length)).all())

    def _new_cache(self, num_envs: int):
        """Return an empty cache for an episode, None if there is no use for one."""
        longest = self.model.spec.episode_length
        if longest > self.capacity or self.model.tokenizer.streams > 1:
            return None
        return self.model.new_episode_cache(num_envs, longest)

    def _uncached_logits(self) -> torch.Tensor:
        with self.model.tokenizer.caching(self.tables):
            logits = self.model(self.window())  # [N, T, A]
        return logits[torch.arange(len(logits), device=self.device), self.length - 1]

    def _slide(self, full: torch.Tensor) -> None:
        """Forget the oldest entry of the windows `full`, bool [N]."""
        if full.any():
            for value in self.fields.values():
                value[full, :-1] = value[full, 1:]
            self.length -= full.long()
            self.cached[full] = -1  # every key depends on the decision that was dropped

    def _write(self, **values) -> None:
        """Set fields of the last decision, each to a number or a tensor [N]."""
        envs = torch.arange(len(self.length), device=self.device)
        for name, value in values.items():
            field = self.fields[name]
            field[envs, self.length] = torch.as_tensor(value, dtype=field.dtype, device=self.device)
