"""Transitions to tokens: the only place that knows order, shifts and positions.

A window is a dict of integer tensors [B, T + 1]: observation, action, reward (an index),
next_observation, time (in the episode), step (in the history). Entry 0 is the transition before the
window's first decision ("none" where the history begins there, the index behind the last valid
one); entries 1 to T are the decisions. Every token carries the position of its decision
(`ad/models/positions/`), p below.

    fused             decision t: [o_t, p_t, (o, a, r, o')_{t-1}]               T tokens
    separate          o_1 a_1 r_1  o_2 a_2 r_2  ...  o_T                        3 T - 2 tokens
    separate, before  r_0 o_1 a_1  r_1 o_2 a_2  ...  r_{T-1} o_T                3 T - 1 tokens
    modal             o_1 ... o_T  |  a_0 ... a_{T-1}  |  r_0 ... r_{T-1}       3 streams of T

r may hold o' too. In all of them what precedes a decision is what was known then: a reward follows
its action. "Before" is about the reward of the transition before, which then goes with the decision
that it comes ahead of, and shares its position. Streams lie side by side in the batch, those of one
window together (`ad/models/modalities.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ad.config.schema import ModelConfig
from ad.data.spec import Spec
from ad.models.embedding import Lookup, embedding_sum
from ad.registry import ENCODERS, POSITIONS, REWARDS

Window = dict[str, torch.Tensor]
Made = dict[nn.Linear | None, torch.Tensor]  # vectors [S + 1, C] of all observations, by role


class Layout(nn.Module):
    """Embeddings that all layouts share; a subclass puts them in order.

    One encoder serves every role of an observation. As the previous one, and as the one that an
    action led to, its vectors go through a linear map of that role: what is learned of a cell in
    one role holds in the others.
    """

    streams = 1  # of tokens, each in a row of the batch

    def __init__(self, spec: Spec, config: ModelConfig):
        super().__init__()
        width = config.width
        self.encoder = ENCODERS.load(config.encoder)(spec, width)
        self.reached = nn.Linear(width, width, bias=False) if config.next_observation else None
        self.action = nn.Embedding(spec.num_actions + 1, width)
        self.reward = REWARDS.load(config.reward)(spec.rewards, width)
        self.position = POSITIONS.load(config.position)(spec, width, config.positions)
        self._made: Made | None = None

    @contextmanager
    def keeping(self, made: Made) -> Iterator[None]:
        """In the block, vectors of observations come from `made`, or are made and put there.

        Whoever owns `made` answers for weights that stay as they are.
        """
        self._made = made
        try:
            yield
        finally:
            self._made = None

    def count(self, decisions: int) -> int:
        """How many tokens a window of so many decisions has, in each stream."""
        raise NotImplementedError

    def forward(self, window: Window, start: int = 0) -> torch.Tensor:
        """Tokens [B * streams, L, C] of a window [B, T + 1]; `start`: see `positions/`."""
        made = {} if self._made is None else self._made
        return self._tokens(self.encoder.moved(window), start, made)

    def decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of the hidden states [B * streams, L, C] those that decide, [B, T, C]."""
        raise NotImplementedError

    def newest(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of those [B * streams, L, C] of the last tokens the one that decides last, [B, 1, C]."""
        return hidden[:, -1:]

    def _tokens(self, window: Window, start: int, made: Made) -> torch.Tensor:
        raise NotImplementedError

    def _acted(self, window: Window, part: slice) -> list[Lookup]:
        """The action."""
        return [(self.action.weight, window["action"][:, part])]

    def _outcome(self, window: Window, part: slice, made: Made) -> list[Lookup]:
        """Reward and, if it is shown, the observation that the action led to."""
        outcome = [(self.reward(), window["reward"][:, part])]
        if self.reached is not None:
            outcome += self._seen(window["next_observation"][:, part], made, self.reached)
        return outcome

    def _seen(
        self, observation: torch.Tensor, made: Made, role: nn.Linear | None = None
    ) -> list[Lookup]:
        """Observations [B, T] in a role (None: the current one), whose vectors are in `made`."""
        if None not in made:
            made[None] = self.encoder()
        if role not in made:
            made[role] = role(made[None])
        return [(made[role], observation)]


class Fused(Layout):
    """One token a decision: current observation and time, and the whole previous transition."""

    def __init__(self, spec: Spec, config: ModelConfig):
        super().__init__(spec, config)
        self.previous = nn.Linear(config.width, config.width, bias=False)

    def count(self, decisions: int) -> int:
        return decisions

    def _tokens(self, window: Window, start: int, made: Made) -> torch.Tensor:
        before, now = slice(None, -1), slice(1, None)
        return embedding_sum(
            [
                *self._seen(window["observation"][:, now], made),
                *self.position(window, start),
                *self._seen(window["observation"][:, before], made, self.previous),
                *self._acted(window, before),
                *self._outcome(window, before, made),
            ]
        )

    def decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


class Separate(Layout):
    """Three tokens a transition: observation, action, outcome; they share a position."""

    def __init__(self, spec: Spec, config: ModelConfig):
        super().__init__(spec, config)
        self.reward_first = config.reward_token == "before"

    def count(self, decisions: int) -> int:
        return 3 * decisions - self._unknown

    def _tokens(self, window: Window, start: int, made: Made) -> torch.Tensor:
        before, now = slice(None, -1), slice(1, None)
        parts = [
            self._seen(window["observation"][:, now], made),
            self._acted(window, now),
            self._outcome(window, before if self.reward_first else now, made),
        ]
        if self.reward_first:
            parts = [parts[2], *parts[:2]]
        position = self.position(window, start)
        tokens = torch.stack(
            [embedding_sum(part + position) for part in parts], dim=2
        )  # [B, T, 3, C]
        return tokens.flatten(1, 2)[:, : -self._unknown]  # [B, L, C]

    def decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[:, int(self.reward_first) :: 3]

    @property
    def _unknown(self) -> int:
        """Tokens behind the last decision: they decide nothing, and a rollout has none yet."""
        return 1 if self.reward_first else 2


class Modal(Layout):
    """Three streams: at each decision the observation, the last action and what came of it."""

    streams = 3

    def count(self, decisions: int) -> int:
        return decisions

    def _tokens(self, window: Window, start: int, made: Made) -> torch.Tensor:
        before, now = slice(None, -1), slice(1, None)
        parts = (
            self._seen(window["observation"][:, now], made),
            self._acted(window, before),
            self._outcome(window, before, made),
        )
        position = self.position(window, start)
        tokens = torch.stack([embedding_sum(part + position) for part in parts], dim=1)
        return tokens.flatten(0, 1)  # [3 B, T, C]

    def decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[:: self.streams]

    def newest(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.decisions(hidden)[:, -1:]
