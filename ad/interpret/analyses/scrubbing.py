"""Causal scrubbing: do some heads read the rewarded transitions and write the action?

If so, everything else in a decision's context can be replaced without a loss (Chan et al. 2022,
"Causal scrubbing"). The model makes another decision at the same observation, of another task or
rollout, with some values at the decision's token replaced. Of a model with a token for the asked
return the question is whether heads read that token: the other decision is the same one, asked for
the lowest or the highest return of the histories, whichever is further away. Each level of the tree
keeps less of the context:

    their outputs         the outputs of the heads, from the context itself
    what they read        only their terms from the tokens in question; the rest from the other
    of agreeing contexts  these terms from an agreeing context: of the same task or rollout at the
                          same observation, or of another episode with the same return-to-go
    written directly      these terms added for the logits alone, without effect on later layers

The share kept is 1 - D(level) / D(nothing), where D is the KL divergence from the probabilities of
the intact model. Heads are ranked by the second level on half of the tasks, rollouts or episodes;
sets of the first heads are scored on the other half, and beside each, at the second level, random
sets of as many heads: that the ranked heads keep more than these is what makes them special.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import ClassVar

import numpy as np
import torch

from ad.errors import ConfigError
from ad.interpret.analyses.pairs import recovery
from ad.interpret.analysis import HISTORIES, Analysis, compared, rows_of
from ad.interpret.changes import asking
from ad.interpret.contexts import RETURN_TO_GO, Contexts
from ad.interpret.hooks import Write, hooked
from ad.interpret.labeled import Axes, LabeledArray, with_interval
from ad.interpret.relations import (
    RETURN,
    at_tokens,
    decision_tokens,
    encodes_rewards,
    relation_names,
    relations,
)
from ad.methods.base import Method
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table
from envs.rng import derive_key

NUM_DECISIONS = 512
BATCH = 64  # decisions whose attention is read at once
MOST_HEADS = 4  # of a set
RANDOM_SETS = 8  # of each size
LEVELS = ("their outputs", "what they read", "of agreeing contexts", "written directly")


class Scrubbing(Analysis):
    """Share that is kept if only some heads' reading of rewards, or of the return, is intact."""

    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "kept": ("heads", "level"),
        "random": ("heads",),
        "decisions": ("group",),
    }

    @classmethod
    def check(cls, subject):
        """Raise ConfigError with the reason if the subject cannot be analyzed."""
        if not read_relations(subject.model, subject.method):
            raise ConfigError(
                "its hypotheses are of rewards of earlier episodes and of a token for the asked "
                "return, and the model reads neither: train a decision transformer with "
                "model.tokenizer conditioned, or algorithm distillation"
            )
        if encodes_rewards(subject.model):
            return super().check(subject)
        if subject.choice.source == HISTORIES:
            raise ConfigError("it asks for other returns in rollouts: leave out --contexts")
        if subject.model.spec.return_range[0] == subject.model.spec.return_range[1]:
            raise ConfigError(
                "all histories have the same return: collect others with other returns"
            )
        return super().check(subject)

    def run(self, subject):
        """Return the share that each set of heads keeps, and the number of scored decisions."""
        model, contexts = subject.model, subject.contexts
        names = read_relations(model, subject.method)
        if encodes_rewards(model):
            own, agreeing, other = draw(contexts)
            others = contexts
        else:  # another return is asked for in the present episode alone
            contexts = contexts.where(contexts.decided & contexts.present)
            own, agreeing, other = draw_asked(contexts)
            others = asked_otherwise(contexts, model)
        places = ((contexts, own), (contexts, agreeing), (others, other))
        tree = Tree(*(read(model, each, *place, names) for each, place in places), model)
        group, number = contexts.group[own[0]], len(contexts.groups)

        def by_group(level: str | None, heads: Sequence[int] | np.ndarray) -> np.ndarray:
            return np.bincount(group, tree.divergence(level, heads), number)

        ranked, scored = np.arange(number) % 2 == 0, np.arange(number) % 2 == 1
        alone = [by_group(LEVELS[1], [head])[ranked].sum() for head in range(len(subject.heads))]
        order = np.argsort(alone, kind="stable")[:MOST_HEADS]
        sets = [order[: count + 1] for count in range(len(order))]
        left = [[by_group(level, heads)[scored] for level in LEVELS] for heads in sets]
        left = np.array(left).reshape(len(sets) * len(LEVELS), -1).T
        whole = by_group(None, [])[scored]
        kept = recovery(left, whole).reshape(3, len(sets), len(LEVELS))
        rng = np.random.default_rng(derive_key(0, "interpret", "random heads"))
        chances = [
            [rng.permutation(len(alone))[: len(heads)] for _ in range(RANDOM_SETS)]
            for heads in sets
        ]
        by_chance = [
            np.mean([by_group(LEVELS[1], heads)[scored] for heads in own], 0) for own in chances
        ]
        random = recovery(np.array(by_chance).T, whole)
        names = ["+".join(subject.heads[head] for head in heads) for heads in sets]
        axes = {"heads": names, "level": list(LEVELS)}
        about = "share kept: 1 - divergence / divergence with all of the other decision"
        decisions = LabeledArray(
            np.bincount(group, minlength=number)[scored],
            {"group": [name for name, used in zip(contexts.groups, scored, strict=True) if used]},
            f"decisions that are scored, by {contexts.unit}",
        )
        results = with_interval("kept", kept[0], kept[1:], axes, about, contexts.unit)
        about = (
            f"share kept by random sets of as many heads, {LEVELS[1]}: the mean of {RANDOM_SETS}"
        )
        axes = {"heads": names}
        results |= with_interval("random", random[0], random[1:], axes, about, contexts.unit)
        return results | {"decisions": decisions}

    def table(self, results):
        """Return the share that each set of heads keeps at each level, and random sets."""
        rows = rows_of(results, ("kept", ".2f"), ("random", ".2f"), intervals=["kept", "random"])
        return Table(["heads", *LEVELS, f"random heads, {LEVELS[1]}"], rows)


