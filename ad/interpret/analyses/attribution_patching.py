"""Attribution patching: the recovery of every head at every place, by one gradient a change.

The effect of a patch (`pairs.py`) is estimated to first order: the gradient of the
divergence at the values on the changed context, times the difference of the original values from
these (Nanda 2023, "Attribution Patching"; Syed et al. 2023, arXiv 2310.10348, section 3). One
backward pass estimates all patches at once; for long contexts there are too many to make each one.
The agreement is the correlation of the estimates with the recoveries of activation patching.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from ad.evaluation.scores import UNKNOWN
from ad.interpret.analyses.pairs import (
    POINTS,
    Pair,
    effects,
    head_patches,
    labeled_recoveries,
    make_pairs,
    place_groups,
    place_patches,
    recovery,
)
from ad.interpret.analysis import Analysis, correlation, texts
from ad.interpret.hooks import Values, hooked
from ad.interpret.labeled import Axes, LabeledArray
from ad.reporting.page import Table

KINDS = {"head": head_patches, "place": place_patches}  # patches that are made and estimated


class AttributionPatching(Analysis):
    """Estimated recovery of each head at each decision, and its agreement with real patches."""

    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "effect": ("change", "measure"),
        "head_place": ("change", "head", "before"),
        "head": ("change", "head"),
        "place": ("change", "place"),
        "agreement": ("change", "kind"),
    }

    def run(self, subject):
        """Return the estimates by head and decision, by kind of patch, and their agreement."""
        pairs = make_pairs(subject)
        axes, results = {"change": list(pairs)}, {"effect": effects(pairs)}
        values = [estimates(pair) for pair in pairs.values()]  # by kind, [3, ...]
        places = {"head": subject.heads, "before": list(range(subject.contexts.length))}
        about = "estimated recovery: gradient of the divergence times the change of the value"
        unit = subject.contexts.unit
        by_place = np.stack([value["head_place"] for value in values])
        about_places = f"{about}, by decisions before the last"
        axes_of_places = {**axes, **places}
        results |= labeled_recoveries("head_place", by_place, axes_of_places, about_places, unit)
        agreement = np.full((len(pairs), len(KINDS)), np.nan)
        for number, (kind, patches) in enumerate(KINDS.items()):
            labels = [label for label, _ in patches(next(iter(pairs.values())))]
            estimated = np.stack([value[kind] for value in values])
            results |= labeled_recoveries(kind, estimated, {**axes, kind: labels}, about, unit)
            for row, pair in enumerate(pairs.values()):
                made = pair.recoveries(dict(patches(pair)))[0]
                agreement[row, number] = correlation(estimated[row, 0], made)
        results["agreement"] = LabeledArray(
            agreement,
            {**axes, "kind": list(KINDS)},
            "correlation of estimated recoveries with those by activation patching, over patches",
        )
        return results

    def table(self, results):
        """Return the agreement, and the head and decision of the highest estimate by change."""
        effect, agreement, heads = (results[n] for n in ("effect", "agreement", "head_place"))
        header = ["change", "divergence (nats)", *(f"agreement by {kind}" for kind in KINDS)]
        header += ["strongest head", "decisions before the last", "estimated recovery"]
        rows = []
        for change in effect.axes["change"]:
            values = heads.at(change=change)
            numbers = [effect.at(change=change)[0], *agreement.at(change=change)]
            cells = texts(numbers, ".2f")
            strongest = [UNKNOWN] * 3
            if not np.isnan(values).all():
                head, before = np.unravel_index(np.nanargmax(values), values.shape)
                strongest = [heads.axes["head"][head], str(before), f"{values[head, before]:.2f}"]
            rows.append([change, *cells, *strongest])
        return Table(header, rows)


def estimates(pair: Pair) -> dict[str, np.ndarray]:
    """Return the estimated recoveries and their intervals, [3, ...] each.

    `head_place` is [3, heads, T] by the number of decisions before the last one. `head` [3, heads]
    and `place` [3, layers * groups] estimate `head_patches` and `place_patches`.
    """
    products = first_order(pair, gradients(pair))
    layers = range(len(pair.model.transformer.blocks))
    heads = [
        of_places(pair, value)
        for layer in layers
        for value in products[f"blocks.{layer}.attn.hook_z"].sum(-1).unbind(-1)
    ]
    stages = [of_places(pair, products[f"blocks.{n}.hook_resid_pre"].sum(-1)) for n in layers]
    length = pair.queries.contexts.length
    groups = [stage[:, low:high].sum(1) for stage in stages for low, high in place_groups(length)]
    changes = {"head_place": np.stack(heads, 1), "place": np.stack(groups, 1)}
    changes["head"] = changes["head_place"].sum(2)
    return {name: _recovered(pair, change) for name, change in changes.items()}


def gradients(pair: Pair) -> Values:
    """Return the gradient of the summed divergence at POINTS on the changed contexts."""

    def begin(value: torch.Tensor, point) -> torch.Tensor:
        return value.detach().requires_grad_()  # the weights of the model are frozen

    with torch.enable_grad(), hooked(pair.model, POINTS, {"hook_embed": begin}) as values:
        divergence = pair.distance(pair.log_probs(pair.other)).sum()
        derivatives = torch.autograd.grad(divergence, list(values.values()))
    return dict(zip(values, derivatives, strict=True))


def first_order(pair: Pair, gradients: Mapping[str, torch.Tensor]) -> Values:
    """Return the products of `gradients` with the original minus the changed values."""
    return {
        name: gradient * (pair.values[name] - pair.other_values[name])
        for name, gradient in gradients.items()
    }


def of_places(pair: Pair, products: torch.Tensor) -> np.ndarray:
    """Return the sums [K, T] by group and decisions before the last of `products` [N * S, L]."""
    length, places = pair.queries.contexts.length, torch.from_numpy(pair.places)
    total = torch.zeros((len(places), length + 1), dtype=torch.float64)
    total.scatter_add_(1, places, products.double().cpu())  # later tokens have no gradient
    by_context = total.unflatten(0, (-1, pair.model.tokenizer.streams)).sum(1)
    return pair.by_group(by_context[:, :length])


def _recovered(pair: Pair, change: np.ndarray) -> np.ndarray:
    """Return the recovery of changes [K, ...] of the divergence and its interval, [3, ...]."""
    left = pair.divergence[:, None] + change.reshape(len(change), -1)
    return recovery(left, pair.divergence).reshape(3, *change.shape[1:])
