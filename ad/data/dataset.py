"""The histories of the train tasks, from which methods cut their training windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ad.config.schema import Experiment
from ad.data.derived import Derive
from ad.data.filtering import best_actors
from ad.data.permutation import PermutedWindows
from ad.data.sampler import Batch, TaskHistory, Windows, WindowSampler, bytes_of_transition
from ad.data.spec import Spec
from ad.runtime.console import warn
from ad.runtime.files import require_disk_space


@dataclass(frozen=True)
class Dataset:
    """The histories of the train tasks of an experiment, and the spec of a model for them."""

    histories: list[TaskHistory]
    spec: Spec
    config: Experiment

    def windows(
        self,
        fields: Sequence[str],
        held_out: bool = False,
        history_part: tuple[float, float] = (0.0, 1.0),
        derived: Mapping[str, Derive] | None = None,
        best_fraction: float = 1.0,
        within_episodes: bool = False,
    ) -> Windows:
        """Return a sampler of windows of the actors to train on, or of those `held_out`.

        The other arguments are those of `WindowSampler`. Windows of held-out actors begin anywhere,
        and so do those within episodes, but for the fraction `data.windows_to_end`. `data.permute`
        is for windows of held-out actors too, `data.best_actors` is not: all of them are kept.
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
            kept = best_actors(chosen, data.best_actors, data.stability_weight)
            return {name: array[kept] for name, array in chosen.items()}

        share = (history_part[1] - history_part[0]) * best_fraction
        share *= 1 if held_out else data.best_actors
        transitions = int(share * len(tasks) * len(range(num_envs)[actors]) * steps)
        sampler = WindowSampler(
            (history._replace(arrays=part(history.arrays)) for history in self.histories),
            self.spec,
            fields,
            data.context_length,
            data.history_stride,
            history_part,
            0.0 if held_out or within_episodes else data.windows_from_start,
            derived,
            0.0 if held_out else data.windows_to_end,
            best_fraction,
            within_episodes,
            None if data.in_memory else self._folder_of_files(fields, transitions),
        )
        longest = sampler.lengths.max()
        if longest < data.context_length and not held_out:
            warn(
                f"the longest training sequence has {longest} transitions: the model is never "
                f"trained on a full context of {data.context_length}"
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


def to_device(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """Return a sampled batch as tensors on `device`."""
    return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
