"""Planned runs: the configurations that a study or a table of results needs, and their order."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ad.config.component_constraints import LIBRARY_CONSTRAINTS
from ad.config.fields import label
from ad.config.schema import EvaluationConfig, Experiment, config_hash
from ad.errors import ConfigError, LockedError

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


def locked_last(make: Callable[[Any, bool], None], due: Iterable) -> None:
    """Call `make(one, wait)` for each of `due`, without waiting for the locks of other processes.

    Those for which it raises LockedError come last, and wait.
    """
    busy = []
    for one in due:
        try:
            make(one, False)
        except LockedError:
            busy.append(one)
    for one in busy:
        make(one, True)


def check_libraries(runs: Iterable[PlannedRun]) -> None:
    """Raise ConfigError for the first of `runs` of which a library lacks or refuses a part."""
    for run in runs:
        for problem in LIBRARY_CONSTRAINTS.violations(run.config):
            raise ConfigError(f"{run.changed}: {problem.path} {problem.text}")
