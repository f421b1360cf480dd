"""Causal scrubbing: do some heads read the rewarded transitions and write the action?

If so, everything else in a decision's context can be replaced without a loss (Chan et al. 2022,
"Causal scrubbing"). The model makes a decision of another task at the same observation, with some
values at the decision's token replaced. Each level of the tree keeps less of the context:

    their outputs         the outputs of the heads, from the context itself
    what they read        only their terms from rewarded tokens; the others from the other task
    of agreeing contexts  these terms from another context of the task, at the same observation
    written directly      these terms added for the logits alone, without effect on later layers

The share kept is 1 - D(level) / D(nothing), where D is the KL divergence from the probabilities of
the intact model. Heads are ranked by the second level on half of the tasks; sets of the first heads
are scored on the other half.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ad.errors import ConfigError
from ad.interpret.analyses.pairs import recovery
from ad.interpret.analysis import Analysis, estimate_text
from ad.interpret.contexts import Contexts
from ad.interpret.hooks import Write, hooked
from ad.interpret.labeled import BOUND, Axes, LabeledArray, with_interval
from ad.interpret.relations import at_tokens, decision_tokens, encodes_rewards, relations
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table
from envs.rng import derive_key

NUM_DECISIONS = 512
BATCH = 64  # decisions whose attention is read at once
MOST_HEADS = 4  # of a set
RELATION = "rewarded"
LEVELS = ("their outputs", "what they read", "of agreeing contexts", "written directly")


class Scrubbing(Analysis):
    """Share of the loss that is kept if only some heads' reading of rewards is the context's."""

    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "kept": ("heads", "level"),
        "kept_interval": (BOUND, "heads", "level"),
        "decisions": ("task",),
    }

    @classmethod
    def check(cls, subject):
        """Raise ConfigError with the reason if the subject cannot be analyzed."""
        if not encodes_rewards(subject.model) or subject.method.within_episodes:
            raise ConfigError("the model does not read the rewards of earlier episodes")
        if subject.source == "rollout" and len(subject.run.split.held_out_tasks) < 2:
            raise ConfigError("there is one held-out task, and values are taken from another one")
        super().check(subject)

    def run(self, subject):
        """Return the share that each set of heads keeps, and the number of scored decisions."""
        model, contexts = subject.model, subject.contexts
        own, agreeing, other = draw(contexts)
        tree = Tree(*(read(model, contexts, *one) for one in (own, agreeing, other)), model)
        task, number = contexts.task[own[0]], len(contexts.tasks)

        def by_task(level: str | None, heads: Sequence[int]) -> np.ndarray:
            return np.bincount(task, tree.divergence(level, heads), number)

        ranked, scored = np.arange(number) % 2 == 0, np.arange(number) % 2 == 1
        alone = [by_task(LEVELS[1], [head])[ranked].sum() for head in range(len(subject.heads))]
        order = np.argsort(alone, kind="stable")[:MOST_HEADS]
        sets = [order[: count + 1] for count in range(len(order))]
        left = [[by_task(level, heads)[scored] for level in LEVELS] for heads in sets]
        left = np.array(left).reshape(len(sets) * len(LEVELS), -1).T
        kept = recovery(left, by_task(None, [])[scored]).reshape(3, len(sets), len(LEVELS))
        names = ["+".join(subject.heads[head] for head in heads) for heads in sets]
        axes = {"heads": names, "level": list(LEVELS)}
        about = "share kept: 1 - divergence / divergence with all of another task"
        decisions = LabeledArray(
            np.bincount(task, minlength=number)[scored],
            {"task": [name for name, used in zip(contexts.tasks, scored, strict=True) if used]},
            "decisions after a reward that are scored",
        )
        results = with_interval("kept", kept[0], kept[1:], axes, about)
        return results | {"decisions": decisions}

    def table(self, results):
        """Return the share that each set of heads keeps at each level."""
        kept, interval = results["kept"], results["kept_interval"]
        rows = []
        for heads in kept.axes["heads"]:
            bounds = interval.at(heads=heads)
            cells = [
                estimate_text(*numbers, ".2f")
                for numbers in zip(kept.at(heads=heads), *bounds, strict=True)
            ]
            rows.append([heads, *cells])
        return Table(["heads", *LEVELS], rows)


Place = tuple[np.ndarray, np.ndarray]  # windows and their entries, int64 [n] each


def draw(contexts: Contexts) -> tuple[Place, Place, Place]:
    """Draw decisions after a reward, and for each an agreeing decision and one of another task.

    The three have the same observation. The agreeing decision has the same task and is in another
    window. A decision without both is not drawn.
    """
    rng = np.random.default_rng(derive_key(0, "interpret", "scrubbing"))
    row, entry = np.nonzero(contexts.decided & contexts.reward_seen)
    task, cell = contexts.task[row], contexts.cell[row, entry]
    chosen = []
    for place in rng.permutation(len(row)):
        same = cell == cell[place]
        agreeing = np.flatnonzero(same & (task == task[place]) & (row != row[place]))
        other = np.flatnonzero(same & (task != task[place]))
        if len(agreeing) and len(other):
            chosen.append((place, rng.choice(agreeing), rng.choice(other)))
        if len(chosen) == NUM_DECISIONS:
            break
    columns = np.array(chosen, np.int64).reshape(-1, 3).T
    own, agreeing, other = ((row[column], entry[column]) for column in columns)
    return own, agreeing, other


@dataclass(frozen=True)
class Reads:
    """The outputs `z` of the heads at n decisions, and `related`, their terms of rewarded tokens.

    Both are [n, layers, H, D]. `window` holds the decisions' windows, `token` marks the token of
    each decision, bool [n * streams, L], and `log_probs` are float64 [n, A].
    """

    window: dict[str, torch.Tensor]
    token: torch.Tensor
    log_probs: torch.Tensor
    z: torch.Tensor
    related: torch.Tensor


def read(model: SequenceModel, contexts: Contexts, row: np.ndarray, entry: np.ndarray) -> Reads:
    """Return the Reads of the decisions `entry` of the windows `row`."""
    windows = contexts.select(row)
    decision = model.tokenizer.entries(windows.length)["observation"]
    token = (decision == torch.from_numpy(entry)[:, None, None]).flatten(0, 1)
    batches = [slice(start, start + BATCH) for start in range(0, max(len(row), 1), BATCH)]
    values = [_read(model, windows.select(batch), entry[batch]) for batch in batches]
    return Reads(windows.window, token, *(torch.cat(each) for each in zip(*values, strict=True)))


@torch.inference_mode()
def _read(model: SequenceModel, batch: Contexts, entry: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Return `log_probs`, `z` and `related` of the decision `entry` of each window."""
    streams, queries = model.tokenizer.streams, decision_tokens(model, batch.length)
    at = torch.arange(len(batch)), torch.from_numpy(entry) - 1
    with hooked(model, ("*.hook_pattern", "*.hook_v", "*.hook_z")) as values:
        log_probs = model(batch.window)[at].double().log_softmax(-1)
    mask = relations(model, batch)[RELATION][at].to(log_probs.device)  # [n, K]
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
    """The Reads of n decisions, of n agreeing decisions, and of n decisions of other tasks."""

    own: Reads
    agreeing: Reads
    other: Reads
    model: SequenceModel

    def divergence(self, level: str | None, heads: Sequence[int]) -> np.ndarray:
        """Return the divergence (nats) of each decision at a level of the tree, float64 [n].

        `heads` are numbers in the order of layers. Without a level, everything is of another task.
        """
        log_probs = self.other.log_probs if level is None else self._scrubbed(level, heads)
        own = self.own.log_probs
        return (own.exp() * (own - log_probs)).sum(-1).cpu().numpy()

    def _scrubbed(self, level: str, heads: Sequence[int]) -> torch.Tensor:
        """Return the log probabilities with values of `heads` replaced, float64 [n, A]."""
        before = self.other.z
        replaced = torch.zeros(before.shape[1:3], dtype=torch.bool, device=before.device)
        replaced.view(-1)[list(heads)] = True
        z = torch.where(replaced[..., None], self._outputs(level), before)
        blocks, writes = self.model.transformer.blocks, {}
        if level == LEVELS[3]:
            added = sum(
                (new - old).flatten(1) @ block.attn.out.weight.T
                for new, old, block in zip(z.unbind(1), before.unbind(1), blocks, strict=True)
            )
            writes[f"blocks.{len(blocks) - 1}.hook_resid_post"] = self._add(added)
        else:
            for layer in set(replaced.nonzero()[:, 0].tolist()):
                writes[f"blocks.{layer}.attn.hook_z"] = self._put(z[:, layer], replaced[layer])
        with torch.inference_mode(), hooked(self.model, write=writes):
            hidden = self.model.transformer(self.model.tokenizer(self.other.window))
            return self.model.head(hidden[self.other.token]).double().log_softmax(-1)

    def _outputs(self, level: str) -> torch.Tensor:
        """Return the values that replace the heads' outputs at the decision, [n, layers, H, D]."""
        if level == LEVELS[0]:
            return self.own.z
        source = self.own if level == LEVELS[1] else self.agreeing
        return source.related + self.other.z - self.other.related

    def _put(self, z: torch.Tensor, heads: torch.Tensor) -> Write:
        """Return a hook that replaces the outputs of `heads`, bool [H], by z [n, H, D]."""

        def write(value: torch.Tensor, point) -> torch.Tensor:
            value = value.clone()
            value[self.other.token] = torch.where(heads[:, None], z, value[self.other.token])
            return value

        return write

    def _add(self, added: torch.Tensor) -> Write:
        """Return a hook that adds `added` [n, C] at the tokens of the decisions."""

        def write(value: torch.Tensor, point) -> torch.Tensor:
            value = value.clone()
            value[self.other.token] += added
            return value

        return write