def read_relations(model: SequenceModel, method: Method) -> list[str]:
    """Return the relations of the tokens that heads may read, none if there is no hypothesis."""
    if encodes_rewards(model):
        return [] if method.within_episodes else ["rewarded"]
    return [name for name in relation_names(model) if name.endswith(RETURN)]


Place = tuple[np.ndarray, np.ndarray]  # windows and their entries, int64 [n] each


def draw(contexts: Contexts) -> tuple[Place, Place, Place]:
    """Draw decisions after a reward, and for each an agreeing decision and one of another group.

    The three have the same observation. The agreeing decision has the same group and is in another
    window. A decision without both is not drawn.
    """
    rng = np.random.default_rng(derive_key(0, "interpret", "scrubbing"))
    row, entry = np.nonzero(contexts.decided & contexts.reward_seen)
    group, cell = contexts.group[row], contexts.cell[row, entry]
    chosen = []
    for place in rng.permutation(len(row)):
        same = cell == cell[place]
        agreeing = np.flatnonzero(same & (group == group[place]) & (row != row[place]))
        other = np.flatnonzero(same & (group != group[place]))
        if len(agreeing) and len(other):
            chosen.append((place, rng.choice(agreeing), rng.choice(other)))
        if len(chosen) == NUM_DECISIONS:
            break
    columns = np.array(chosen, np.int64).reshape(-1, 3).T
    own, agreeing, other = ((row[column], entry[column]) for column in columns)
    return own, agreeing, other


def draw_asked(contexts: Contexts) -> tuple[Place, Place, Place]:
    """Draw decisions, for each an agreeing decision, and the decision itself once more.

    The agreeing decision is of another group and has the same return-to-go. A decision without one
    is not drawn.
    """
    rng = np.random.default_rng(derive_key(0, "interpret", "scrubbing"))
    row, entry = np.nonzero(contexts.decided)
    left = contexts.window[RETURN_TO_GO].cpu().numpy()[row, entry]
    group, own, agreeing = contexts.group[row], [], []
    for place in rng.permutation(len(row)):
        others = np.flatnonzero((left == left[place]) & (group != group[place]))
        if len(others) and len(own) < NUM_DECISIONS:
            own.append(place)
            agreeing.append(rng.choice(others))
    first, second = (np.array(places, np.int64) for places in (own, agreeing))
    place = row[first], entry[first]
    return place, (row[second], entry[second]), place


def asked_otherwise(contexts: Contexts, model: SequenceModel) -> Contexts:
    """Return the contexts asked for the end of the range of returns that is further away."""
    low, high = model.spec.return_range
    assert contexts.asked is not None  # the model reads the return to go
    value = np.where(contexts.asked - low > high - contexts.asked, low, high)
    return replace(contexts, window=contexts.window | asking(contexts, value, contexts.present))


@dataclass(frozen=True)
class Reads:
    """The outputs `z` of the heads at n decisions, and `related`, their terms of some tokens.

    Both are [n, layers, H, D]. `window` holds the decisions' windows, `token` marks the token of
    each decision, bool [n * streams, L], and `log_probs` are float64 [n, A].
    """

    window: dict[str, torch.Tensor]
    token: torch.Tensor
    log_probs: torch.Tensor
    z: torch.Tensor
    related: torch.Tensor


