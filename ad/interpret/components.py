"""Components of a transformer: their names, and what replaces what they write.

A component's output is replaced by zero, by its mean over contexts at the same position, or by its
output at that position in a context of another group, a task or an episode (resample). The mean
keeps what the component always does, and resampling also keeps the spread, so that later layers
read what they were trained on (Wang et al. 2023, arXiv 2211.00593, and Chan et al. 2022, "Causal
scrubbing").
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ad.errors import ConfigError
from ad.interpret.contexts import Contexts, HookedPolicy
from ad.interpret.hooks import Point, Write, hooked
from ad.methods.policy import Policy
from ad.models.memories.transformer import Transformer
from ad.models.sequence_model import SequenceModel
from envs.rng import derive_key

HEAD, MLP, NEURON = "blocks.{}.attn.hook_z", "blocks.{}.hook_mlp_out", "blocks.{}.mlp.hook_post"
KINDS = ("zero", "mean", "resample")
NUM_SAMPLES = 64  # contexts that resampling draws from


class Component(NamedTuple):
    """Coordinates that one point of a layer writes: `index`, or all of them if it is None."""

    point: str
    index: int | None = None


Components = tuple[Component, ...]  # components that are replaced together


def parse_components(name: str, transformer: Transformer) -> Components:
    """Return the components called `name`: "1.0" (layer and head), "mlp 1", "neuron 1.37".

    A + joins several names. Raises ConfigError for a name that is none of these, and for a layer,
    head or neuron that the transformer lacks.
    """
    return tuple(_parse_component(word.strip(), transformer) for word in name.split("+"))


def _parse_component(name: str, transformer: Transformer) -> Component:
    kinds = {
        r"(\d+)\.(\d+)": (HEAD, "heads", transformer.heads),
        r"mlp (\d+)": (MLP, "", 0),
        r"neuron (\d+)\.(\d+)": (NEURON, "neurons", transformer.feed_forward),
    }
    for form, (point, plural, count) in kinds.items():
        if match := re.fullmatch(form, name):
            layer, *index = map(int, match.groups())
            if layer >= (layers := len(transformer.blocks)):
                raise ConfigError(
                    f"there is no component {name}: the model has {layers} layers, from 0"
                )
            if index and index[0] >= count:
                raise ConfigError(
                    f"there is no component {name}: a layer has {count} {plural}, from 0"
                )
            return Component(point.format(layer), *index)
    raise ConfigError(f"{name!r} is no component: write 1.0 (a head), mlp 1 or neuron 1.37")


@dataclass(frozen=True)
class Replacements:
    """Values that replace components, by point.

    A table is [2 + M, streams, L, ...]: zeros, the mean, and the values in M contexts, at L
    positions. `groups` are the names of the M contexts' groups (`Contexts.group`).
    """

    tables: dict[str, torch.Tensor]
    streams: int
    groups: Sequence[str]

    @classmethod
    def of_contexts(
        cls, model: SequenceModel, contexts: Contexts, points: Sequence[str]
    ) -> "Replacements":
        """Return the replacements at `points`, with samples of the groups of `contexts`."""
        drawn = _draw_samples(contexts)
        sums, count = {}, torch.zeros(())
        for batch in contexts.batches():
            exists = _token_exists(model, batch)
            count = count + exists.sum(0)
            for name, value in _values(model, batch, points).items():
                sums[name] = sums.get(name, 0.0) + (value * _like(exists, value)).sum(0)
        samples = _values(model, drawn, points)
        tables = {}
        for name, total in sums.items():
            mean = total / _like(count.clamp(min=1), total)
            tables[name] = torch.cat([torch.zeros_like(mean)[None], mean[None], samples[name]])
        groups = [contexts.groups[group] for group in drawn.group]
        return cls(tables, model.tokenizer.streams, groups)

    def rows(self, kind: str, groups: Sequence[str | None]) -> torch.Tensor:
        """Return the row of the tables for each of N windows of `groups`, int64 [N].

        With `kind` resample it is a context of another group. None stands for a group that no
        context has. Raises ConfigError if all contexts are of one group.
        """
        if kind != "resample":
            return torch.full((len(groups),), KINDS.index(kind))
        others = {
            group: [row for row, other in enumerate(self.groups, 2) if other != group]
            for group in set(groups)
        }
        if not all(others.values()):
            raise ConfigError(
                "resampling takes values of another task or episode, and all contexts are of one"
            )
        return torch.tensor([others[g][n % len(others[g])] for n, g in enumerate(groups)])

    def write(self, masks: torch.Tensor, rows: torch.Tensor) -> Write:
        """Return a hook that puts the `rows`, int64 [N], of a table where `masks` are true.

        `masks` [N, ...] have the dimensions of the point's value after its positions.
        """

        def replace(value: torch.Tensor, point: Point) -> torch.Tensor:
            table = self.tables[point.name]
            place = torch.arange(value.shape[1], device=value.device) + point.start  # [N or 1, L]
            # A rollout may last longer than contexts.
            place = place.clamp(0, table.shape[2] - 1).to(rows.device)
            replacement = table[rows[:, None], :, place].transpose(1, 2).flatten(0, 1)
            mask = masks.repeat_interleave(self.streams, dim=0)[:, None]
            return torch.where(mask.to(value.device), replacement, value)

        return replace


class Ablated:
    """N windows with the components that are replaced in each: `components[n]` by row `rows[n]`."""

    def __init__(
        self,
        model: SequenceModel,
        replacements: Replacements,
        components: Sequence[Components],
        rows: torch.Tensor,
    ):
        self.model, self.replacements, self.rows = model, replacements, rows
        points = dict.fromkeys(component.point for window in components for component in window)
        self.masks = {point: self._mask(point, components) for point in points}

    def writes(self, windows: torch.Tensor | slice = slice(None)) -> dict[str, Write]:
        """Return the hooks for `hooked` that replace the components of `windows`."""
        rows = self.rows[windows]
        return {
            point: self.replacements.write(mask[windows], rows)
            for point, mask in self.masks.items()
        }

    def _mask(self, point: str, components: Sequence[Components]) -> torch.Tensor:
        """Return which coordinates at `point` are replaced in each window, bool [N, ...]."""
        table = self.replacements.tables[point]
        sizes = (*table.shape[3:-1], 1) if table.dim() > 4 else table.shape[3:]
        mask = torch.zeros((len(components), *sizes), dtype=torch.bool)
        for number, window in enumerate(components):
            for component in window:
                if component.point == point:
                    index = slice(None) if component.index is None else component.index
                    mask[number, index] = True
        return mask


class AblatedPolicy(HookedPolicy):
    """A policy whose N environments have the components of the N windows of `ablated` replaced."""

    def __init__(self, policy: Policy, ablated: Ablated):
        super().__init__(policy)
        self.ablated, self.windows = ablated, torch.arange(len(ablated.rows))

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return action logits [N, A] with the components of each environment replaced."""
        with hooked(self.ablated.model, write=self.ablated.writes(self.windows)):
            return super().act(observation, time)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.windows = self.windows[envs.cpu()]
        super().select(envs)


