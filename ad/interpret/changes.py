"""Changes of contexts: each changes one thing before the last decision of a context."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from ad.data.spec import field_name
from ad.interpret.contexts import RETURN_TO_GO, Contexts
from ad.interpret.relations import encodes_rewards
from ad.methods.base import Method
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import Window
from envs.rng import derive_key


@dataclass(frozen=True)
class Queries:
    """N contexts and one decision of each: the entry `last`, int64 [N], of its window."""

    contexts: Contexts
    last: np.ndarray

    @property
    def past(self) -> np.ndarray:
        """The entries before the last decision, bool [N, T + 1]."""
        entry = np.arange(self.contexts.length + 1)
        return self.contexts.valid & (entry < self.last[:, None])

    @property
    def present(self) -> np.ndarray:
        """The entries of the episode of the last decision, bool [N, T + 1]."""
        episode = self.contexts.episode
        return self.contexts.valid & (episode == episode[np.arange(len(episode)), self.last, None])

    def at_last(self, values: torch.Tensor) -> torch.Tensor:
        """Return the rows [N, ...] of values [N, T, ...] at the last decisions."""
        return values[torch.arange(len(self.last)), torch.from_numpy(self.last) - 1]

    def by_group(self, values: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the sums [K, ...] of values [N, ...] over the contexts `rows` of each group."""
        total = np.zeros((len(self.contexts.groups), *values.shape[1:]))
        np.add.at(total, self.contexts.group[rows], values[rows])
        return total


Change = Callable[[Queries, SequenceModel, np.random.Generator], Window]


def make_queries(contexts: Contexts, count: int) -> Queries:
    """Return `count` of the contexts and their last decided decisions.

    Contexts with a reward come first, and longer ones before shorter.
    """
    last = contexts.last
    reward_seen = contexts.reward_seen[np.arange(len(contexts)), last]
    order = np.random.default_rng(derive_key(0, "interpret", "queries")).permutation(len(contexts))
    rows = np.sort(order[np.lexsort((-last[order], ~reward_seen[order]))][:count])
    return Queries(contexts.select(rows), last[rows])


def shortened(queries: Queries, length: int) -> Queries:
    """Return the queries with contexts cut to their last `length` decisions.

    As in a rollout, the transition before these decisions stays.
    """
    contexts, start = queries.contexts, np.maximum(queries.last - length, 0)
    rows, entries = np.arange(len(start))[:, None], start[:, None] + np.arange(length + 1)
    names = ("episode", "decided", "cell")
    labels = {name: getattr(contexts, name)[rows, entries] for name in names}
    index = torch.from_numpy(rows), torch.from_numpy(entries)
    window = {name: values[index] for name, values in contexts.window.items()}
    return Queries(replace(contexts, window=window, **labels), queries.last - start)


def changes(
    model: SequenceModel, method: Method, is_asked: bool = False, unit: str = "task"
) -> dict[str, Change]:
    """Return the changes that the tokens of a model can encode, by name.

    `is_asked`: whether the contexts come from rollouts that ask for a return. `unit`: what the
    groups of the contexts are.
    """
    possible: dict[str, Change] = {}
    if encodes_rewards(model):
        possible |= {"no rewards": no_rewards, "rewards shuffled": shuffled_rewards}
        possible |= {"rewards flipped": flipped_rewards, "last success removed": no_last_success}
        possible["earlier successes removed"] = only_last_success
    if not method.within_episodes:
        possible |= {f"another {unit}": another_past, "episodes permuted": permuted_episodes}
    else:
        possible |= {"another state": another_state}
        possible |= (
            {"another time": another_time} if "time" in model.tokenizer.decision_terms else {}
        )
    if is_asked and RETURN_TO_GO in model.tokenizer.inputs:
        ends = ("lowest return asked", "highest return asked")
        possible |= {name: partial(asked_for, end=end) for end, name in enumerate(ends)}
    return possible


def changed(queries: Queries, name: str, model: SequenceModel, method: Method) -> Contexts:
    """Return the contexts with the change called `name`."""
    rng = np.random.default_rng(derive_key(0, "interpret", name))
    is_asked, unit = queries.contexts.asked is not None, queries.contexts.unit
    fields = changes(model, method, is_asked, unit)[name](queries, model, rng)
    return replace(queries.contexts, window=queries.contexts.window | fields)


def no_rewards(queries: Queries, model: SequenceModel, rng: np.random.Generator) -> Window:
    """Set every reward to 0."""
    return _with_rewards(queries, np.where(queries.past, 0.0, _rewards(queries)))


def shuffled_rewards(queries: Queries, model: SequenceModel, rng: np.random.Generator) -> Window:
    """Give the rewards of each context to its transitions in random order."""
    reward = _rewards(queries)
    for row, past in zip(reward, queries.past, strict=True):
        row[past] = rng.permutation(row[past])
    return _with_rewards(queries, reward)


def flipped_rewards(queries: Queries, model: SequenceModel, rng: np.random.Generator) -> Window:
    """Mirror the rewards in the middle of their range: 0 and 1 change places."""
    reward = _rewards(queries)
    flipped = sum(model.spec.reward_range) - reward
    return _with_rewards(queries, np.where(queries.past, flipped, reward))


def no_last_success(queries: Queries, model: SequenceModel, rng: np.random.Generator) -> Window:
    """Set the last reward above 0 to 0."""
    return _with_rewards(queries, np.where(last_success(queries), 0.0, _rewards(queries)))


