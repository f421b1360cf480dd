"""The interface of policies, which act in rollouts of many environments in lockstep."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from ad.methods.contexts import Context

Observation = torch.Tensor | dict[str, torch.Tensor]  # [N, ...], by part unless undivided


def as_tensor(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on `device`; torch lacks the wider unsigned integers."""
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        values = values.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def observation_tensors(parts: Mapping[str, np.ndarray], device: torch.device) -> Observation:
    """Return the `parts` of observations as a tensor on `device` or, for a Dict space, a dict."""
    tensors = {name: as_tensor(values, device) for name, values in parts.items()}
    return tensors.get("", tensors)


class Policy:
    """A policy of a rollout of N environments, with a context or without one.

    Tensors are on `device`. A policy that `looks_ahead` reads predictions of its own, too. The
    `context` is what a sequence model reads of the past (`ad.methods.contexts`), None without one.
    """

    device = torch.device("cpu")
    looks_ahead = False
    context: "Context | None" = None

    @abstractmethod
    def act(self, observation: Observation, time: torch.Tensor) -> torch.Tensor:
        """Return action logits [N, A] at `observation` and the `time` in the episode, int64 [N]."""
        raise NotImplementedError

    @abstractmethod
    def observe(
        self,
        action: torch.Tensor,
        reward: torch.Tensor,
        terminated: torch.Tensor,
        truncated: torch.Tensor,
        next_observation: Observation,
    ) -> None:
        """Take note of the outcome of the last decision, [N, ...] each.

        `next_observation` is the true one, also at the end of an episode.
        """
        raise NotImplementedError

    @abstractmethod
    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        raise NotImplementedError

    def reward_in_context(self) -> torch.Tensor | None:
        """Return whether the context holds a reward above 0, bool [N]; None without a context."""
        return None

    def set_action_mask(self, mask: torch.Tensor) -> None:
        """Plan with the actions in `mask` alone, bool [N, A]; for a policy that looks ahead.

        It is called before the first decision if some tasks lack actions.
        """


class PolicyWrapper(Policy):
    """A policy that acts as `policy` does unless a subclass overrides it."""

    def __init__(self, policy: Policy):
        self.policy, self.device = policy, policy.device

    def act(self, observation: Observation, time: torch.Tensor) -> torch.Tensor:
        """Return action logits [N, A] at `observation` and the `time` in the episode, int64 [N]."""
        return self.policy.act(observation, time)

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Take note of the outcome of the last decision, [N, ...] each."""
        self.policy.observe(action, reward, terminated, truncated, next_observation)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.policy.select(envs)

    def reward_in_context(self) -> torch.Tensor | None:
        """Return whether the context holds a reward above 0, bool [N]; None without a context."""
        return self.policy.reward_in_context()

    def set_action_mask(self, mask: torch.Tensor) -> None:
        """Plan with the actions in `mask` alone, bool [N, A]."""
        self.policy.set_action_mask(mask)
