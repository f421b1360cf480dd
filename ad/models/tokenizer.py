"""Transitions to tokens: the only place that knows their order, shifts and positions.

A window is a dict of integer tensors [B, T + 1]: observation, action, reward (an index),
next_observation, time (in the episode), step (in the history). Entry 0 is the transition before the
window's first decision (`Spec.padding_index` where the history begins there); entries 1 to T are
the decisions. Every token carries the position p of its decision (`positions/`).

    fused             decision t: [o_t, p_t, (o, a, r, o')_{t-1}]               T tokens
    separate          o_1 a_1 r_1  o_2 a_2 r_2  ...  o_T                        3 T - 2 tokens
    separate, before  r_0 o_1 a_1  r_1 o_2 a_2  ...  r_{T-1} o_T                3 T - 1 tokens
    modal             o_1 ... o_T  |  a_0 ... a_{T-1}  |  r_0 ... r_{T-1}       3 streams of T

A token of r may hold o' too. In every order a decision is preceded only by what was known then: a
reward follows its action. With `reward_token: before` each decision is preceded by the reward of
the transition before it, which shares its position (Chen et al. 2021 put returns there). The
streams of one window are adjacent in the batch (`attention.py`).
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
# Vectors [S + 1, C] of all observations, by the projection of their role (None: no projection).
EmbeddingCache = dict[nn.Linear | None, torch.Tensor]

PREVIOUS, CURRENT = slice(None, -1), slice(1, None)  # entries of a window, for each decision


class Tokenizer(nn.Module):
    """Embeddings of observations, actions and rewards; a subclass puts them in order.

    One encoder serves every role of an observation. The previous observation, and the one that an
    action led to, are projected by a linear map of that role, so that what is learned of an
    observation in one role holds in the others.
    """

    streams = 1  # parallel sequences of tokens, each a row of the batch

    def __init__(self, spec: Spec, config: ModelConfig):
        super().__init__()
        width = config.width
        self.encoder = ENCODERS.load(config.encoder)(spec, width)
        self.next_obs_proj = (
            nn.Linear(width, width, bias=False) if config.next_observation else None
        )
        self.action = nn.Embedding(spec.num_actions + 1, width)
        self.reward = REWARDS.load(config.reward)(spec.rewards, width)
        self.position = POSITIONS.load(config.position)(spec, width, config.positions)
        self._cache: EmbeddingCache | None = None

    @contextmanager
    def caching(self, cache: EmbeddingCache) -> Iterator[None]:
        """Take the vectors of observations from `cache` in the block, or put them there.

        The caller keeps a cache only as long as the weights do not change.
        """
        self._cache = cache
        try:
            yield
        finally:
            self._cache = None

    def num_tokens(self, num_decisions: int) -> int:
        """Return how many tokens a window of `num_decisions` decisions has in each stream."""
        raise NotImplementedError

    def forward(self, window: Window, start: int = 0) -> torch.Tensor:
        """Return the tokens [B * streams, L, C] of a window [B, T + 1].

        `start` is the number of the first decision where `window` is the end of a longer one.
        """
        cache = {} if self._cache is None else self._cache
        return self._tokens(self.encoder.augment(window), start, cache)

    def at_decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden states [B, T, C] that predict an action, of all [B * streams, L, C]."""
        raise NotImplementedError

    def at_last_decision(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden state [B, 1, C] of the last decision, of the last tokens' states."""
        return hidden[:, -1:]

    def _tokens(self, window: Window, start: int, cache: EmbeddingCache) -> torch.Tensor:
        raise NotImplementedError

    def _embed_action(self, window: Window, part: slice) -> list[Lookup]:
        return [(self.action.weight, window["action"][:, part])]

    def _embed_outcome(self, window: Window, part: slice, cache: EmbeddingCache) -> list[Lookup]:
        """Embed the reward and, if configured, the observation that the action led to."""
        outcome = [(self.reward(), window["reward"][:, part])]
        if self.next_obs_proj is not None:
            observation = window["next_observation"][:, part]
            outcome += self._embed_observation(observation, cache, self.next_obs_proj)
        return outcome

    def _embed_observation(
        self,
        observation: torch.Tensor,
        cache: EmbeddingCache,
        projection: nn.Linear | None = None,
    ) -> list[Lookup]:
        """Embed observations [B, T] in the role of `projection` (None: the current one)."""
        if None not in cache:
            cache[None] = self.encoder()
        if projection not in cache:
            cache[projection] = projection(cache[None])
        return [(cache[projection], observation)]


class FusedTokens(Tokenizer):
    """One token a decision: the current observation and the whole previous transition."""

    def __init__(self, spec: Spec, config: ModelConfig):
        super().__init__(spec, config)
        self.prev_obs_proj = nn.Linear(config.width, config.width, bias=False)

    def num_tokens(self, num_decisions: int) -> int:
        """Return `num_decisions`."""
        return num_decisions

    def at_decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return `hidden`: every token predicts an action."""
        return hidden

    def _tokens(self, window: Window, start: int, cache: EmbeddingCache) -> torch.Tensor:
        observation = window["observation"]
        return embedding_sum(
            [
                *self._embed_observation(observation[:, CURRENT], cache),
                *self.position(window, start),
                *self._embed_observation(observation[:, PREVIOUS], cache, self.prev_obs_proj),
                *self._embed_action(window, PREVIOUS),
                *self._embed_outcome(window, PREVIOUS, cache),
            ]
        )


class InterleavedTokens(Tokenizer):
    """Three tokens a transition, observation, action and outcome, which share a position."""

    def __init__(self, spec: Spec, config: ModelConfig):
        super().__init__(spec, config)
        self.reward_first = config.reward_token == "before"

    def num_tokens(self, num_decisions: int) -> int:
        """Return three times `num_decisions`, without the tokens after the last decision."""
        return 3 * num_decisions - self._num_after

    def at_decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return every third hidden state, those of the observations."""
        return hidden[:, int(self.reward_first) :: 3]

    def _tokens(self, window: Window, start: int, cache: EmbeddingCache) -> torch.Tensor:
        parts = [
            self._embed_observation(window["observation"][:, CURRENT], cache),
            self._embed_action(window, CURRENT),
            self._embed_outcome(window, PREVIOUS if self.reward_first else CURRENT, cache),
        ]
        if self.reward_first:
            parts = [parts[2], *parts[:2]]
        position = self.position(window, start)
        sums = [embedding_sum(part + position) for part in parts]
        tokens = torch.stack(sums, dim=2)  # [B, T, 3, C]
        return tokens.flatten(1, 2)[:, : -self._num_after]  # [B, L, C]

    @property
    def _num_after(self) -> int:
        """The number of tokens after the last decision, which a rollout does not know yet."""
        return 1 if self.reward_first else 2


class ParallelStreams(Tokenizer):
    """Three streams of tokens: the observation, the last action and its outcome at a decision."""

    streams = 3

    def num_tokens(self, num_decisions: int) -> int:
        """Return `num_decisions`."""
        return num_decisions

    def at_decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of the stream of observations."""
        return hidden[:: self.streams]

    def at_last_decision(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the last hidden state of the stream of observations."""
        return self.at_decisions(hidden)[:, -1:]

    def _tokens(self, window: Window, start: int, cache: EmbeddingCache) -> torch.Tensor:
        parts = (
            self._embed_observation(window["observation"][:, CURRENT], cache),
            self._embed_action(window, PREVIOUS),
            self._embed_outcome(window, PREVIOUS, cache),
        )
        position = self.position(window, start)
        tokens = torch.stack([embedding_sum(part + position) for part in parts], dim=1)
        return tokens.flatten(0, 1)  # [3 B, T, C]
