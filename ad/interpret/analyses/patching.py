"""Activation patching: which values carry what differs between two contexts.

A context is changed in one thing (`changes.py`). The model runs on the changed context, with the
value at a point taken from its run on the original context (Meng et al. 2022, arXiv 2202.05262);
`pairs.py` defines the recovery. Steering adds the mean difference of the two residual streams at
the last decision, taken from half of the tasks or episodes, and is scored on the other half.
"""

from typing import ClassVar

import numpy as np
import torch

from ad.interpret.analyses.pairs import (
    Pair,
    Patches,
    effects,
    head_patches,
    labeled_recoveries,
    make_pairs,
    place_patches,
    recovery,
)
from ad.interpret.analysis import Analysis, rows_of
from ad.interpret.labeled import Axes
from ad.interpret.relations import relation_names, relations
from ad.reporting.page import Table


class Patching(Analysis):
    """Recovery of each change of the context by single values of the unchanged run."""

    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "effect": ("change", "measure"),
        "head": ("change", "head"),
        "place": ("change", "place"),
        "relation": ("change", "relation"),
        "steering": ("change", "stage"),
    }

    def run(self, subject):
        """Return the effect of each change, and recoveries by head, place, relation and layer."""
        pairs = make_pairs(subject)
        axes, results = {"change": list(pairs)}, {"effect": effects(pairs)}
        about = "recovery by {}: 1 - divergence with the patch / divergence without"
        unit = subject.contexts.unit
        kinds = {"head": head_patches, "place": place_patches, "relation": relation_patches}
        for kind, patches in kinds.items():
            labels = [label for label, _ in patches(next(iter(pairs.values())))]
            values = [pair.recoveries(dict(patches(pair))) for pair in pairs.values()]
            results |= labeled_recoveries(
                kind, np.stack(values), {**axes, kind: labels}, about.format(kind), unit
            )
        layers = range(len(subject.model.transformer.blocks))
        named = {**axes, "stage": [f"before layer {layer}" for layer in layers]}
        steered = np.stack([steering(pair) for pair in pairs.values()])
        about = about.format("steering")
        return results | labeled_recoveries("steering", steered, named, about, unit)

    def table(self, results):
        """Return the effect of each change, and the recovery by head and by steering."""
        effect, heads, steered = (results[n] for n in ("effect", "head", "steering"))
        header = ["change", *effect.axes["measure"], *(f"head {h}" for h in heads.axes["head"])]
        header += [f"steering, {stage}" for stage in steered.axes["stage"]]
        rows = rows_of(results, ("effect", ".2f"), ("head", ".2f"), ("steering", ".2f"))
        return Table(header, rows)


def relation_patches(pair: Pair) -> Patches:
    """Yield patches of the residual stream before each layer, at the tokens in a relation."""
    model, streams = pair.model, pair.model.tokenizer.streams
    masks = relations(model, pair.queries.contexts)
    for layer in range(len(model.transformer.blocks)):
        name = f"blocks.{layer}.hook_resid_pre"
        for relation in relation_names(model):
            mask = pair.queries.at_last(masks[relation])  # [N, K]
            if not mask.any():
                continue
            mask = mask.unflatten(1, (streams, -1)).flatten(0, 1).to(pair.values[name].device)
            yield f"before layer {layer}, {relation}", {name: pair.patch(name, mask[..., None])}


def steering(pair: Pair) -> np.ndarray:
    """Return the recovery by the mean difference before each layer, and its interval: [3, layers].

    The difference is a mean over the groups of even numbers, the recovery one over the others.
    """
    contexts, layers = pair.queries.contexts, range(len(pair.model.transformer.blocks))
    fitted = torch.from_numpy((contexts.group % 2 == 0) & pair.differs)
    scored = np.arange(len(contexts.groups)) % 2 == 1
    if not fitted.any():
        return np.full((3, len(layers)), np.nan)
    token, left = pair.token_mask(pair.queries.last[:, None], pair.decisions), []
    rows = token.any(1)
    for name in (f"blocks.{layer}.hook_resid_pre" for layer in layers):
        change = pair.values[name] - pair.other_values[name]
        difference = change[rows][token[rows]][fitted].mean(0)

        def add(value, point, difference=difference):
            return value + token[..., None] * difference

        left.append(pair.patched({name: add})[scored])
    return recovery(np.stack(left, axis=1), pair.divergence[scored])
