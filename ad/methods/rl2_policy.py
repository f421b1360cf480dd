"""The recurrent policy of RL² in a rollout, which is one trial in each environment."""

import torch
from torch import nn

from ad.data.spec import Spec
from ad.methods.policy import Policy
from ad.methods.rl2_trials import ACTION, ENDED, REWARD, named, trial_parts
from ad.sources.sb3.policies import Player, Spaces


class RecurrentModel(nn.Module):
    """A recurrent policy of sb3-contrib for the spaces of `spec`, as checkpoints hold it."""

    def __init__(self, spec: Spec, policy: nn.Module):
        super().__init__()
        self.spec, self.policy = spec, policy


class TrialPolicy(Policy):
    """Action logits for N environments in lockstep, whose recurrent state lasts for the rollout.

    The ends of episodes do not reset it; the policy reads them, the previous action and reward. It
    runs on the CPU with one thread, on which its bits do not depend.
    """

    def __init__(self, model: RecurrentModel, num_envs: int):
        spec = model.spec
        parts = trial_parts(spec.observation, spec.num_actions)
        self.player = Player(model.policy.cpu(), Spaces(1, parts, spec.num_actions), num_envs)
        self.previous = {
            ACTION: torch.full((num_envs,), spec.num_actions),
            REWARD: torch.zeros(num_envs),
            ENDED: torch.zeros(num_envs, dtype=torch.bool),
        }
        self.reward_seen = torch.zeros(num_envs, dtype=torch.bool)  # a reward above 0

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return logits [N, A], float64, at `observation`; the `time` is not read."""
        parts = observation if isinstance(observation, dict) else {"": observation}
        inputs = {name: values.numpy() for name, values in (named(parts) | self.previous).items()}
        begins = torch.zeros(len(self.reward_seen), dtype=torch.bool).numpy()
        return torch.from_numpy(self.player(inputs, begins))

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Take note of the outcome of the last decision, [N, ...] each.

        The policy never reads `next_observation` where an episode ends, in training neither.
        """
        self.previous = {ACTION: action, REWARD: reward, ENDED: terminated | truncated}
        self.reward_seen = self.reward_seen | (reward > 0)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.player.memory = self.player.memory[:, :, envs.numpy()]
        self.previous = {name: values[envs] for name, values in self.previous.items()}
        self.reward_seen = self.reward_seen[envs]

    def reward_in_context(self) -> torch.Tensor:
        """Return whether a reward above 0 has come in this rollout, bool [N]."""
        return self.reward_seen
