"""Pairs of contexts that differ in one change, and how much of the change a patch undoes.

The model runs on the changed context, with some values taken from its run on the original context.
The recovery is 1 - D(patched) / D(changed), where D is the KL divergence of the action
probabilities at the last decision from the probabilities on the original context: 0 if the patch
has no effect, 1 if it undoes the change.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from ad.data.episodes import ratio
from ad.evaluation.metrics import RESAMPLES
from ad.interpret.analysis import MEASURES, Subject, compared
from ad.interpret.changes import Queries, changed, changes, make_queries
from ad.interpret.contexts import Contexts
from ad.interpret.hooks import Write, hooked
from ad.interpret.labeled import LabeledArray, Results, with_interval
from ad.models.sequence_model import SequenceModel
from envs.rng import derive_key

NUM_CONTEXTS = 64
MOST_PLACES = 16  # groups of adjacent decisions that are patched together
POINTS = ("*.hook_resid_pre", "*.hook_resid_mid", "*.hook_resid_post", "*.hook_z")

Patches = Iterator[tuple[str, dict[str, Write]]]  # label, and hooks that write original values


class Pair:
    """N contexts, original and changed, with the values of the model on both at POINTS."""

    def __init__(self, model: SequenceModel, queries: Queries, other: Contexts):
        self.model, self.queries, self.other = model, queries, other
        with torch.no_grad():  # inference tensors could not be part of a graph with gradients
            with hooked(model, POINTS) as self.values:
                self.before = self.log_probs(queries.contexts)
            with hooked(model, POINTS) as self.other_values:
                self.after = self.log_probs(other)
        self.differs = self._differs()
        self.divergence = self.by_group(self.distance(self.after))

    def log_probs(self, contexts: Contexts) -> torch.Tensor:
        """Return the log probabilities of actions at the last decisions, float64 [N, A]."""
        logits = self.queries.at_last(self.model(contexts.window))
        return logits.double().log_softmax(-1)

    def distance(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Return the KL divergence (nats) of `log_probs` from the original ones, [N]."""
        return compared(self.before, log_probs)[..., 0]

    def by_group(self, values: torch.Tensor) -> np.ndarray:
        """Return the sums [K, ...] of values [N, ...] over the changed contexts of each group."""
        return self.queries.by_group(values.cpu().numpy(), self.differs)

    def effect(self) -> np.ndarray:
        """Return the mean divergence and the share of contexts with another best action.

        Both are over the contexts that differ, NaN if there are none.
        """
        measures = compared(self.before, self.after).cpu().numpy()
        return ratio(measures[self.differs].sum(0), self.differs.sum())

    def _differs(self) -> np.ndarray:
        """Return which contexts the change alters, bool [N]."""
        before, other = self.queries.contexts.window, self.other.window
        same = [(other[name] == before[name]) | (other[name] != other[name]) for name in before]
        return ~torch.stack([values.flatten(1).all(1) for values in same]).all(0).cpu().numpy()

    def patched(self, writes: dict[str, Write]) -> np.ndarray:
        """Return the sums [K] of the remaining divergence with `writes`."""
        with torch.inference_mode(), hooked(self.model, write=writes):
            return self.by_group(self.distance(self.log_probs(self.other)))

    def recoveries(self, patches: dict[str, dict[str, Write]]) -> np.ndarray:
        """Return the recovery of each patch and its interval, [3, patches]."""
        left = np.stack([self.patched(writes) for writes in patches.values()], axis=1)
        return recovery(left, self.divergence)

    def patch(self, name: str, mask: torch.Tensor) -> Write:
        """Return a hook that writes the original value at `name` where `mask` is true."""
        return lambda value, point: torch.where(mask, self.values[name], value)

    @property
    def decisions(self) -> torch.Tensor:
        """Which decision each token predicts the action of, int64 [streams, L]; -1 for none."""
        return self.model.tokenizer.entries(self.queries.contexts.length)["observation"]

    @property
    def places(self) -> np.ndarray:
        """The number of decisions from each token to the last one, int64 [N * streams, L].

        Tokens after the last decision have the window's length.
        """
        length = self.queries.contexts.length
        entries = self.model.tokenizer.entries(length)["decision"].numpy()
        before = self.queries.last[:, None, None] - entries
        return np.where(before < 0, length, before).reshape(-1, entries.shape[1])

    def token_mask(self, wanted: np.ndarray, entries: torch.Tensor) -> torch.Tensor:
        """Return the tokens whose `entries` [streams, L] are among `wanted` [N, n].

        bool [N * streams, L].
        """
        among = entries[None, ..., None] == torch.from_numpy(wanted)[:, None, None]
        return among.any(-1).flatten(0, 1).to(self.model.head.weight.device)


