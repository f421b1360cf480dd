"""The policies of a model that is asked for a return, in the present episode or across episodes."""

from collections.abc import Sequence
from functools import cache

import torch

from ad.errors import ConfigError
from ad.methods.context_policy import ContextPolicy
from ad.methods.episode_policy import EpisodePolicy
from ad.models.sequence_model import SequenceModel
from ad.runtime.console import warn


class Asked(ContextPolicy):
    """A ContextPolicy whose model reads the return that is still asked for in the episode.

    `asked_return` is a number or one for each environment, None for the highest return in the
    histories. Raises ConfigError unless all are finite, and warns of those beyond the histories.
    """

    def __init__(
        self,
        model: SequenceModel,
        num_envs: int,
        context_length: int,
        asked_return: float | Sequence[float] | None = None,
    ):
        super().__init__(model, num_envs, context_length)
        low, high = model.spec.return_range
        try:
            asked = torch.tensor(high if asked_return is None else asked_return).float()
            self.asked = asked.to(self.device).expand(num_envs).clone()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"asked_return must be a number or one for each environment, not {asked_return!r}"
            ) from error
        if not self.asked.isfinite().all():
            raise ConfigError(f"asked_return must be finite, not {asked_return!r}")
        for value in asked.unique().tolist():
            _check_range(value, low, high)
        self.left = self.asked.clone()

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the return that is still asked for, [N]."""
        return {"return_to_go": self.left}

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Subtract the reward from what is asked for; ask anew after an episode's end."""
        super().observe(action, reward, terminated, truncated, next_observation)
        self.left = torch.where(terminated | truncated, self.asked, self.left - reward.float())

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.asked, self.left = self.asked[envs], self.left[envs]


class AskedPolicy(Asked, EpisodePolicy):
    """An EpisodePolicy that is asked for a return."""


class AskedContextPolicy(Asked):
    """A ContextPolicy that is asked for a return in each episode, and remembers what it achieved.

    The returns to go of an episode in the context are what is asked for as long as the episode
    lasts, and what was achieved after its end: a training window shows the latter of episodes that
    are over. Where both differ, the keys of all later tokens change, so that the cache is filled
    again.
    """

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Add the outcome of the last decision; write down what the episodes achieved that end."""
        self._write_achieved(self.left - reward.float(), terminated | truncated)
        super().observe(action, reward, terminated, truncated, next_observation)

    def _write_achieved(self, missing: torch.Tensor, ended: torch.Tensor) -> None:
        """Subtract `missing`, float32 [N], in the present episodes that have `ended`, bool [N]."""
        missing = missing.where(ended, 0)
        if missing.any():
            time, step = (self.fields[name] for name in ("time", "step"))
            start = step[:, self.length] - time[:, self.length]
            present = self.fields["valid"] & (step >= start[:, None])
            self.fields["return_to_go"] -= missing[:, None] * present
            self.cache.reset()


@cache  # a warning is printed once
def _check_range(asked: float, low: float, high: float) -> None:
    """Warn if `asked` is beyond the returns of the histories, `low` to `high`."""
    slack = 1e-4 * max(abs(low), abs(high))  # of sums of float32
    if not low - slack <= asked <= high + slack:
        warn(
            f"the asked return {asked:g} is beyond those in the histories, {low:g} to {high:g}: "
            "the model was never shown what leads to it"
        )
