"""Rollouts that differ from the evaluation's in rewards, temperature or the beginning of contexts.

Each environment may have a scale of the rewards that the model reads, a factor of the temperature,
and a prompt: a part of a source agent's learning history that its context begins with.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from ad.data.dataset import TrainingSet
from ad.data.spec import OBSERVATIONS, field_name
from ad.interpret.contexts import HookedPolicy
from ad.methods.policy import Policy
from ad.models.sequence_model import SequenceModel
from ad.rollout.rollout import as_tensor

PROMPTS = EARLY, LATE = "early learner", "late learner"


@dataclass(frozen=True)
class Prompt:
    """P transitions for each of N environments: arrays [N, P, ...] by field."""

    arrays: Mapping[str, np.ndarray]
    parts: Sequence[str]  # names of the parts of an observation

    @classmethod
    def together(cls, prompts: Sequence["Prompt"]) -> "Prompt":
        """Return one prompt for the environments of all `prompts`, in order."""
        first = prompts[0]
        fields = {name: [prompt.arrays[name] for prompt in prompts] for name in first.arrays}
        return cls({name: np.concatenate(arrays) for name, arrays in fields.items()}, first.parts)

    def select(self, rows: Sequence[int]) -> "Prompt":
        """Return the prompts of `rows`, which may repeat."""
        return replace(self, arrays={name: array[rows] for name, array in self.arrays.items()})

    def show(self, policy: Policy) -> None:
        """Let `policy` observe the transitions, whatever actions it would take itself."""
        for step in range(self.arrays["action"].shape[1]):
            fields = {
                name: as_tensor(array[:, step], policy.device)
                for name, array in self.arrays.items()
            }
            before, after = (self._observation(fields, role) for role in OBSERVATIONS)
            policy.act(before, fields["time"])
            outcome = (fields[name] for name in ("action", "reward", "terminated", "truncated"))
            policy.observe(*outcome, after)

    def _observation(self, fields: Mapping[str, torch.Tensor], role: str):
        parts = {part: fields[field_name(role, part)] for part in self.parts}
        return parts.get("", parts)


def prompts_of(dataset: TrainingSet, length: int) -> dict[str, Prompt] | None:
    """Return the prompts EARLY and LATE of `length` transitions, None if a history is too short.

    A prompt ends with an episode of the history: EARLY with the first episode that leaves `length`
    transitions, LATE with the last one. The actor is the last one, which is held out of training if
    any actor is.
    """
    cut: dict[str, list[dict[str, np.ndarray]]] = {EARLY: [], LATE: []}
    for history in dataset.histories:
        actor = {name: array[-1] for name, array in history.arrays.items()}
        stops = np.flatnonzero(actor["terminated"] | actor["truncated"]) + 1
        stops = stops[stops >= length]
        if not len(stops):
            return None
        for kind, stop in ((EARLY, stops[0]), (LATE, stops[-1])):
            cut[kind].append({name: array[stop - length : stop] for name, array in actor.items()})
    parts = list(dataset.spec.observation)
    return {
        kind: Prompt({n: np.stack([each[n] for each in taken]) for n in taken[0]}, parts)
        for kind, taken in cut.items()
    }


class VariedPolicy(HookedPolicy):
    """A policy whose N environments differ by reward scale, temperature and prompt.

    `scales` and `temperatures` are [N]. Only the model reads scaled rewards; the context keeps the
    true rewards. The contexts begin with the `prompt`, if there is one.
    """

    def __init__(
        self,
        policy: Policy,
        model: SequenceModel,
        scales: torch.Tensor,
        temperatures: torch.Tensor,
        prompt: Prompt | None = None,
    ):
        super().__init__(policy)
        self.model, self.prompt = model, prompt
        self.scales, self.temperatures = scales.to(self.device), temperatures.to(self.device)

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return action logits [N, A], float64, divided by the factors of the temperature."""
        with scaled_rewards(self.model, self.scales):
            if self.prompt is not None:
                self.prompt.show(self.policy)
                self.prompt = None
            logits = super().act(observation, time)
        return logits.double() / self.temperatures[:, None]

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.scales, self.temperatures = self.scales[envs], self.temperatures[envs]
        super().select(envs)


@contextmanager
def scaled_rewards(model: SequenceModel, scales: torch.Tensor) -> Generator[None]:
    """Multiply the rewards that `model` reads in N windows by `scales` [N] in the block."""
    reward = model.tokenizer.reward
    if reward is None or bool((scales == 1).all()):
        yield
        return
    with reward.register_forward_pre_hook(lambda module, values: values[0] * scales[:, None]):
        yield