def read(
    model: SequenceModel,
    contexts: Contexts,
    row: np.ndarray,
    entry: np.ndarray,
    names: Sequence[str],
) -> Reads:
    """Return the Reads of the decisions `entry` of the windows `row`, of the relations `names`."""
    windows = contexts.select(row)
    decision = model.tokenizer.entries(windows.length)["observation"]
    token = (decision == torch.from_numpy(entry)[:, None, None]).flatten(0, 1)
    batches = [slice(start, start + BATCH) for start in range(0, max(len(row), 1), BATCH)]
    values = [_read(model, windows.select(batch), entry[batch], names) for batch in batches]
    return Reads(windows.window, token, *(torch.cat(each) for each in zip(*values, strict=True)))


@torch.inference_mode()
def _read(
    model: SequenceModel, batch: Contexts, entry: np.ndarray, names: Sequence[str]
) -> tuple[torch.Tensor, ...]:
    """Return `log_probs`, `z` and `related` of the decision `entry` of each window."""
    streams, queries = model.tokenizer.streams, decision_tokens(model, batch.length)
    at = torch.arange(len(batch)), torch.from_numpy(entry) - 1
    with hooked(model, ("*.hook_pattern", "*.hook_v", "*.hook_z")) as values:
        log_probs = model(batch.window)[at].double().log_softmax(-1)
    masks = relations(model, batch)
    mask = torch.stack([masks[name][at] for name in names]).any(0).to(log_probs.device)  # [n, K]
    z, related = [], []
    for layer in range(len(model.transformer.blocks)):
        name = f"blocks.{layer}.attn"
        pattern = at_tokens(values[f"{name}.hook_pattern"], streams, queries)[at[0], :, at[1]]
        v = values[f"{name}.hook_v"].unflatten(0, (-1, streams)).flatten(1, 2)  # [n, K, H, D]
        related.append(torch.einsum("nhk,nkhd->nhd", pattern * mask[:, None], v))
        z.append(model.tokenizer.at_decisions(values[f"{name}.hook_z"])[at])
    return log_probs, torch.stack(z, 1), torch.stack(related, 1)


@dataclass(frozen=True)
class Tree:
    """The Reads of n decisions, of n agreeing decisions, and of n other decisions."""

    own: Reads
    agreeing: Reads
    other: Reads
    model: SequenceModel

    def divergence(self, level: str | None, heads: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the divergence (nats) of each decision at a level of the tree, float64 [n].

        `heads` are numbers in the order of layers. Without a level, all is of the other decision.
        """
        log_probs = self.other.log_probs if level is None else self._scrubbed(level, heads)
        return compared(self.own.log_probs, log_probs)[..., 0].cpu().numpy()

    def _scrubbed(self, level: str, heads: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Return the log probabilities with values of `heads` replaced, float64 [n, A]."""
        before = self.other.z
        replaced = torch.zeros(before.shape[1:3], dtype=torch.bool, device=before.device)
        replaced.view(-1)[list(heads)] = True
        z = torch.where(replaced[..., None], self._outputs(level), before)
        blocks, writes = self.model.transformer.in_turn, {}
        if level == LEVELS[3]:
            each = zip(z.unbind(1), before.unbind(1), blocks, strict=True)
            writes_of = ((new - old).flatten(1) @ own.attn.out.weight.T for new, old, own in each)
            added = reduce(operator.add, writes_of)
            last = f"blocks.{len(blocks) - 1}.hook_resid_post"
            writes[last] = self._at_decisions(lambda value: value + added)
        else:
            for layer in set(replaced.nonzero()[:, 0].tolist()):
                writes[f"blocks.{layer}.attn.hook_z"] = self._at_decisions(
                    partial(torch.where, replaced[layer][:, None], z[:, layer])
                )
        with torch.inference_mode(), hooked(self.model, write=writes):
            hidden = self.model.transformer(self.model.tokenizer(self.other.window))
            return self.model.logits(hidden[self.other.token]).double().log_softmax(-1)

    def _outputs(self, level: str) -> torch.Tensor:
        """Return the values that replace the heads' outputs at the decision, [n, layers, H, D]."""
        if level == LEVELS[0]:
            return self.own.z
        source = self.own if level == LEVELS[1] else self.agreeing
        return source.related + self.other.z - self.other.related

    def _at_decisions(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Write:
        """Return a hook that changes the values [n, ...] at the tokens of the decisions."""

        def write(value: torch.Tensor, point) -> torch.Tensor:
            value = value.clone()
            value[self.other.token] = change(value[self.other.token])
            return value

        return write
