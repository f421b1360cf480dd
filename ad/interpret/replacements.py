"""Replacing components of a transformer: by zero, by their mean, or by what they wrote elsewhere.

What a component writes is replaced by zero, by its mean over contexts at the same position, or by
what it wrote at that position in a context of another task (resample). The mean leaves what the
component always does, and resampling also keeps the spread, so that the rest of the model sees what
it was trained on (Wang et al. 2023, arXiv 2211.00593, and Chan et al. 2022, "Causal scrubbing").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ad.interpret.components import Components
from ad.interpret.contexts import Contexts
from ad.interpret.hooks import Point, Write, hooked
from ad.models.sequence_model import SequenceModel
from ad.rollout.rollout import Policy, PolicyWrapper
from envs.rng import derive_key

KINDS = ("zero", "mean", "resample")
NUM_SAMPLES = 64  # contexts that resampling draws from


@dataclass(frozen=True)
class Replacements:
    """Values that replace components at each point.

    `tables` by point are [2 + M, streams, L, ...]: zero, the mean, and M contexts at L positions,
    whose tasks are `tasks`.
    """

    tables: dict[str, torch.Tensor]
    streams: int
    tasks: Sequence[str]

    @classmethod
    def of_contexts(
        cls, model: SequenceModel, contexts: Contexts, points: Sequence[str]
    ) -> "Replacements":
        """Return the replacements at `points`, with samples of all tasks of `contexts`."""
        drawn = _donors(contexts)
        sums, count = {}, 0.0
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
        tasks = [contexts.tasks[task] for task in drawn.task]
        return cls(tables, model.tokenizer.streams, tasks)

    def choices(self, kind: str, tasks: Sequence[str | None]) -> torch.Tensor:
        """Return the rows of the tables that replace components in windows of `tasks`, int64 [N].

        A context is drawn from those of other tasks; None is a task that no context has.
        """
        if kind != "resample":
            return torch.full((len(tasks),), KINDS.index(kind))
        others = {
            task: [row for row, other in enumerate(self.tasks, 2) if other != task]
            for task in set(tasks)
        }
        return torch.tensor([others[t][n % len(others[t])] for n, t in enumerate(tasks)])

    def write(self, masks: torch.Tensor, choices: torch.Tensor) -> Write:
        """Return the function that replaces a value where `masks` [N, ...] say so.

        The masks have the dimensions of the value after its positions, `choices` int64 [N].
        """

        def replace(value: torch.Tensor, point: Point) -> torch.Tensor:
            table = self.tables[point.name]
            place = torch.arange(value.shape[1], device=value.device) + point.start  # [N or 1, L]
            # A rollout may last longer than contexts.
            place = place.clamp(0, table.shape[2] - 1).to(choices.device)
            chosen = table[choices[:, None], :, place].transpose(1, 2).flatten(0, 1)
            mask = masks.repeat_interleave(self.streams, dim=0)[:, None]
            return torch.where(mask.to(value.device), chosen, value)

        return replace


class Ablated:
    """N windows, each with components that are replaced in it."""

    def __init__(
        self,
        model: SequenceModel,
        replacements: Replacements,
        components: Sequence[Components],
        choices: torch.Tensor,
    ):
        self.model, self.replacements, self.choices = model, replacements, choices
        points = dict.fromkeys(component.point for row in components for component in row)
        self.masks = {point: self._mask(point, components) for point in points}

    def writes(self, rows: torch.Tensor | slice = slice(None)) -> dict[str, Write]:
        """Return the functions for `hooked` that replace the components of the windows `rows`."""
        choices = self.choices[rows]
        return {
            point: self.replacements.write(mask[rows], choices)
            for point, mask in self.masks.items()
        }

    def _mask(self, point: str, components: Sequence[Components]) -> torch.Tensor:
        """Return which coordinates at `point` are replaced in each window, bool [N, ...]."""
        table = self.replacements.tables[point]
        sizes = (*table.shape[3:-1], 1) if table.dim() > 4 else table.shape[3:]
        mask = torch.zeros((len(components), *sizes), dtype=torch.bool)
        for row, of_window in enumerate(components):
            for component in of_window:
                if component.point == point:
                    mask[row, slice(None) if component.index is None else component.index] = True
        return mask


class AblatedPolicy(PolicyWrapper):
    """A policy whose environments are those of an Ablated, and stay so when some have finished."""

    def __init__(self, policy: Policy, ablated: Ablated):
        super().__init__(policy)
        self.ablated, self.rows = ablated, torch.arange(len(ablated.choices))

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return action logits [N, A] with the components of each environment replaced."""
        with hooked(self.ablated.model, write=self.ablated.writes(self.rows)):
            return super().act(observation, time)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.rows = self.rows[envs.cpu()]
        super().select(envs)


def _donors(contexts: Contexts) -> Contexts:
    """Return the contexts to resample from: of all tasks as many, and the longest of each."""
    rng = np.random.default_rng(derive_key(0, "interpret", "resample"))
    order = rng.permutation(len(contexts))
    order = order[np.argsort(-contexts.valid[order].sum(1), kind="stable")]
    earlier = contexts.task[order][:, None] == contexts.task[order]
    rank = np.tril(earlier, -1).sum(1)  # of a context among those of its task
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
