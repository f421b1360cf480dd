"""The policy of a frozen model whose context holds whole episodes only."""

import torch

from ad.methods.episode_policy import EpisodePolicy


class CommittedPolicy(EpisodePolicy):
    """Action logits for N environments in lockstep, each from its episodes before the present one.

    The window of an environment holds the newest transitions of its past episodes, at most
    `context_length - 1`, and the present decision after them. The transitions of an episode enter
    it when the episode ends. Each decision is a forward pass over its window: a cache would keep
    the present decision, which the next one replaces.
    """

    def __init__(self, model, num_envs: int, context_length: int):
        super().__init__(model, num_envs, context_length)
        self.length += 1  # the entry of the present decision
        self.begun = torch.zeros_like(self.length)  # decisions before the present episode
        # The newest transitions of the present episode, [N, context_length], the last at the end.
        self.episode = {name: value[:, 1:].clone() for name, value in self.fields.items()}

    def enter(self, observation, time: torch.Tensor) -> None:
        """Write the decision at `observation` and `time`, int64 [N], after the past episodes."""
        self._write(time=time, step=self.begun, valid=True, **self.inputs())
        self._write_observation("observation", observation)

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Keep the outcome of the last decision; add the episodes that have ended to the context.

        `next_observation` is the true one, also at the end of an episode.
        """
        self._write(action=action, reward=reward, step=self.step)
        self._write_observation("next_observation", next_observation)
        self.step += 1
        envs = torch.arange(len(self.length), device=self.device)
        for name, value in self.fields.items():
            newest = value[envs, self.length][:, None]
            self.episode[name] = torch.cat([self.episode[name][:, 1:], newest], 1)
        self._write(**self.padding)
        self._add_episodes(torch.nonzero(terminated | truncated)[:, 0])

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.begun = self.begun[envs]
        self.episode = {name: value[envs] for name, value in self.episode.items()}

    def _new_cache(self, num_envs: int) -> None:
        """Return None: no keys are kept."""

    def _add_episodes(self, ended: torch.Tensor) -> None:
        """Add the present episodes of the environments `ended`, int64 [M], to their contexts."""
        past = {name: value[ended, 1:] for name, value in self.fields.items()}
        both = {name: torch.cat([past[name], self.episode[name][ended]], 1) for name in past}
        valid = both["valid"]
        newest_last = valid.long().argsort(dim=1, stable=True)
        kept = newest_last[:, self.capacity + 1 :]
        absent = ~valid.gather(1, kept)
        order = kept.gather(1, absent.long().argsort(dim=1, stable=True))  # absent ones last
        rows = torch.arange(len(ended), device=self.device)[:, None]
        for name, value in both.items():
            self.fields[name][ended, 1 : self.capacity] = value[rows, order]
            self.episode[name][ended] = self.padding[name]
        self.length[ended] = (~absent).sum(1) + 1
        self.begun[ended] = self.step
