"""Verify: hold what is on the disk against what was written there; repair what can be made again.

Every byte is read: of the histories that a configuration needs and of all others in its dataset,
and of its run's checkpoints and results.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ad.collection.collect import collect_tasks
from ad.data.histories import Histories
from ad.data.store import load_history
from ad.errors import CorruptError
from ad.evaluation import summary
from ad.runtime.console import info
from ad.runtime.files import remove
from ad.runtime.run import Run
from ad.training import checkpoints

Damage = dict[Path, str]  # what is wrong with the unit or file at a path
UNIT = re.compile(r"task_(\d+(?:-\d+)*)_seed_(\d+)")


def verify(run: Run, repair: bool = False) -> None:
    """Check every file of a run; with `repair`, make again or remove what is damaged.

    Raises CorruptError, which names all that is damaged or missing, unless `repair`.
    """
    bad_histories, bad_checkpoints = damaged_histories(run), damaged_checkpoints(run)
    bad_results = damaged_results(run)
    problems = [*bad_histories.values(), *bad_checkpoints.values(), *bad_results.values()]
    if problems and not repair:
        raise CorruptError("\n".join([*problems, f"verify: {len(problems)} damaged or missing"]))
    if problems:
        info("\n".join(problems))
        repair_histories(run, bad_histories)
        remove_checkpoints(bad_checkpoints)
        remove_results(run, bad_results)
        removed = f"{len(bad_checkpoints)} checkpoints removed"
        removed += ", results removed: scripts.evaluate makes them again" if bad_results else ""
        info(f"verify: {len(bad_histories)} histories collected again, {removed}")
        return verify(run)
    counts = map(len, (histories(run), run_checkpoints(run), run_results(run)))
    whole = "{} histories, {} checkpoints and {} files of results".format(*counts)
    info(f"verify: {whole} are what was written")


def histories(run: Run) -> dict[Path, tuple[Histories, np.ndarray]]:
    """Return the train tasks' histories and all others that are there, by their folder.

    Each has the `Histories` of its source seed and its task. One dataset has those of all splits
    and source seeds.
    """
    own = Histories(run.config)
    found = {own.folder(task): (own, task) for task in run.split.train_tasks}
    for path in sorted(own.path.glob("task_*_seed_*")):
        if match := UNIT.fullmatch(path.name):
            task = np.array([int(part) for part in match[1].split("-")])
            source = replace(run.config.source, source_seed=int(match[2]))
            found.setdefault(path, (Histories(replace(run.config, source=source)), task))
    return found


def run_checkpoints(run: Run) -> list[Path]:
    """All checkpoints of the run, the oldest first."""
    return sorted((run.folder / "checkpoints").glob("step_*.pt"))


def run_results(run: Run) -> list[Path]:
    """The files of the run's evaluations, also in other worlds, that are there."""
    folders = [run.folder, *sorted((run.folder / "worlds").glob("*/"))]
    return [path for f in folders for name in summary.FILES if (path := f / name).exists()]


def damaged_histories(run: Run) -> Damage:
    """The histories that are missing, damaged or of something else."""
    checked = {path: _history_damage(path, *made) for path, made in histories(run).items()}
    return {path: reason for path, reason in checked.items() if reason}


def damaged_checkpoints(run: Run) -> Damage:
    """The checkpoints of the run that are not what was written."""
    found = {}
    for path in run_checkpoints(run):
        try:
            checkpoints.load(path)
        except CorruptError as error:
            found[path] = str(error)
    return found


def damaged_results(run: Run) -> Damage:
    """The files of the run's evaluations that are not what was written."""
    found = {}
    for folder in dict.fromkeys(path.parent for path in run_results(run)):
        found |= summary.damaged_results(folder)
    return found


def repair_histories(run: Run, damaged: Damage) -> None:
    """Collect them again, with the same bytes; one of a task that no such world has only goes."""
    every = histories(run)
    made = {path: every[path] for path in damaged}
    tasks_of_world = {tuple(task) for task in run.split.all_tasks.tolist()}
    for path in damaged:
        remove(path)
    by_seed = {own.config.source.source_seed: own for own, _ in made.values()}
    for seed, own in by_seed.items():
        tasks = [task for of, task in made.values() if of.config.source.source_seed == seed]
        if known := [task for task in tasks if tuple(task.tolist()) in tasks_of_world]:
            collect_tasks(own, np.array(known))


def remove_checkpoints(damaged: Damage) -> None:
    """Remove them: training goes on from the newest one that is left."""
    for path in damaged:
        remove(path)
        remove(path.with_suffix(".json"))


def remove_results(run: Run, damaged: Damage) -> None:
    """Remove all files of an evaluation of which some are `damaged`: it makes them again."""
    folders = {path.parent for path in damaged}
    for path in run_results(run):
        if path.parent in folders:
            remove(path)


def _history_damage(folder: Path, own: Histories, task: np.ndarray) -> str:
    """What is wrong with the history of `task`; empty if nothing is."""
    if not folder.exists():
        return f"the history {folder} is missing"
    try:
        manifest = load_history(folder).manifest
    except CorruptError as error:
        return str(error)
    different = own.manifest_mismatch(manifest, task)
    return different and f"the history {folder} is another one, by its {different}"
