"""Prompts: parts of source agents' learning histories that a rollout's context begins with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ad.data.dataset import Dataset
from ad.data.spec import OBSERVATIONS, field_name
from ad.rollout.rollout import Policy

EARLY, LATE = "early learner", "late learner"


@dataclass(frozen=True)
class Prompt:
    """P transitions for each of N environments: arrays [N, P, ...] by field."""

    arrays: Mapping[str, np.ndarray]
    parts: Sequence[str]  # names of the parts of an observation

    @classmethod
    def together(cls, prompts: Sequence["Prompt"]) -> "Prompt":
        """Return the prompts of all environments of several, in order."""
        first = prompts[0]
        fields = {name: [prompt.arrays[name] for prompt in prompts] for name in first.arrays}
        return cls({name: np.concatenate(arrays) for name, arrays in fields.items()}, first.parts)

    def show(self, policy: Policy) -> None:
        """Let `policy` act and observe as in the transitions, whatever it would do itself."""
        for step in range(self.arrays["action"].shape[1]):
            fields = {name: self._tensor(array[:, step]) for name, array in self.arrays.items()}
            before, after = (self._observation(fields, role) for role in OBSERVATIONS)
            policy.act(before, fields["time"])
            outcome = (fields[name] for name in ("action", "reward", "terminated", "truncated"))
            policy.observe(*outcome, after)

    def _observation(self, fields: Mapping[str, torch.Tensor], role: str):
        parts = {part: fields[field_name(role, part)] for part in self.parts}
        return parts.get("", parts)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        is_count = values.dtype.kind == "u" and values.dtype.itemsize > 1  # which torch lacks
        return torch.from_numpy(values.astype(np.int64) if is_count else values.copy())


def prompts_of(dataset: Dataset, length: int) -> dict[str, Prompt] | None:
    """Return `length` transitions of each history by EARLY and LATE, None if one is too short.

    They end with an episode: the first that is complete after as many, and the last. They are
    those of the last actor, which is held out of training if any is.
    """
    found: dict[str, list[dict[str, np.ndarray]]] = {EARLY: [], LATE: []}
    for history in dataset.histories:
        actor = {name: array[-1] for name, array in history.arrays.items()}
        stops = np.flatnonzero(actor["terminated"] | actor["truncated"]) + 1
        stops = stops[stops >= length]
        if not len(stops):
            return None
        for kind, stop in ((EARLY, stops[0]), (LATE, stops[-1])):
            found[kind].append({name: array[stop - length : stop] for name, array in actor.items()})
    parts = list(dataset.spec.observation)
    return {
        kind: Prompt({n: np.stack([one[n] for one in taken]) for n in taken[0]}, parts)
        for kind, taken in found.items()
    }
