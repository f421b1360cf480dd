"""Verify: hold what is on the disk against what was written there; repair what can be made again.

Every byte is read: of the histories that a configuration needs, and of its run's checkpoints.
"""

from pathlib import Path

import numpy as np

from ad import checkpoints
from ad.batches import other_history
from ad.collection import collect
from ad.config import Experiment
from ad.errors import CorruptError
from ad.files import remove
from ad.histories import load_unit
from ad.runs import Run, config_split, unit_folder

Damage = dict[Path, str]  # what is wrong with the unit or checkpoint at a path


def damaged_histories(config: Experiment) -> Damage:
    """The histories of the train tasks that are missing, damaged or of something else."""
    found = {}
    for task in config_split(config).train_tasks:
        if reason := _history_damage(config, task):
            found[unit_folder(config, task)] = reason
    return found


def damaged_checkpoints(config: Experiment) -> Damage:
    """The checkpoints of the run that are not what was written."""
    found = {}
    for path in checkpoint_paths(config):
        try:
            checkpoints.load(path)
        except CorruptError as error:
            found[path] = str(error)
    return found


def checkpoint_paths(config: Experiment) -> list[Path]:
    """All checkpoints of the run, the oldest first."""
    folder = Path(config.root) / "logs" / config.name / "checkpoints"
    return sorted(folder.glob("step_*.pt"))


def repair(run: Run, histories: Damage, damaged: Damage) -> None:
    """Collect the `histories` again, with the same bytes, and remove the `damaged` checkpoints.

    Training goes on from the newest checkpoint that is left.
    """
    for path in histories:
        remove(path)
    if histories:
        collect(run)
    for path in damaged:
        remove(path)
        remove(path.with_suffix(".json"))


def _history_damage(config: Experiment, task: np.ndarray) -> str:
    """What is wrong with the history of `task`; empty if nothing is."""
    folder = unit_folder(config, task)
    if not folder.exists():
        return f"the history {folder} is missing"
    try:
        manifest = load_unit(folder).manifest
    except CorruptError as error:
        return str(error)
    different = other_history(manifest, config, task)
    return different and f"the history {folder} is another one, by its {different}"