def make_pairs(subject: Subject) -> dict[str, Pair]:
    """Return the pair of each change that the tokens of the model can encode, by its name."""
    model, method = subject.model, subject.method
    queries = make_queries(subject.contexts, NUM_CONTEXTS)
    contexts = queries.contexts
    names = changes(model, method, contexts.asked is not None, contexts.unit)
    return {name: Pair(model, queries, changed(queries, name, model, method)) for name in names}


def effects(pairs: dict[str, Pair]) -> LabeledArray:
    """Return the effect of each change."""
    axes = {"change": list(pairs), "measure": MEASURES}
    about = "effect of a change: mean over the contexts that it changes"
    return LabeledArray(np.stack([pair.effect() for pair in pairs.values()]), axes, about)


def head_patches(pair: Pair) -> Patches:
    """Yield patches of the output of each head, at all positions."""
    transformer = pair.model.transformer
    for layer in range(len(transformer.blocks)):
        name = f"blocks.{layer}.attn.hook_z"
        for head in range(transformer.heads):
            mask = torch.arange(transformer.heads, device=pair.values[name].device) == head
            yield f"{layer}.{head}", {name: pair.patch(name, mask[:, None])}


def place_patches(pair: Pair) -> Patches:
    """Yield patches of the residual stream before each layer, at groups of adjacent decisions."""
    places = torch.from_numpy(pair.places).to(pair.model.head.weight.device)
    length = pair.queries.contexts.length
    for layer in range(len(pair.model.transformer.blocks)):
        name = f"blocks.{layer}.hook_resid_pre"
        for start, stop in place_groups(length):
            mask = (start <= places) & (places < min(stop, length))
            label = f"before layer {layer}, {start} to {stop - 1} decisions before"
            yield label, {name: pair.patch(name, mask[..., None])}


def place_groups(length: int) -> list[tuple[int, int]]:
    """Return each group of decisions as (start, stop), counted back from the last decision."""
    size = -(-length // MOST_PLACES)
    return [(start, start + size) for start in range(0, length, size)]


def recovery(left: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return the recovery 1 - left / whole over all groups, and its 95 % interval: [3, P].

    `left` [K, P] and `whole` [K] are sums by group, which the interval resamples. All are NaN if
    the change has no effect, and the interval is NaN if it has an effect in one group only.
    """
    if not whole.sum() > 1e-9:
        return np.full((3, left.shape[1]), np.nan)
    rng = np.random.default_rng(derive_key(0, "interpret", "recovery"))
    weights = rng.multinomial(len(whole), np.full(len(whole), 1 / len(whole)), RESAMPLES)
    weights = np.concatenate([np.ones((1, len(whole)), int), weights])
    total = weights @ whole
    shares = 1 - (weights @ left) / np.where(total > 1e-9, total, np.nan)[:, None]
    interval = np.nanquantile(shares[1:], (0.025, 0.975), axis=0)
    return np.stack([shares[0], *(interval if (whole > 1e-9).sum() > 1 else interval * np.nan)])


def labeled_recoveries(
    name: str, values: np.ndarray, axes: Mapping[str, Sequence], about: str, unit: str
) -> Results:
    """Return recoveries and their intervals, [changes, 3, ...], as two labeled arrays."""
    return with_interval(name, values[:, 0], values[:, 1:].swapaxes(0, 1), axes, about, unit)
