"""Transitions to tokens: the only place that knows order, shifts and positions.

A window is a dict of integer tensors [B, T + 1]: observation, action, reward (an index),
next_observation, time. Entry 0 is the transition before the window's first decision ("none" where
the history begins there, the index behind the last valid one); entries 1 to T are the decisions.
Every token carries the time in the episode of its transition (env-time positional encoding), from
the world.

    fused      decision t:  [o_t, time_t, (o, a, r, o')_{t-1}]                        T tokens
    separate   o_1 a_1 r_1  o_2 a_2 r_2  ...  o_T (r may hold o' too)  3 T - 2 tokens

In both, what precedes a decision is what was known then: a reward follows its action.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ad.encoders import ENCODERS

Window = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Spec:
    """What a model must know of a world: sizes, not tasks."""

    num_observations: int
    observation_factors: tuple[int, ...]
    num_actions: int
    rewards: tuple[float, ...]  # the values that the reward table knows, ascending
    episode_length: int

    @property
    def none(self) -> dict[str, int]:
        """For each field of a window the index that means "nothing yet"."""
        return {
            "observation": self.num_observations,
            "action": self.num_actions,
            "reward": len(self.rewards),
            "next_observation": self.num_observations,
            "time": 0,
        }


class Layout(nn.Module):
    """Embeddings that both layouts share; a subclass puts them in order.

    One encoder serves every role of an observation. As the previous one, and as the one that an
    action led to, its vectors go through a linear map of that role: what is learned of a cell in
    one role holds in the others.
    """

    def __init__(self, spec: Spec, encoder: str, width: int, next_observation: bool):
        super().__init__()
        self.encoder = ENCODERS.load(encoder)(spec, width)
        self.reached = nn.Linear(width, width, bias=False) if next_observation else None
        self.action = nn.Embedding(spec.num_actions + 1, width)
        self.reward = nn.Embedding(len(spec.rewards) + 1, width)
        self.time = nn.Embedding(spec.episode_length, width)

    def count(self, decisions: int) -> int:
        """How many tokens a window of so many decisions has."""
        raise NotImplementedError

    def forward(self, window: Window) -> torch.Tensor:
        """Tokens [B, L, C] of a window [B, T + 1]."""
        raise NotImplementedError

    def decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of the hidden states [B, L, C] those that decide, [B, T, C]."""
        raise NotImplementedError

    def _outcome(self, window: Window, part: slice) -> torch.Tensor:
        """Reward and, if it is shown, the observation that the action led to."""
        outcome = self.reward(window["reward"][:, part])
        if self.reached is None:
            return outcome
        return outcome + self._encode(window["next_observation"][:, part], self.reached)

    def _encode(self, observation: torch.Tensor, role: nn.Linear | None = None) -> torch.Tensor:
        """Vectors [B, T, C] of observations [B, T] in a role (None: the current one)."""
        vectors = self.encoder()
        return F.embedding(observation, vectors if role is None else role(vectors))


class Fused(Layout):
    """One token a decision: current observation and time, and the whole previous transition."""

    def __init__(self, spec: Spec, encoder: str, width: int, next_observation: bool):
        super().__init__(spec, encoder, width, next_observation)
        self.previous = nn.Linear(width, width, bias=False)

    def count(self, decisions: int) -> int:
        return decisions

    def forward(self, window: Window) -> torch.Tensor:
        before, now = slice(None, -1), slice(1, None)
        return (
            self._encode(window["observation"][:, now])
            + self.time(window["time"][:, now])
            + self._encode(window["observation"][:, before], self.previous)
            + self.action(window["action"][:, before])
            + self._outcome(window, before)
        )

    def decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


class Separate(Layout):
    """Three tokens a transition: observation, action, outcome; they share the transition's time."""

    def count(self, decisions: int) -> int:
        return 3 * decisions - 2

    def forward(self, window: Window) -> torch.Tensor:
        now = slice(1, None)
        parts = (
            self._encode(window["observation"][:, now]),
            self.action(window["action"][:, now]),
            self._outcome(window, now),
        )
        time = self.time(window["time"][:, now])
        tokens = torch.stack([part + time for part in parts], dim=2)  # [B, T, 3, C]
        # The last action and outcome decide nothing, and in a rollout they are not known yet.
        return tokens.flatten(1, 2)[:, :-2]  # [B, 3 T - 2, C]

    def decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[:, ::3]


LAYOUTS = {"fused": Fused, "separate": Separate}
