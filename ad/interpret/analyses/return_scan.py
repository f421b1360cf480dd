"""The return-to-go scan: how the asked return changes preferences, and through which components.

Decisions of the rollouts are made again with asked returns from the lowest to the highest of the
histories, everything else unchanged. The preference for an action is its output minus the mean
output of all actions, and a sum over components (`attribution.py`). The slopes of the components'
contributions over the asked return sum to the slope of the preference. The correlation of a
component with the preference is over the asked returns of the same decision. The attention of each
head by relation (`relations.py`) is told by asked return, too. A chosen direction takes the place
of the preferences for the actions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from ad.data.episodes import ratio
from ad.errors import ConfigError
from ad.evaluation.scores import UNKNOWN
from ad.interpret.analyses.attention import masses
from ad.interpret.analyses.reading import Reading, component_names, outputs, read_values
from ad.interpret.analysis import MADE, ROLLOUT, Analysis, estimate_text, over_groups, texts
from ad.interpret.changes import asking
from ad.interpret.contexts import RETURN_TO_GO, Contexts
from ad.interpret.labeled import Axes, Results, with_interval
from ad.interpret.relations import relation_names, relations
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table

NUM_RETURNS = 9
MOST_WINDOWS = 512  # spread over the rollouts
BATCH = 16  # windows that are scanned at once: each is read once for every asked return
SHOWN = 3  # components of each action in the table


class ReturnScan(Analysis):
    """Slopes of the preference for each action over the asked return, by component."""

    reads_outputs: ClassVar[bool] = True
    sources: ClassVar[Sequence[str]] = (ROLLOUT, MADE)
    arrays: ClassVar[Axes] = {
        "probability": ("asked return", "action"),
        "preference": ("asked return", "action"),
        "contribution": ("asked return", "action", "component"),
        "attention": ("asked return", "head", "relation"),
        "slope": ("action", "component"),
        "correlation": ("action", "component"),
    }

    @classmethod
    def check(cls, subject):
        """Raise ConfigError with the reason if the subject cannot be analyzed."""
        spec = subject.model.spec
        if RETURN_TO_GO not in subject.model.tokenizer.inputs:
            raise ConfigError("it asks for returns: train the method decision_transformer")
        if spec.return_range[0] == spec.return_range[1]:
            raise ConfigError(
                "all histories have the same return: collect others with other returns"
            )
        super().check(subject)

    def run(self, subject):
        """Return probabilities, contributions and attention by asked return, and the slopes."""
        model = subject.model
        asked = np.linspace(*model.spec.return_range, NUM_RETURNS)
        direction, chosen = subject.choice.direction, subject.output_direction
        along = None if chosen is None else chosen[None]
        measure = partial(scan, model, asked=asked, directions=along)
        contexts = subject.contexts.where(subject.contexts.decided & subject.contexts.present)
        sums = contexts.spread(MOST_WINDOWS).sums(measure, BATCH)
        sums = {name: total.sum(1) for name, total in sums.items()}
        count, present, mass = (sums.pop(name) for name in ("count", "present", "attention"))
        means = {name: ratio(value.T, count).T for name, value in sums.items()}  # [K, ...]
        means["correlation"] = correlations(means)
        occurs = np.asarray(present.any(0))
        means["attention"] = ratio(mass, present[:, None, None])[..., occurs]
        names = [name for name, one in zip(relation_names(model), occurs, strict=True) if one]
        actions = {"action": list(range(model.spec.num_actions))}
        by_return = {"asked return": asked.tolist()}
        by_head = {**by_return, "head": subject.heads, "relation": names}
        by_action = {**by_return, **actions}
        actions = {"action": [direction]} if direction else actions
        preferred = {**by_return, **actions}
        contributed = {**preferred, "component": component_names(model)}
        by_component = {**actions, "component": ["preference", *component_names(model)]}
        abouts = {
            "probability": (by_action, "probability of an action"),
            "preference": (
                preferred,
                f"output along {direction}" if direction else "output of an action minus the mean",
            ),
            "contribution": (contributed, "contribution to this preference"),
            "attention": (by_head, "share of attention on the tokens of a relation"),
            "slope": (by_component, "slope over the asked return of the contribution to it"),
            "correlation": (by_component, "correlation of the contribution with the preference"),
        }
        results: Results = {}
        for name, (axes, about) in abouts.items():
            about, unit = f"{about}: mean over decisions", subject.contexts.unit
            about = f"{about} and {unit}s"
            results |= with_interval(name, *over_groups(means[name]), axes, about, unit)
        return results

    def table(self, results):
        """Return each action's dependence on the asked return, and its steepest components."""
        probability, slope, interval, correlation = (
            results[n] for n in ("probability", "slope", "slope_interval", "correlation")
        )
        asked, components = probability.axes["asked return"], slope.axes["component"]
        header = ["action", *(f"probability, {asked[end]:g} asked" for end in (0, -1))]
        header += ["slope of the preference"]
        header += [f"component {n} (slope, correlation)" for n in range(1, SHOWN + 1)]
        rows = []
        for action in slope.axes["action"]:
            slopes, r = (array.at(action=action) for array in (slope, correlation))
            order = 1 + np.argsort(-np.abs(slopes[1:]), kind="stable")[:SHOWN]
            steepest = [
                f"{components[n]} ({', '.join(texts((slopes[n], r[n]), '+.2f'))})" for n in order
            ]
            ends = [UNKNOWN] * 2  # along a direction there is no probability
            if action in probability.axes["action"]:
                ends = texts(probability.at(action=action)[[0, -1]], ".3f")
            bounds = interval.at(action=action, component="preference")
            slope_cell = estimate_text(slopes[0], *bounds, "+.3f")
            rows.append([str(action), *ends, slope_cell, *steepest])
        return Table(header, rows)