def _draw_samples(contexts: Contexts) -> Contexts:
    """Return NUM_SAMPLES contexts: equally many of each group, the longest first."""
    rng = np.random.default_rng(derive_key(0, "interpret", "resample"))
    order = rng.permutation(len(contexts))
    order = order[np.argsort(-contexts.valid[order].sum(1), kind="stable")]
    same = contexts.group[order][:, None] == contexts.group[order]
    rank = np.tril(same, -1).sum(1)  # of a context within its group
    return contexts.select(order[np.argsort(rank, kind="stable")][:NUM_SAMPLES])


def _values(
    model: SequenceModel, batch: Contexts, points: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return the values at `points`, [B, streams, L, ...]."""
    with torch.inference_mode(), hooked(model, tuple(points)) as values:
        model(batch.window)
    streams = model.tokenizer.streams
    return {name: value.unflatten(0, (-1, streams)) for name, value in values.items()}


def _token_exists(model: SequenceModel, batch: Contexts) -> torch.Tensor:
    """Return which tokens belong to a decision of their window, [B, streams, L] of 0 and 1."""
    decision = model.tokenizer.entries(batch.length)["decision"]
    return torch.from_numpy(batch.valid)[:, decision].to(model.head.weight)


def _like(values: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return `values` with dimensions of 1 appended until they broadcast to `other`."""
    return values.reshape(*values.shape, *[1] * (other.dim() - values.dim()))
