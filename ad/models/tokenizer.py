"""Transitions to tokens: the only place that knows their order, shifts and positions.

A window is a dict of tensors [B, T + 1, ...]: the parts of observation and next_observation,
action, reward, time (in the episode), step (in the sequence that windows are cut from) and valid.
Entry 0 is the transition before the window's first decision; where the history begins there, it
holds `Spec.padding` and is not valid. Entries 1 to T are the decisions. Every token carries the
position p of its decision (`positions.py`).

    fused             decision t: [o_t, p_t, (o, a, r, o')_{t-1}]               T tokens
    separate          o_1 a_1 r_1  o_2 a_2 r_2  ...  o_T                        3 T - 2 tokens
    separate, before  r_0 o_1 a_1  r_1 o_2 a_2  ...  r_{T-1} o_T                3 T - 1 tokens
    modal             o_1 ... o_T  |  a_0 ... a_{T-1}  |  r_0 ... r_{T-1}       3 streams of T
    conditioned       x_1 o_1 a_1  x_2 o_2 a_2  ...  x_T o_T                    3 T - 1 tokens

A token of r may hold o' too. In every order a decision is preceded only by what was known then: a
reward follows its action. With `reward_token: before` each decision is preceded by the reward of
the transition before it, which shares its position. Further inputs x that a method defines, as a
return to go, are known at their decision and are added to o_t; conditioned tokens
(`conditioned_tokens.py`) give them a token of their own and leave out what actions led to. The
streams of one window are adjacent in the batch (`memories/attention.py`).
"""

import operator
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn

from ad.config.schema import ModelConfig
from ad.data.spec import Spec, field_name
from ad.models.encoders.base import Encoder, TabularEncoder
from ad.models.positions import Start
from ad.registry import ENCODERS, POSITIONS, REWARDS

Window = dict[str, torch.Tensor]
Terms = list[tuple[str, torch.Tensor]]  # of a token: the name of each, and vectors [B or 1, T, C]
# The tables [n + 1, C] of tabular encoders, by encoder and projection (None: no projection).
TableCache = dict[tuple[Encoder, nn.Linear | None], torch.Tensor]

PREVIOUS, CURRENT = slice(None, -1), slice(1, None)  # entries of a window, for each decision


