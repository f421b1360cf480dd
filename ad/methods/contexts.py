"""Contexts: what a frozen sequence model reads of the past of N environments in a rollout.

A window of an environment has the entries of a training window: entry 0 is the transition before
the window, the entries after it are decisions. The last valid one is the present decision, which
has no outcome yet.
"""

import copy
from abc import abstractmethod
from typing import ClassVar

import torch

from ad.data.episodes import best_first
from ad.data.spec import field_name
from ad.errors import ConfigError
from ad.methods.policy import Observation
from ad.models.memories.base import Cache
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import TableCache, Window


class Context:
    """The windows of N environments, of at most `context_length` decisions each.

    A decision begins with `enter`, and its outcome is added by `observe`. `hidden` returns what the
    model makes of the present decision. `fields` are the entries, tensors [N, context_length + 1,
    ...] by name. `cache` holds the keys of what was read, None if a window is read again at each
    decision.
    """

    def __init__(self, model: SequenceModel, num_envs: int, context_length: int):
        self.model, self.capacity, self.device = model, context_length, model.head.weight.device
        self.padding = model.spec.padding | {"step": 0, "valid": False}
        self.padding |= dict.fromkeys(model.tokenizer.inputs, 0.0)
        shapes = {name: part.shape for name, part in model.spec.observation_fields.items()}
        self.fields = {
            name: torch.full(
                (num_envs, context_length + 1, *shapes.get(name, ())),
                padding,
                dtype=self._dtype(name, padding),
                device=self.device,
            )
            for name, padding in self.padding.items()
        }
        self.tables: TableCache = {}  # computed at the first decision: the model is frozen
        self.cache = self._new_cache(num_envs)

    spans_episodes: ClassVar[bool]  # whether the window holds past episodes

    @abstractmethod
    def enter(
        self, observation: Observation, time: torch.Tensor, inputs: dict[str, torch.Tensor]
    ) -> None:
        """Add the decision at `observation` and `time`, int64 [N], with the model's `inputs`."""

    @abstractmethod
    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Add the outcome of the present decision, [N, ...] each.

        `next_observation` is the true one, also at the end of an episode.
        """

    @abstractmethod
    def hidden(self) -> torch.Tensor:
        """Return the hidden states [N, C] of the present decisions."""

    @abstractmethod
    def window(self) -> Window:
        """Return the windows [N, T + 1], T the longest: `valid` ends with the present decision."""

    def add_to_episode(self, name: str, change: torch.Tensor) -> None:
        """Add `change`, float32 [N], to the field `name` of all entries of the present episodes."""

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.fields = {name: value[envs] for name, value in self.fields.items()}
        if self.cache is not None:
            self.cache.select(envs)

    def branch(self, envs: torch.Tensor) -> "Context":
        """Return a context of the environments `envs`, int64 [M]; this one stays as it is."""
        branched = copy.copy(self)
        branched.cache = copy.copy(self.cache)
        branched.select(envs)
        return branched

    def split(self, branches: int, decisions: int) -> "Context":
        """Return a context with `branches` environments in the place of each, for planning."""
        raise NotImplementedError

    def reward_seen(self) -> torch.Tensor:
        """Return whether a reward above 0 is in the window or right before it, bool [N]."""
        return (self.fields["reward"] > 0).any(1)

    @abstractmethod
    def _new_cache(self, num_envs: int):
        """Return an empty cache, None if there is no use for one."""

    @abstractmethod
    def _present(self) -> tuple:
        """Return the index of the present entries in a field."""

    def _dtype(self, name: str, padding: float) -> torch.dtype:
        parts = self.model.spec.observation_fields
        if name in parts:
            return getattr(torch, parts[name].window_dtype)
        dtypes: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float32}
        return dtypes[type(padding)]

    def _write(self, **values) -> None:
        """Set fields of the present entries, each to a number or a tensor [N, ...]."""
        present = self._present()
        for name, value in values.items():
            field = self.fields[name]
            field[present] = value.to(field.dtype) if isinstance(value, torch.Tensor) else value

    def _write_observation(self, role: str, observation: Observation) -> None:
        parts = observation if isinstance(observation, dict) else {"": observation}
        self._write(**{field_name(role, part): values for part, values in parts.items()})


class SlidingWindow(Context):
    """The newest transitions, across episodes.

    When the window is full, its oldest half is dropped and the cache is filled again from the rest,
    since the keys of every layer depend on what was dropped. With a memory that has `retrieved`,
    the first transitions of the rest are those of the best episodes of the window, not the newest.
    A model that carries a state reads nothing again: its cache keeps what the state holds of all
    transitions so far.
    """

    spans_episodes = True

    def __init__(self, model: SequenceModel, num_envs: int, context_length: int):
        # A model that carries a state has read a decision before its outcome: one stays.
        super().__init__(model, num_envs, max(context_length, 1 + model.carries))
        self.length, self.step = 0, 0  # decisions in the window, and in all
        # Of a model that carries a state: the decisions that it read before those of the window,
        # and whether a reward above 0 was among them.
        self.dropped, self.rewarded = 0, torch.zeros_like(self.fields["valid"][:, 0])
        self.read = 0  # decisions in the window whose tokens are in the cache
        self.retrieved = int(self.capacity * model.memory.retrieved)
        # What is retrieved depends on the return of the episode of each entry, once it has ended,
        # and on that of the present episode so far.
        self.returns = torch.full_like(self.fields["reward"], -torch.inf, dtype=torch.float64)
        self.returned = torch.zeros_like(self.returns[:, 0])
        # Adjacent environments with one past, their decisions since then, and the most of them.
        self.branches, self.own, self.most_own = 1, 0, 0

    def enter(self, observation, time, inputs) -> None:
        """Add the decision at `observation` and `time`, int64 [N], with the model's `inputs`."""
        if self.length == self.capacity:
            self._drop_oldest()
        self.length, self.own = self.length + 1, self.own + 1
        self._write(time=time, step=self.step, valid=True, **inputs)
        self._write_observation("observation", observation)
        self.step += 1

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Add the outcome of the present decision, [N, ...] each."""
        self._write(action=action, reward=reward)
        self._write_observation("next_observation", next_observation)
        if self.retrieved:
            ended, total = terminated | truncated, self.returned + reward
            entries = self._present_episode() & ended[:, None]
            self.returns = total[:, None].where(entries, self.returns)
            self.returned = total.where(~ended, 0)

    def hidden(self) -> torch.Tensor:
        """Return the hidden states [N, C] of the present decision."""
        # The last decision that was read has its outcome now, which is not in the cache yet.
        start = max(self.read - 1, 0)
        self.read = self.length
        window = self._window_from(start)
        with self.model.tokenizer.caching(self.tables):
            return self.model.hidden(window, self.cache, self.dropped + start)[:, -1]

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.rewarded, self.returned = self.rewarded[envs], self.returned[envs]
        self.returns = self.returns[envs]

    def reward_seen(self) -> torch.Tensor:
        """Return whether a reward above 0 is among what the model keeps of the past, bool [N]."""
        return super().reward_seen() | self.rewarded

    def split(self, branches: int, decisions: int) -> "SlidingWindow":
        """Return a context with `branches` environments, adjacent, in the place of each.

        They share the past in memory, and enter at most `decisions`. This context stays as it is.
        """
        split, num_envs = copy.copy(self), len(self.fields["valid"])
        envs = torch.arange(num_envs, device=self.device).repeat_interleave(branches)
        split.cache = None
        split.select(envs)
        split.branches, split.own, split.most_own = branches, 0, decisions
        split.cache = split._split_cache(self.cache)
        return split

    def window(self) -> Window:
        """Return the window [N, T + 1] of T decisions."""
        return self._window_from(0)

    def add_to_episode(self, name, change) -> None:
        """Add `change`, float32 [N], to the field `name` of all entries of the present episodes.

        The keys of all later tokens change, so that the cache is filled again where `change` is
        not 0.
        """
        self.fields[name] += change[:, None] * self._present_episode()
        if not self.read:
            return
        envs = change.nonzero()[:, 0]
        past = self._filled({n: value[envs, : self.read + 1] for n, value in self.fields.items()})
        try:
            self.cache.replace(envs, past)
        except NotImplementedError:
            self.forget()

    def _new_cache(self, num_envs: int):
        return self.model.new_cache(num_envs, self.capacity)

    def _present(self) -> tuple:
        return slice(None), self.length

    def _present_episode(self) -> torch.Tensor:
        """Return which entries are of the present episodes, bool [N, context_length + 1]."""
        time, step = (self.fields[field] for field in ("time", "step"))
        start = step[:, self.length] - time[:, self.length]
        return self.fields["valid"] & (step >= start[:, None])

    def _window_from(self, start: int) -> Window:
        return {name: value[:, start : self.length + 1] for name, value in self.fields.items()}

    def _drop_oldest(self) -> None:
        kept, dropped = self.capacity // 2, self.length - self.capacity // 2  # decisions
        if self.model.carries:
            if self.read < self.length:  # decisions were entered without logits
                self.hidden()
            self.rewarded = self.rewarded | (self.fields["reward"][:, :dropped] > 0).any(1)
        stays, retrieves = self._kept_entries(kept)
        envs = torch.arange(len(stays), device=self.device)[:, None]
        for name, value in self.fields.items():
            entries = value[envs, stays]
            value[:] = self.padding[name]
            value[:, : kept + 1] = entries
            value[retrieves, 0] = self.padding[name]  # no transition before the best episodes
        if self.retrieved:
            self.returns[:, : kept + 1] = self.returns[envs, stays]
            self.returns[:, kept + 1 :] = -torch.inf
        self.length = kept
        if self.model.carries:
            self.read, self.dropped = kept, self.dropped + dropped
        elif self.branches > 1 and self.own < kept and not self.retrieved:
            self._read_shared()
        else:
            self.forget()

    def _kept_entries(self, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what stays of a full window: `kept` decisions and the transition before them.

        The entries are int64 [N, kept + 1], the newest ones, or where as many transitions of whole
        episodes come before the newest, those of the best episodes in the places 1 to `retrieved`.
        The second value says where, bool [N].
        """
        entries = torch.arange(self.length - kept, self.length + 1, device=self.device)
        entries = entries.repeat(len(self.fields["valid"]), 1)
        if not self.retrieved:
            return entries, torch.zeros(len(entries), dtype=torch.bool, device=self.device)
        first = self.length - kept + self.retrieved + 1  # of the newest entries
        time, step = self.fields["time"], self.fields["step"]
        # An episode that goes on in the newest entries is not retrieved.
        begins = step[:, first] - time[:, first]
        is_over = (step < begins[:, None])[:, 1:first]
        returns = self.returns[:, 1:first].where(is_over, -torch.inf)
        best = torch.from_numpy(1 + best_first(returns.cpu().numpy(), self.retrieved))
        retrieves = returns.isfinite().sum(1) >= self.retrieved
        places = entries[:, 1 : 1 + self.retrieved]
        places[retrieves] = best.to(self.device)[retrieves]
        return entries, retrieves

    def forget(self) -> None:
        """Empty the cache: the next decision reads the whole window."""
        if self.branches > 1:  # such a cache is for one past
            self.cache, self.branches = self._new_cache(len(self.fields["valid"])), 1
        self.cache.reset()
        self.read = 0

    def _read_shared(self) -> None:
        """Fill the cache again with the decisions that all branches of an environment share."""
        self.read = self.length - self.own
        shared = {
            name: value[:: self.branches, : self.read + 1] for name, value in self.fields.items()
        }
        self.cache = self._split_cache(self._filled(shared))

    def _filled(self, window: Window) -> Cache:
        """Return a cache that has read a window [B, T + 1]."""
        cache = self.model.new_cache(len(window["valid"]), self.capacity)
        with self.model.tokenizer.caching(self.tables):
            self.model.hidden(window, cache)
        return cache

    def _split_cache(self, past: Cache) -> Cache:
        num_tokens, num_envs = self.model.tokenizer.num_tokens, len(self.fields["valid"])
        envs = torch.arange(num_envs, device=self.device) // self.branches
        return past.split(envs, self.branches, num_tokens(1 + self.most_own) - num_tokens(1))


