"""Activation patching: which values carry what differs between two contexts.

A context is changed in one thing (`changes.py`). The model runs on the changed one, with the value
at a point taken from its run on the context as it was (Meng et al. 2022, arXiv 2202.05262). The
recovery is 1 - D(patched) / D(changed), where D is the KL divergence of the action probabilities
at the last decision from those on the context as it was: 0 if the value does nothing, 1 if it
carries all. Steering adds the mean difference of the two residual streams at the last decision,
taken from half of the tasks, and is scored on the other half.
"""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch

from ad.data.episodes import ratio
from ad.evaluation.metrics import RESAMPLES
from ad.interpret.analysis import Analysis
from ad.interpret.changes import Queries, changed, changes, make_queries
from ad.interpret.contexts import Contexts
from ad.interpret.hooks import Write, hooked
from ad.interpret.labeled import LabeledArray
from ad.interpret.relations import relation_names, relations
from ad.models.sequence_model import SequenceModel
from ad.reporting.tables import UNKNOWN, Table
from envs.rng import derive_key

NUM_CONTEXTS = 64
MOST_PLACES = 16  # groups of adjacent decisions that are patched together


class Patching(Analysis):
    """How much of a change of the context is undone by one value of the unchanged run."""

    reads_outputs: ClassVar[bool] = True

    @classmethod
    def problem(cls, subject):
        """Return why the model does not have this analysis, None if it does."""
        if not changes(subject.model, subject.method, subject.source == "rollout"):
            return "needs a model that reads rewards, earlier episodes or an asked return"
        return super().problem(subject)

    def run(self, subject):
        """Return the effect of each change, and recoveries by head, place, relation and layer."""
        model, method = subject.model, subject.method
        queries = make_queries(subject.contexts, NUM_CONTEXTS)
        names = list(changes(model, method, queries.contexts.asked is not None))
        pairs = [Pair(model, queries, changed(queries, name, model, method)) for name in names]
        axes, bound = {"change": names}, {"bound": ["low", "high"]}
        effect = np.stack([pair.effect() for pair in pairs])
        measured = {"measure": ["divergence (nats)", "another best action"]}
        about = "effect of a change: mean over the contexts that it changes"
        results = {"effect": LabeledArray(effect, {**axes, **measured}, about)}
        kinds = {"head": _head_patches, "place": _place_patches, "relation": _relation_patches}
        for kind, patches in kinds.items():
            labels = [label for label, _ in patches(pairs[0])]
            found = [pair.recoveries(dict(patches(pair))) for pair in pairs]
            results |= _recovery(kind, np.stack(found), {**axes, kind: labels}, bound)
        labels = [f"before layer {layer}" for layer in range(len(model.transformer.blocks))]
        steered = np.stack([pair.steering() for pair in pairs])
        return results | _recovery("steering", steered, {**axes, "stage": labels}, bound)

    def table(self, results):
        """Return the effect of each change, and the recovery by head and by steering."""
        effect, heads, steering = (results[n] for n in ("effect", "head", "steering"))
        header = ["change", *effect.axes["measure"], *(f"head {h}" for h in heads.axes["head"])]
        header += [f"steering, {stage}" for stage in steering.axes["stage"]]
        values = np.concatenate([effect.values, heads.values, steering.values], axis=1)
        rows = [
            [name, *(UNKNOWN if np.isnan(value) else f"{value:.2f}" for value in row)]
            for name, row in zip(effect.axes["change"], values, strict=True)
        ]
        return Table(header, rows)