class Tokenizer(nn.Module):
    """Embeddings of observations, actions and rewards; a subclass puts them in order.

    Each part of an observation has one encoder, which serves every role. The previous observation,
    and the one that an action led to, are projected by a linear map of that role, so that what is
    learned of an observation in one role holds in the others. `inputs` maps further fields of a
    window, numbers [B, T, 1], to vectors [B, T, C].
    """

    streams = 1  # parallel sequences of tokens, each a row of the batch
    has_outcomes = True  # whether tokens tell the rewards and what an action led to

    def __init__(
        self, spec: Spec, config: ModelConfig, inputs: Mapping[str, nn.Module] | None = None
    ):
        super().__init__()
        width = config.width
        self.parts = list(spec.observation)
        self.encoders = nn.ModuleList(
            ENCODERS.load(config.encoder_of(name))(part, width)
            for name, part in spec.observation.items()
        )
        self.next_obs_proj = (
            nn.Linear(width, width, bias=False)
            if config.next_observation and self.has_outcomes
            else None
        )
        self.action = nn.Embedding(spec.num_actions + 1, width)
        self.reward = REWARDS.load(config.reward)(spec, width) if self.has_outcomes else None
        self.position = POSITIONS.load(config.position)(spec, width, config.positions)
        # For each part without a table, the vector of "no observation".
        self.absent = nn.ModuleDict(
            {
                str(index): nn.Embedding(1, width)
                for index, encoder in enumerate(self.encoders)
                if not isinstance(encoder, TabularEncoder)
            }
        )
        self.inputs = nn.ModuleDict(inputs or {})
        self._tables: TableCache | None = None

    @property
    def decision_terms(self) -> list[str]:
        """The names of the `terms` of the tokens that predict an action."""
        inputs = [name.replace("_", "-") for name in self.inputs]
        return [*self._states("state"), *inputs, *filter(None, [self._position_term])]

    @contextmanager
    def caching(self, tables: TableCache) -> Generator[None]:
        """Take the tables of tabular encoders from `tables` in the block, or put them there.

        The caller keeps them only as long as the weights do not change.
        """
        self._tables = tables
        try:
            yield
        finally:
            self._tables = None

    def num_tokens(self, num_decisions: int) -> int:
        """Return how many tokens a window of `num_decisions` decisions has in each stream."""
        return num_decisions

    def entries(self, num_decisions: int) -> Window:
        """Return which entries of a window each of its tokens tells, int64 [streams, L] by role.

        observation: the entry whose observation a decision is made at; action; outcome: the reward
        and what an action led to; decision: the entry whose position the token carries. -1 stands
        for none.
        """
        raise NotImplementedError

    def forward(self, window: Window, start: Start = 0) -> torch.Tensor:
        """Return the tokens [B * streams, L, C] of a window [B, T + 1].

        `start` is the number of the first decision where `window` is the end of a longer one.
        """
        return self._arranged([add_vectors(column) for column in self._all_columns(window, start)])

    def terms(self, window: Window, start: Start = 0) -> dict[str, torch.Tensor]:
        """Return the terms whose sum is the tokens, by name: [B * streams, L, C] each.

        The names are those of the further inputs ("return-to-go"), state, action, reward, "next
        state" and "previous state", with the name of the observation's part if it has several, and
        "time" (`env_time`) or "position". A term is 0 at a token without it.
        """
        columns = self._all_columns(window, start)
        none = torch.zeros_like(add_vectors(columns[0]))
        names = dict.fromkeys(name for column in columns for name, _ in column)
        return {
            name: self._arranged(
                [
                    add_vectors([("", none), *(t for t in column if t[0] == name)])
                    for column in columns
                ]
            )
            for name in names
        }

    def at_decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden states [B, T, C] that predict an action, of all [B * streams, L, C]."""
        raise NotImplementedError

    def at_last_decision(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden state [B, 1, C] of the last decision, of the last tokens' states."""
        return hidden[:, -1:]

    def _columns(self, window: Window, start: Start, tables: TableCache) -> list[Terms]:
        """Return the terms of each kind of token, in the order of the tokens of a decision."""
        raise NotImplementedError

    def _arranged(self, columns: list[torch.Tensor]) -> torch.Tensor:
        """Return the tokens [B * streams, L, C] of all kinds, [B, T, C] each."""
        raise NotImplementedError

    def _all_columns(self, window: Window, start: Start) -> list[Terms]:
        tables = {} if self._tables is None else self._tables
        if not tables:
            tables |= self._make_tables()
        return self._columns(self._augmented(window), start, tables)

    def _make_tables(self) -> TableCache:
        """Return the tables of all tabular encoders, in every role of an observation."""
        tables: TableCache = {}
        for encoder in self.encoders:
            if isinstance(encoder, TabularEncoder):
                tables[encoder, None] = table = encoder.table()
                tables |= {(encoder, linear): linear(table) for linear in self._projections()}
        return tables

    def _projections(self) -> list[nn.Linear]:
        """Return the linear maps of the roles that have one."""
        return [self.next_obs_proj] if self.next_obs_proj is not None else []

    def _augmented(self, window: Window) -> Window:
        """Return the window as the encoders want to read it."""
        changed = {}
        encoders = [encoder for encoder in self.encoders if isinstance(encoder, Encoder)]
        for part, encoder in zip(self.parts, encoders, strict=True):
            names = [field_name(role, part) for role in ("observation", "next_observation")]
            values = encoder.augment(*(window[name] for name in names))
            changed |= dict(zip(names, values, strict=True))
        return window | changed

    def _embed_current(self, window: Window, tables: TableCache) -> Terms:
        """Embed the observations of the decisions and the further inputs."""
        inputs = self._embed_inputs(window)
        return self._embed_observation(window, "observation", CURRENT, tables) + inputs

    @property
    def _position_term(self) -> str:
        return getattr(self.position, "term", "position")

    def _states(self, state: str) -> list[str]:
        """Return the names of the terms of the observation's parts in a role, e.g. "state"."""
        return [f"{state} {part}".strip() for part in self.parts]

    def _embed_position(self, window: Window, start: Start) -> Terms:
        return [(self._position_term, vectors) for vectors in self.position(window, start)]

    def _embed_inputs(self, window: Window) -> Terms:
        """Embed the further inputs of the decisions."""
        dtype = self.action.weight.dtype
        return [
            (name.replace("_", "-"), module(window[name][:, CURRENT, None].to(dtype)))
            for name, module in self.inputs.items()
        ]

    def _embed_action(self, window: Window, part: slice) -> Terms:
        return [("action", F.embedding(window["action"][:, part], self.action.weight))]

    def _embed_outcome(self, window: Window, part: slice, tables: TableCache) -> Terms:
        """Embed the reward and, if configured, the observation that the action led to."""
        assert self.reward is not None  # only a tokenizer with outcomes embeds them
        outcome = [("reward", self.reward(window["reward"][:, part]))]
        if self.next_obs_proj is not None:
            outcome += self._embed_observation(
                window, "next_observation", part, tables, self.next_obs_proj
            )
        return outcome

    def _embed_observation(
        self,
        window: Window,
        role: str,
        part: slice,
        tables: TableCache,
        projection: nn.Linear | None = None,
    ) -> Terms:
        """Embed each part of the observations in a role, projected by `projection`."""
        state, terms = "previous state" if part is PREVIOUS else "state", []
        names = self._states("next state" if role == "next_observation" else state)
        for index, (term, name, encoder) in enumerate(
            zip(names, self.parts, self.encoders, strict=True)
        ):
            values = window[field_name(role, name)][:, part]
            if isinstance(encoder, TabularEncoder):
                terms.append((term, F.embedding(values, tables[encoder, projection])))
                continue
            exists = window["valid"][:, part, None]
            if values.dim() == 2:  # an index, whose padding is none that the encoder knows
                values = values.masked_fill(~exists[..., 0], 0)
            encoded: torch.Tensor = encoder(values)
            absent = self.absent.get_parameter(f"{index}.weight").to(encoded.dtype)
            encoded = torch.where(exists, encoded, absent)
            terms.append((term, encoded if projection is None else projection(encoded)))
        return terms