class SeparateWindows(Context):
    """A context whose windows have lengths of their own, `length` decisions, int64 [N]."""

    def __init__(self, model: SequenceModel, num_envs: int, context_length: int):
        if model.carries:
            text = "training.segments must be 1 with this policy: its model reads a window anew"
            raise ConfigError(f"{text} at each decision, and no state of what came before")
        super().__init__(model, num_envs, context_length)
        self.length = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.envs = torch.arange(num_envs, device=self.device)

    def hidden(self) -> torch.Tensor:
        """Return the hidden states [N, C] of the present decisions, from the whole windows."""
        with self.model.tokenizer.caching(self.tables):
            return self.model.hidden(self.window())[self.envs, self.length - 1]

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.length, self.envs = self.length[envs], torch.arange(len(envs), device=self.device)

    def window(self) -> Window:
        """Return the windows [N, T + 1], T the longest: `valid` ends with each one's decisions."""
        longest = int(self.length.max())
        return {name: value[:, : longest + 1] for name, value in self.fields.items()}

    def _present(self) -> tuple:
        return self.envs, self.length


class PresentEpisode(SeparateWindows):
    """The last decisions of the present episode.

    The window of an environment begins at its episode's first decision, or `context_length`
    decisions ago: what a training window within an episode shows at that decision, at the same
    positions. If the episodes of the histories fit into the window, a cache keeps the keys of an
    episode's decisions. It is not used with parallel streams, nor while an environment has
    decisions that were entered without logits, a window that slid, or an episode that is longer
    than those of the histories: a decision is then a forward pass over the windows.
    """

    spans_episodes = False

    def __init__(self, model: SequenceModel, num_envs: int, context_length: int):
        super().__init__(model, num_envs, context_length)
        # Decisions whose tokens are in the cache; -1 for a window that slid.
        self.cached = self.length.clone()

    def enter(self, observation, time, inputs) -> None:
        """Add the decision at `observation` and `time`, int64 [N], with the model's `inputs`."""
        full = self.length == self.capacity
        if full.any():  # forget the oldest entry there
            for value in self.fields.values():
                value[full, :-1] = value[full, 1:]
            self.length -= full.long()
            self.cached[full] = -1  # every key depends on the decision that was dropped
        self.length += 1
        self._write(**self.padding)
        self._write(time=time, step=time, valid=True, **inputs)
        self._write_observation("observation", observation)

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Add the outcome of the present decision; forget the episodes that have ended."""
        self._write(action=action, reward=reward)
        self._write_observation("next_observation", next_observation)
        ended = terminated | truncated
        for name, value in self.fields.items():
            value[ended] = self.padding[name]
        self.length[ended] = self.cached[ended] = 0
        if self.cache is not None:
            self.cache.begin(ended)

    def hidden(self) -> torch.Tensor:
        """Return the hidden states [N, C] of the present decisions."""
        # The cache is used if the present decisions are the next ones of it and have room there.
        follows = (self.cached + 1 == self.length) & (self.length <= self.model.spec.episode_length)
        if self.cache is None or not follows.all():
            return super().hidden()
        self.cached = self.length.clone()
        # The decision before has its outcome now, which is not in the cache yet.
        start = self.length[:, None] - 2
        entries = (start + torch.arange(3, device=self.device)).clamp(min=0)
        window = {name: value[self.envs[:, None], entries] for name, value in self.fields.items()}
        with self.model.tokenizer.caching(self.tables):
            return self.model.hidden(window, self.cache, start)[:, -1]

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.cached = self.cached[envs]

    def _new_cache(self, num_envs: int):
        longest = self.model.spec.episode_length
        if longest > self.capacity:
            return None
        return self.model.new_episode_cache(num_envs, longest)


class PastEpisodes(SeparateWindows):
    """The newest transitions of the episodes before the present one, and the present decision.

    The window has at most `context_length - 1` transitions. Those of an episode enter it when the
    episode ends. Each decision is a forward pass over its window: a cache would keep the present
    decision, which the next one replaces.
    """

    spans_episodes = True

    def __init__(self, model: SequenceModel, num_envs: int, context_length: int):
        if model.memory.retrieved:
            text = "model.memory must not be retrieval with this policy: its windows hold the"
            raise ConfigError(f"{text} newest episodes, whatever their returns")
        super().__init__(model, num_envs, context_length)
        self.length += 1  # the entry of the present decision
        self.step = 0  # decisions so far
        self.begun = torch.zeros_like(self.length)  # decisions before the present episode
        # The newest transitions of the present episode, [N, context_length], the last at the end.
        self.episode = {name: value[:, 1:].clone() for name, value in self.fields.items()}

    def enter(self, observation, time, inputs) -> None:
        """Write the decision at `observation` and `time`, int64 [N], after the past episodes."""
        self._write(time=time, step=self.begun, valid=True, **inputs)
        self._write_observation("observation", observation)

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Keep the outcome of the last decision; add the episodes that have ended to the window."""
        self._write(action=action, reward=reward, step=self.step)
        self._write_observation("next_observation", next_observation)
        self.step += 1
        for name, value in self.fields.items():
            newest = value[self._present()][:, None]
            self.episode[name] = torch.cat([self.episode[name][:, 1:], newest], 1)
        self._write(**self.padding)
        self._add_episodes(torch.nonzero(terminated | truncated)[:, 0])

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.begun = self.begun[envs]
        self.episode = {name: value[envs] for name, value in self.episode.items()}

    def _new_cache(self, num_envs: int) -> None:
        return None

    def _add_episodes(self, ended: torch.Tensor) -> None:
        """Add the present episodes of the environments `ended`, int64 [M], to their windows."""
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