def only_last_success(queries: Queries, model: SequenceModel, rng: np.random.Generator) -> Window:
    """Set every reward but the last above 0 to 0."""
    removed = queries.past & ~last_success(queries)
    return _with_rewards(queries, np.where(removed, 0.0, _rewards(queries)))


def last_success(queries: Queries) -> np.ndarray:
    """Return which entry has the last reward above 0 before the last decision, bool [N, T + 1]."""
    success = queries.past & (queries.contexts.reward > 0)
    following = np.cumsum(success[:, ::-1], axis=1)[:, ::-1]  # this one and later ones
    return success & (following == 1)


def another_past(queries: Queries, model: SequenceModel, rng: np.random.Generator) -> Window:
    """Replace the earlier episodes of each context by the newest ones of another group's context.

    A context keeps its own where no other context has as many transitions in earlier episodes.
    """
    group, earlier = queries.contexts.group, queries.past & ~queries.present
    count = earlier.sum(1)
    end = earlier.shape[1] - earlier[:, ::-1].argmax(1)  # after the last of the earlier entries
    source = np.arange(len(group))
    for row in source:
        others = np.flatnonzero((group != group[row]) & (count >= count[row]))
        source[row] = rng.choice(others) if len(others) else row
    entries = np.arange(earlier.shape[1]) + (end[source] - end)[:, None]
    entries = np.where(earlier, entries, 0)
    return _taken(queries, source[:, None], entries, earlier)


def permuted_episodes(queries: Queries, model: SequenceModel, rng: np.random.Generator) -> Window:
    """Permute the episodes before the present one, without an episode that the window cuts."""
    contexts, entries = queries.contexts, []
    earlier = queries.past & ~queries.present
    for number, time, past in zip(contexts.episode, contexts.time, earlier, strict=True):
        order = np.arange(len(number))
        whole = np.isin(number, number[past & (time == 0) & (order > 0)])
        place = np.flatnonzero(past & whole & (order > 0))
        blocks = [place[number[place] == one] for one in rng.permutation(np.unique(number[place]))]
        order[place] = np.concatenate([order[:0], *blocks])
        entries.append(order)
    rows = np.arange(len(entries))[:, None]
    return _taken(queries, rows, np.stack(entries), queries.past)


def another_state(queries: Queries, model: SequenceModel, rng: np.random.Generator) -> Window:
    """Replace the observation of the last decision by one of another group."""
    parts, last = model.spec.observation, queries.last
    fields = _of_another_group(queries, rng, [field_name("observation", part) for part in parts])
    rows = np.flatnonzero(queries.present[np.arange(len(last)), last - 1])
    for part in parts:  # the transition before led to the observation
        name = field_name("next_observation", part)
        fields[name] = queries.contexts.window[name].clone()
        new = fields[field_name("observation", part)][rows, last[rows]]
        fields[name][rows, last[rows] - 1] = new
    return fields


def another_time(queries: Queries, model: SequenceModel, rng: np.random.Generator) -> Window:
    """Replace the time of the last decision by that of a decision of another group."""
    return _of_another_group(queries, rng, ["time"])


def asked_for(queries: Queries, model: SequenceModel, rng: np.random.Generator, end: int) -> Window:
    """Ask for an end of the range of returns, 0 for the lowest, in the present episode."""
    return asking(queries.contexts, model.spec.return_range[end], queries.present)


def asking(contexts: Contexts, value: float | np.ndarray, where: np.ndarray) -> Window:
    """Ask for the return `value`, one or [B], in the episode of the entries `where` [B, T + 1]."""
    left = contexts.window[RETURN_TO_GO]
    assert contexts.asked is not None  # the model reads the return to go
    added = (value - contexts.asked)[:, None] * where
    return {RETURN_TO_GO: left + torch.from_numpy(added).to(left)}


def _rewards(queries: Queries) -> np.ndarray:
    return queries.contexts.window["reward"].cpu().numpy().copy()


def _with_rewards(queries: Queries, reward: np.ndarray) -> Window:
    before = queries.contexts.window["reward"]
    return {"reward": torch.from_numpy(reward).to(before)}


def _taken(queries: Queries, rows: np.ndarray, entries: np.ndarray, where: np.ndarray) -> Window:
    """Return fields that are replaced by those at (rows, entries) where a mask [N, T + 1] is true.

    The fields `step` and `valid` depend on the place in a window and stay.
    """
    fields = {}
    for name, values in queries.contexts.window.items():
        if name not in ("step", "valid"):
            taken = values[torch.from_numpy(rows), torch.from_numpy(entries)]
            mask = torch.from_numpy(where).to(values.device)
            fields[name] = torch.where(
                mask.reshape(*where.shape, *[1] * (values.dim() - 2)), taken, values
            )
    return fields


def _of_another_group(queries: Queries, rng: np.random.Generator, names: Sequence[str]) -> Window:
    """Return the fields `names` with the values of another group's last decision at the last one.

    A context keeps its own where all are of one group.
    """
    group, last = queries.contexts.group, queries.last
    others = [np.flatnonzero(group != own) for own in group]
    source = [rng.choice(rows) if len(rows) else n for n, rows in enumerate(others)]
    own = np.arange(len(last)), last
    fields = {name: queries.contexts.window[name].clone() for name in names}
    for values in fields.values():
        values[own] = values[source, last[source]]
    return fields