def correlations(moments: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the correlations [..., 1 + P] with the preference from moments of `scan`."""
    variances = moments["component_variance"] * moments["preference_variance"][..., None]
    return ratio(moments["covariance"], np.sqrt(variances))


def scan(
    model: SequenceModel, batch: Contexts, asked: np.ndarray, directions: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Return the terms of sums over decisions, [B, T, ...] by name.

    `directions` [N, A] of the outputs take the place of the preferences for the A actions.
    """
    fields = (asking(batch, float(value), batch.present) for value in asked)
    scanned = [replace(batch, window=batch.window | changed) for changed in fields]
    probability = torch.stack([outputs(model, one).softmax(-1) for one in scanned], 2)
    parts = torch.stack([preferences(model, one, directions) for one in scanned], 2).double()
    preference = parts.sum(-1)  # [B, T, R, A]
    parts = torch.cat([preference[..., None], parts], -1)  # [B, T, R, A, 1 + P]
    centered, along = parts - parts.mean(2, keepdim=True), torch.from_numpy(asked - asked.mean())
    masks, of_preference = relations(model, batch), centered[..., :1]
    attention = [torch.stack(masses(model, one, masks), 2) for one in scanned]
    moved = along.to(parts)[:, None, None]
    return {
        "probability": probability,
        "preference": preference,
        "contribution": parts[..., 1:],
        "attention": torch.stack(attention, 2),  # [B, T, R, heads, relations]
        "present": torch.stack([mask.any(2) for mask in masks.values()], 2),
        "slope": (centered * moved).mean(2) / moved.square().mean(),
        "covariance": (centered * of_preference).mean(2),
        "component_variance": centered.square().mean(2),
        "preference_variance": of_preference[..., 0].square().mean(2),
    }


def preferences(
    model: SequenceModel, batch: Contexts, directions: torch.Tensor | None = None
) -> torch.Tensor:
    """Return each component's contribution to the preference for each action, [B, T, A, P].

    With `directions` [N, A] of the outputs it is the contribution to each of them, [B, T, N, P].
    """
    values, actions = read_values(model, batch), model.spec.num_actions
    if directions is None:
        directions = torch.eye(actions) - 1 / actions
    directions = directions.to(model.head.weight)
    return torch.stack([Reading(model, values, one).components() for one in directions], 2)