def add_vectors(terms: Terms) -> torch.Tensor:
    """Return the sum of the terms of a token, in their order."""
    return reduce(operator.add, [vectors for _, vectors in terms])


def interleave(*columns: torch.Tensor | None) -> torch.Tensor:
    """Return the entries [T] of each column, or -1 for None, in turn: int64 [1, T * columns]."""
    present = next(column for column in columns if column is not None)
    none = torch.full_like(present, -1)
    return torch.stack([none if c is None else c for c in columns], dim=1).flatten()[None]


class FusedTokens(Tokenizer):
    """One token a decision: the current observation and the whole previous transition."""

    def __init__(
        self, spec: Spec, config: ModelConfig, inputs: Mapping[str, nn.Module] | None = None
    ):
        super().__init__(spec, config, inputs)
        self.prev_obs_proj = nn.Linear(config.width, config.width, bias=False)

    def entries(self, num_decisions: int) -> Window:
        """Return the entries that each token tells, int64 [1, L] by role."""
        present = torch.arange(1, num_decisions + 1)[None]
        previous = present - 1
        of_roles = {"observation": present, "action": previous, "outcome": previous}
        return of_roles | {"decision": present}

    def at_decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return `hidden`: every token predicts an action."""
        return hidden

    @property
    def decision_terms(self) -> list[str]:
        """The names of all `terms`: each token predicts an action."""
        outcome = [
            "reward",
            *(self._states("next state") if self.next_obs_proj is not None else []),
        ]
        return [*super().decision_terms, *self._states("previous state"), "action", *outcome]

    def _projections(self) -> list[nn.Linear]:
        return [self.prev_obs_proj, *super()._projections()]

    def _columns(self, window: Window, start: Start, tables: TableCache) -> list[Terms]:
        previous = self.prev_obs_proj
        fused = [
            *self._embed_current(window, tables),
            *self._embed_position(window, start),
            *self._embed_observation(window, "observation", PREVIOUS, tables, previous),
            *self._embed_action(window, PREVIOUS),
            *self._embed_outcome(window, PREVIOUS, tables),
        ]
        return [fused]

    def _arranged(self, columns: list[torch.Tensor]) -> torch.Tensor:
        return columns[0]


class InterleavedTokens(Tokenizer):
    """Three tokens a transition, observation, action and outcome, which share a position."""

    def __init__(
        self, spec: Spec, config: ModelConfig, inputs: Mapping[str, nn.Module] | None = None
    ):
        super().__init__(spec, config, inputs)
        self.reward_first = config.reward_token == "before"

    def num_tokens(self, num_decisions: int) -> int:
        """Return three times `num_decisions`, without the tokens after the last decision."""
        return 3 * num_decisions - self._num_after

    def entries(self, num_decisions: int) -> Window:
        """Return the entries that each token tells, int64 [1, L] by role."""
        t = torch.arange(1, num_decisions + 1)
        columns: dict[str, tuple] = {"decision": (t, t, t)}
        if self.reward_first:
            columns |= {"outcome": (t - 1, None, None), "observation": (None, t, None)}
            columns |= {"action": (None, None, t)}
        else:
            columns |= {"observation": (t, None, None), "action": (None, t, None)}
            columns |= {"outcome": (None, None, t)}
        return {role: interleave(*c)[:, : -self._num_after] for role, c in columns.items()}

    def at_decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return every third hidden state, those of the observations."""
        return hidden[:, int(self.reward_first) :: 3]

    def _columns(self, window: Window, start: Start, tables: TableCache) -> list[Terms]:
        parts = [
            self._embed_current(window, tables),
            self._embed_action(window, CURRENT),
            self._embed_outcome(window, PREVIOUS if self.reward_first else CURRENT, tables),
        ]
        if self.reward_first:
            parts = [parts[2], *parts[:2]]
        position = self._embed_position(window, start)
        return [part + position for part in parts]

    def _arranged(self, columns: list[torch.Tensor]) -> torch.Tensor:
        tokens = torch.stack(columns, dim=2)  # [B, T, 3, C]
        return tokens.flatten(1, 2)[:, : -self._num_after]  # [B, L, C]

    @property
    def _num_after(self) -> int:
        """The number of tokens after the last decision, which a rollout does not know yet."""
        return 1 if self.reward_first else 2


class ParallelStreams(Tokenizer):
    """Three streams of tokens: the observation, the last action and its outcome at a decision."""

    streams = 3

    def entries(self, num_decisions: int) -> Window:
        """Return the entries that each token tells, int64 [3, T] by role."""
        present = torch.arange(1, num_decisions + 1)
        previous, none = present - 1, torch.full_like(present, -1)
        return {
            "observation": torch.stack([present, none, none]),
            "action": torch.stack([none, previous, none]),
            "outcome": torch.stack([none, none, previous]),
            "decision": present.repeat(self.streams, 1),
        }

    def at_decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of the stream of observations."""
        return hidden[:: self.streams]

    def at_last_decision(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the last hidden state of the stream of observations."""
        return self.at_decisions(hidden)[:, -1:]

    def _columns(self, window: Window, start: Start, tables: TableCache) -> list[Terms]:
        parts = (
            self._embed_current(window, tables),
            self._embed_action(window, PREVIOUS),
            self._embed_outcome(window, PREVIOUS, tables),
        )
        position = self._embed_position(window, start)
        return [part + position for part in parts]

    def _arranged(self, columns: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(columns, dim=1).flatten(0, 1)  # [3 B, T, C]
