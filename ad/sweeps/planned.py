"""Planned runs: the configurations that a study or a table of results needs, and their order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ad.config.fields import label
from ad.config.schema import EvaluationConfig, Experiment, config_hash

BASE = "base"  # what an experiment without changed settings is called
SEEDS = ("source.source_seed", "training.train_seed")  # what the seed of a run sets


@dataclass(frozen=True)
class PlannedRun:
    """A run to make: its configuration, and in `changed` what it is called in records.

    For a study that is the settings that differ from the base, for a published table the row.

    Runs that differ in evaluation only have the same name and so share a folder.
    """

    changed: str
    config: Experiment

    @property
    def key(self) -> str:
        """The key of the run's record."""
        return config_hash(self.config)[:16]


def settings_text(changed: dict[str, Any]) -> str:
    """Return changed settings as text, e.g. "model.encoder=table"; BASE if there are none."""
    return " ".join(f"{path}={label(value)}" for path, value in sorted(changed.items())) or BASE


def planned_run(
    title: str, config: Experiment, seed: int, *numbers: str, folder: str = ""
) -> PlannedRun:
    """Return the run of `config` with `seed`, called `title` in records.

    The name of its folder has the words of `folder`, by default those of the title, the `numbers`,
    the seed, and a hash of all settings but those of the evaluation.
    """
    source = replace(config.source, source_seed=seed)
    training = replace(config.training, train_seed=seed)
    config = replace(config, source=source, training=training)
    words = re.sub(r"[^A-Za-z0-9.]+", "-", folder or title)[:60]
    name = "-".join([words, *numbers, f"seed-{seed}", training_hash(config)[:8]])
    return PlannedRun(title, replace(config, name=name))


def training_hash(config: Experiment) -> str:
    """Return the hash (hex) of the settings that decide what a run trains on and how."""
    return config_hash(replace(config, evaluation=EvaluationConfig()))


def group_by_training(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Return `runs` in groups that share a training, in the order of each group's first run."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(run.config.name, []).append(run)
    return list(groups.values())


def group_by_experiment(trainings: Sequence[list[PlannedRun]]) -> list[list[list[PlannedRun]]]:
    """Return `trainings` (of `group_by_training`) in groups that differ in the training seed."""
    groups: dict[str, list[list[PlannedRun]]] = {}
    for training in trainings:
        config = training[0].config
        key = training_hash(replace(config, training=replace(config.training, train_seed=0)))
        groups.setdefault(key, []).append(training)
    return list(groups.values())


def shard(runs: Sequence[PlannedRun], number: int, num_shards: int) -> list[PlannedRun]:
    """Return the runs of a shard, `number` from 1 to `num_shards`, in the order of `runs`.

    Runs that share a training or differ in the training seed only are in the same shard.
    """
    own = group_by_experiment(group_by_training(runs))[number - 1 :: num_shards]
    keys = {run.key for experiment in own for training in experiment for run in training}
    return [run for run in runs if run.key in keys]
