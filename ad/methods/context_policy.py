"""The policies of a frozen sequence model in a rollout."""

from collections.abc import Sequence
from functools import cache
from typing import Generic, TypeVar

import torch

from ad.errors import ConfigError
from ad.methods.contexts import Context
from ad.methods.policy import Observation, Policy
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import Window
from ad.runtime.console import warn

Model = TypeVar("Model", bound=SequenceModel)


class ContextPolicy(Policy, Generic[Model]):
    """Action logits for N environments in lockstep, from what the `context` keeps of the past.

    The logits are those of a full forward pass over the window of each environment. Raises
    ConfigError if the model has further inputs and the class does not give them.
    """

    context: Context  # ty: ignore[incompatible-mutable-override] a policy keeps the one it has

    def __init__(self, model: Model, context: Context):
        if model.tokenizer.inputs and type(self).inputs is ContextPolicy.inputs:
            names = ", ".join(model.tokenizer.inputs)
            raise ConfigError(
                f"the model reads {names}, which {type(self).__name__} does not give: a subclass "
                "gives it in inputs()"
            )
        self.model, self.context, self.device = model, context, context.device

    def act(self, observation: Observation, time: torch.Tensor) -> torch.Tensor:
        """Return logits [N, A] for the decision at `observation` and `time`, int64 [N]."""
        self.enter(observation, time)
        return self.model.logits(self.context.hidden())

    def enter(self, observation: Observation, time: torch.Tensor) -> None:
        """Add the decision at `observation` and `time`, int64 [N], to the context, without logits.

        A given past is read faster with this than with `act`.
        """
        self.context.enter(observation, time, self.inputs())

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the model's further inputs for the present decision, [N] each, by name.

        A subclass overrides it for a model that has some.
        """
        return {}

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Add the outcome of the last decision, [N, ...] each.

        `next_observation` is the true one, also at the end of an episode.
        """
        token = self.context_reward(reward)
        self.context.observe(action, token, terminated, truncated, next_observation)

    def context_reward(self, reward: torch.Tensor) -> torch.Tensor:
        """Return what the context tells in place of the rewards [N] of the last decision, [N].

        It is the rewards themselves unless a subclass overrides it.
        """
        return reward

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.context.select(envs)

    def reward_in_context(self) -> torch.Tensor | None:
        """Return whether a reward above 0 is in the context, bool [N]; None within episodes."""
        return self.context.reward_seen() if self.context.spans_episodes else None

    def window(self) -> Window:
        """Return the windows [N, T + 1] of the context."""
        return self.context.window()


class ReturnConditionedPolicy(ContextPolicy):
    """A ContextPolicy whose model reads the return that is left of the target of an episode.

    `target` is a number or one for each environment, None for the histories' `reached_return`;
    `before_reward`, if given, is that of episodes that begin with no reward above 0 in the context.
    The return to go of a past episode in the context is what it achieved, as in a training window.
    Raises ConfigError unless all are finite, and for a model that carries a state; warns of targets
    beyond the histories.
    """

    def __init__(
        self,
        model: SequenceModel,
        context: Context,
        target: float | Sequence[float] | None = None,
        before_reward: float | None = None,
    ):
        super().__init__(model, context)
        if model.carries:  # a state cannot forget the return to go that it has read
            raise ConfigError("training.segments must be 1 with a policy that is asked for returns")
        low, high = model.spec.return_range
        num_envs = len(context.fields["valid"])
        try:
            values = torch.tensor(model.spec.reached_return if target is None else target).float()
            self.target = values.to(self.device).expand(num_envs).clone()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"asked_return must be a number or one for each environment, not {target!r}"
            ) from error
        if not self.target.isfinite().all():
            raise ConfigError(f"asked_return must be finite, not {target!r}")
        before = [] if before_reward is None else [before_reward]
        for value in {*self.target.unique().tolist(), *before}:
            _check_range(value, low, high)
        self.before_reward = before_reward
        self.asked = self._next_target()  # in the present episodes
        self.left = self.asked.clone()

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the return that is left of the target, [N]."""
        return {"return_to_go": self.left}

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Subtract the reward from the return to go; a new episode begins with its target."""
        left, ended = self.left - reward.float(), terminated | truncated
        if (missed := left.where(ended, 0)).any():
            self.context.add_to_episode("return_to_go", -missed)
        super().observe(action, reward, terminated, truncated, next_observation)
        self.asked = self._next_target().where(ended, self.asked)
        self.left = self.asked.where(ended, left)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.target, self.asked, self.left = (x[envs] for x in (self.target, self.asked, self.left))

    def _next_target(self) -> torch.Tensor:
        """Return the targets of episodes that begin now, float32 [N]."""
        if self.before_reward is None:
            return self.target
        return self.target.where(self.context.reward_seen(), self.before_reward)


@cache  # a warning is printed once
def _check_range(target: float, low: float, high: float) -> None:
    """Warn if `target` is beyond the returns of the histories, `low` to `high`."""
    slack = 1e-4 * max(abs(low), abs(high))  # of sums of float32
    if not low - slack <= target <= high + slack:
        warn(
            f"the asked return {target:g} is beyond the returns of the histories, {low:g} to "
            f"{high:g}: the model never read what leads to it"
        )