class Pair:
    """N contexts as they were and changed, with the values of the model on the former."""

    def __init__(self, model: SequenceModel, queries: Queries, other: Contexts):
        self.model, self.queries, self.other = model, queries, other
        with torch.inference_mode():
            with hooked(model, ("*.hook_resid_pre", "*.hook_z")) as self.values:
                self.before = self.log_probs(queries.contexts)
            with hooked(model, ("*.hook_resid_pre",)) as self.other_values:
                self.after = self.log_probs(other)
        self.differs = self._differs()
        self.divergence = self.by_task(self.distance(self.after))

    def log_probs(self, contexts: Contexts) -> torch.Tensor:
        """Return the log probabilities of actions at the last decisions, float64 [N, A]."""
        logits = self.queries.at_last(self.model(contexts.window))
        return logits.double().log_softmax(-1)

    def distance(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Return the KL divergence (nats) of `log_probs` from the unchanged ones, [N]."""
        return (self.before.exp() * (self.before - log_probs)).sum(-1)

    def by_task(self, values: torch.Tensor) -> np.ndarray:
        """Return the sums [K] of values [N] over the contexts of each task that are changed."""
        contexts = self.queries.contexts
        values = np.where(self.differs, values.cpu().numpy(), 0.0)
        return np.bincount(contexts.task, values, len(contexts.tasks))

    def effect(self) -> np.ndarray:
        """Return the mean divergence and the share of contexts with another best action.

        They are those of the contexts that are changed, NaN if there are none.
        """
        another = self.before.argmax(-1) != self.after.argmax(-1)
        measures = torch.stack([self.distance(self.after), another.double()]).cpu().numpy()
        return ratio(measures[:, self.differs].sum(1), self.differs.sum())

    def _differs(self) -> np.ndarray:
        """Return which contexts are changed, bool [N]."""
        before, other = self.queries.contexts.window, self.other.window
        same = [(other[name] == before[name]) | (other[name] != other[name]) for name in before]
        return ~torch.stack([values.flatten(1).all(1) for values in same]).all(0).cpu().numpy()

    def patched(self, writes: dict[str, Write]) -> np.ndarray:
        """Return the sums [K] of the divergence that is left with `writes`."""
        with torch.inference_mode(), hooked(self.model, write=writes):
            return self.by_task(self.distance(self.log_probs(self.other)))

    def recoveries(self, patches: dict[str, dict[str, Write]]) -> np.ndarray:
        """Return the recovery of each patch and its interval, [3, patches]."""
        left = np.stack([self.patched(writes) for writes in patches.values()], axis=1)
        return recovery(left, self.divergence)

    def steering(self) -> np.ndarray:
        """Return the recovery by the mean difference before each layer, and its interval.

        The difference is that of the tasks of even numbers, the recovery that of the others.
        """
        fitted = torch.from_numpy((self.queries.contexts.task % 2 == 0) & self.differs)
        scored = np.arange(len(self.queries.contexts.tasks)) % 2 == 1
        if not fitted.any():
            return np.full((3, len(self.other_values)), np.nan)
        token, left = self.token_mask(self.queries.last[:, None], self.decisions), []
        for name, value in self.other_values.items():
            rows = token.any(1)
            difference = (self.values[name] - value)[rows][token[rows]][fitted].mean(0)

            def add(value, point, difference=difference):
                return value + token[..., None] * difference

            left.append(self.patched({name: add})[scored])
        return recovery(np.stack(left, axis=1), self.divergence[scored])

    def patch(self, name: str, mask: torch.Tensor) -> Write:
        """Return the function that puts the unchanged value at `name` where `mask` is true."""
        return lambda value, point: torch.where(mask, self.values[name], value)

    @property
    def decisions(self) -> torch.Tensor:
        """Which decision each token predicts the action of, int64 [streams, L]; -1 for none."""
        return self.model.tokenizer.entries(self.queries.contexts.length)["observation"]

    def token_mask(self, wanted: np.ndarray, entries: torch.Tensor) -> torch.Tensor:
        """Return the tokens whose `entries` [streams, L] are among `wanted` [N, n].

        bool [N * streams, L].
        """
        among = entries[None, ..., None] == torch.from_numpy(wanted)[:, None, None]
        return among.any(-1).flatten(0, 1).to(self.model.head.weight.device)


Patches = Iterator[tuple[str, dict[str, Write]]]


def _head_patches(pair: Pair) -> Patches:
    """Yield the output of each head at all positions."""
    transformer = pair.model.transformer
    for layer in range(len(transformer.blocks)):
        name = f"blocks.{layer}.attn.hook_z"
        for head in range(transformer.heads):
            mask = torch.arange(transformer.heads, device=pair.values[name].device) == head
            yield f"{layer}.{head}", {name: pair.patch(name, mask[:, None])}


def _place_patches(pair: Pair) -> Patches:
    """Yield the residual stream before each layer, at groups of decisions counted from the last."""
    length = pair.queries.contexts.length
    size = -(-length // MOST_PLACES)
    entries = pair.model.tokenizer.entries(length)["decision"]
    for layer in range(len(pair.model.transformer.blocks)):
        name = f"blocks.{layer}.hook_resid_pre"
        for start in range(0, length, size):
            wanted = pair.queries.last[:, None] - np.arange(start, start + size)
            mask = pair.token_mask(np.where(wanted > 0, wanted, -2), entries)
            label = f"before layer {layer}, {start} to {start + size - 1} decisions before"
            yield label, {name: pair.patch(name, mask[..., None])}


def _relation_patches(pair: Pair) -> Patches:
    """Yield the residual stream before each layer, at the tokens in a relation to the decision."""
    model, streams = pair.model, pair.model.tokenizer.streams
    masks = relations(model, pair.queries.contexts)
    for layer in range(len(model.transformer.blocks)):
        name = f"blocks.{layer}.hook_resid_pre"
        for relation in relation_names(model):
            mask = pair.queries.at_last(masks[relation])  # [N, K]
            mask = mask.unflatten(1, (streams, -1)).flatten(0, 1).to(pair.values[name].device)
            yield f"before layer {layer}, {relation}", {name: pair.patch(name, mask[..., None])}


def recovery(left: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return 1 - left / whole over all tasks and its 95 % interval: [3, P].

    `left` [K, P] and `whole` [K] are sums by task, which the interval resamples. NaN where the
    change does nothing.
    """
    if not whole.sum() > 1e-9:
        return np.full((3, left.shape[1]), np.nan)
    rng = np.random.default_rng(derive_key(0, "interpret", "recovery"))
    weights = rng.multinomial(len(whole), np.full(len(whole), 1 / len(whole)), RESAMPLES)
    weights = np.concatenate([np.ones((1, len(whole)), int), weights])
    total = weights @ whole
    shares = 1 - (weights @ left) / np.where(total > 1e-9, total, np.nan)[:, None]
    return np.stack([shares[0], *np.nanquantile(shares[1:], (0.025, 0.975), axis=0)])


def _recovery(name: str, values: np.ndarray, axes: dict, bound: dict) -> dict[str, LabeledArray]:
    """Return the recoveries [changes, 3, P] and their intervals as labeled arrays."""
    about = f"recovery by {name}: 1 - divergence with the patch / divergence without"
    return {
        name: LabeledArray(values[:, 0], axes, about),
        f"{name}_interval": LabeledArray(
            values[:, 1:].swapaxes(0, 1), {**bound, **axes}, "95 % interval over tasks"
        ),
    }
