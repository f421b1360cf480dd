"""The training set: the histories of the train tasks, from which methods cut their windows.

`data.best_actors` selects actors after learning history filtering (Chen et al. 2025, arXiv
2505.15143), which prefers the histories with the largest improvement + weight * stability. There
histories are drawn with a probability; here the best ones are kept, so that no random numbers
decide.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ad.config.schema import Experiment
from ad.data.derived import Derive
from ad.data.episodes import episodes
from ad.data.permutation import PermutedWindows
from ad.data.sampler import Batch, TaskHistory, Windows, WindowSampler, bytes_of_transition
from ad.data.spec import Spec
from ad.registry import MEMORIES
from ad.runtime.console import warn
from ad.runtime.files import require_disk_space

ENDS = 10  # improvement compares the first and the last of ENDS equal parts of a history


@dataclass(frozen=True)
class TrainingSet:
    """The histories of the train tasks of an experiment, and the spec of a model for them."""

    histories: list[TaskHistory]
    spec: Spec
    config: Experiment

    def sampler(
        self,
        fields: Sequence[str],
        held_out: bool = False,
        history_part: tuple[float, float] = (0.0, 1.0),
        derived: Mapping[str, Derive] | None = None,
        best_fraction: float = 1.0,
        within_episodes: bool = False,
    ) -> Windows:
        """Return a sampler of windows of the actors to train on, or of the `held_out` actors.

        `WindowSampler` explains the other arguments. Windows of held-out actors begin anywhere,
        and of those within episodes all but the fraction `data.windows_to_end`. `data.permute`
        applies to held-out actors too, `data.best_actors` does not: all of them are kept.
        `action_mask` is among the fields if not all tasks have all actions. Raises MachineError if
        the temporary files without `data.in_memory` do not fit the disk.
        """
        tasks = np.array([history.task for history in self.histories])
        if self.histories[0].world.action_mask(tasks) is not None:
            fields = (*fields, "action_mask")
        data, num_envs = self.config.data, self.config.source.num_envs
        actors, steps = training_part(self.config)
        actors = slice(num_envs - data.held_out_actors, None) if held_out else actors

        def part(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            chosen = {name: array[actors, :steps] for name, array in arrays.items()}
            if held_out or data.best_actors == 1:
                return chosen
            kept = best_actors(chosen, data.best_actors)
            return {name: array[kept] for name, array in chosen.items()}

        share = (history_part[1] - history_part[0]) * best_fraction
        share *= 1 if held_out else data.best_actors
        transitions = int(share * len(tasks) * len(range(num_envs)[actors]) * steps)
        length = self.config.sequence_length
        sampler = WindowSampler(
            (history._replace(arrays=part(history.arrays)) for history in self.histories),
            self.spec,
            fields,
            context_length=length,
            history_stride=data.history_stride,
            history_part=history_part,
            from_start=0.0 if held_out or within_episodes else data.windows_from_start,
            to_end=0.0 if held_out else data.windows_to_end,
            best_fraction=best_fraction,
            within_episodes=within_episodes,
            retrieved=int(length * MEMORIES.load(self.config.model.memory).retrieved),
            derived=derived,
            files_in=None if data.in_memory else self._folder_of_files(fields, transitions),
        )
        longest, full = sampler.lengths.max(), length
        if within_episodes:  # nor does a rollout have more in its context
            full = min(length, self.spec.episode_length)
        if longest < full and not held_out:
            warn(
                f"the longest training sequence has {longest} transitions: the model is never "
                f"trained on a full context of {full}"
            )
        if data.permute == "none":
            return sampler
        return PermutedWindows(sampler, self.spec, data.permute)

    def _folder_of_files(self, fields: Sequence[str], transitions: int) -> Path:
        """Return the folder of a sampler's temporary files, which has room for `transitions`."""
        folder = Path(self.config.root) / "histories"
        folder.mkdir(parents=True, exist_ok=True)
        needed = transitions * bytes_of_transition(self.histories[0].arrays, self.spec, fields)
        require_disk_space(folder, needed, "training with data.in_memory: false")
        return folder


def training_part(config: Experiment) -> tuple[slice, int]:
    """Return the actors of each history to train on, and the number of their first steps."""
    data, num_envs = config.data, config.source.num_envs
    actors = slice(data.actors_per_task or num_envs - data.held_out_actors)
    return actors, (data.env_steps or config.source.env_steps) // num_envs


def best_actors(history: Mapping[str, np.ndarray], fraction: float) -> np.ndarray:
    """Return the indices of the actors with the highest scores, ascending.

    Keeps ceil(fraction * N) of N actors, the first ones where scores are equal. `history` has the
    arrays [actors, T] of the fields terminated, truncated and reward.
    """
    scores = actor_scores(history)
    count = math.ceil(fraction * len(scores))
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def actor_scores(history: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return improvement + stability of each actor, float64 [actors].

    Improvement is the mean return of the last tenth of an actor's whole episodes minus that of the
    first tenth (an episode at least). Stability is minus the mean absolute difference between the
    returns of an episode and the next. Both are divided by the range of the task's returns. An
    actor without a whole episode has -inf.
    """
    done = history["terminated"] | history["truncated"]
    whole = episodes(done, history["reward"])
    scores = np.full(len(done), -np.inf)
    scale = np.ptp(whole.returns) if len(whole.returns) else 0.0
    for actor in np.unique(whole.actor):
        returns = whole.returns[whole.actor == actor]
        end = math.ceil(len(returns) / ENDS)
        improvement = returns[-end:].mean() - returns[:end].mean()
        changes = np.abs(np.diff(returns)).sum() / max(len(returns) - 1, 1)
        scores[actor] = (improvement - changes) / (scale or 1.0)
    return scores


def to_device(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """Return a sampled batch as tensors on `device`."""
    return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
