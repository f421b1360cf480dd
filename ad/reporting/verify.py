"""Verify: check the files of a run against their hashes, and repair those that are damaged.

Every byte is read: of all histories in the dataset of the run, of its checkpoints and of its
results.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ad.collection.collect import collect_tasks
from ad.data.histories import HistoryStore
from ad.data.store import load_history
from ad.errors import CorruptError
from ad.evaluation import summary
from ad.runtime.console import info
from ad.runtime.files import remove
from ad.runtime.locks import locked_all
from ad.runtime.run import Run
from ad.training import checkpoints

Damage = dict[Path, str]  # path of a history or file -> a sentence about its damage
HISTORY_NAME = re.compile(r"task_(\d+(?:-\d+)*)_seed_(\d+)")


def verify(run: Run, repair: bool = False) -> None:
    """Check the files of a run; with `repair`, collect damaged histories and remove other files.

    Without `repair`, raises CorruptError with a line for each damaged or missing file.
    """
    checked = {path: _history_damage(path, *expected) for path, expected in histories(run).items()}
    bad_histories = {path: reason for path, reason in checked.items() if reason}
    bad_checkpoints, bad_results = damaged_checkpoints(run), damaged_results(run)
    problems = [*bad_histories.values(), *bad_checkpoints.values(), *bad_results.values()]
    if problems and not repair:
        raise CorruptError("\n".join([*problems, f"verify: {len(problems)} damaged or missing"]))
    if problems:
        info("\n".join(problems))
        repair_histories(run, bad_histories)
        for path in bad_checkpoints:  # training resumes from the newest one that is left
            remove(path)
            remove(path.with_suffix(".json"))
        remove_results(run, bad_results)
        removed = f"{len(bad_checkpoints)} checkpoints removed"
        removed += ", results removed: `ad evaluate` makes them again" if bad_results else ""
        info(f"verify: {len(bad_histories)} histories collected again, {removed}")
        return verify(run)
    counts = map(len, (histories(run), run_checkpoints(run), run_results(run)))
    whole = "{} histories, {} checkpoints and {} files of results".format(*counts)
    info(f"verify: {whole} are what was written")


def histories(run: Run) -> dict[Path, tuple[HistoryStore, np.ndarray]]:
    """Return folder -> (histories of its source seed, task) of each history to check.

    The dataset may have histories of other splits and other source seeds. There are none for a
    method that reads no histories.
    """
    if not len(run.history_tasks):
        return {}
    own = HistoryStore(run.config)
    by_folder = {own.folder(task): (own, task) for task in run.split.train_tasks}
    for path in sorted(own.path.glob("task_*_seed_*")):
        if match := HISTORY_NAME.fullmatch(path.name):
            task = np.array([int(part) for part in match[1].split("-")])
            source = replace(run.config.source, source_seed=int(match[2]))
            by_folder.setdefault(path, (HistoryStore(replace(run.config, source=source)), task))
    return by_folder


def run_checkpoints(run: Run) -> list[Path]:
    """Return all checkpoints of the run, the oldest first."""
    return sorted((run.folder / "checkpoints").glob("step_*.pt"))


def run_results(run: Run) -> list[Path]:
    """Return the existing files of the run's evaluations, in its own and in other worlds."""
    folders = [run.folder, *sorted((run.folder / "worlds").glob("*/"))]
    return [path for f in folders for name in summary.FILES if (path := f / name).exists()]


def damaged_checkpoints(run: Run) -> Damage:
    """Return the damaged checkpoints of the run."""
    damage = {}
    for path in run_checkpoints(run):
        try:
            checkpoints.load(path)
        except CorruptError as error:
            damage[path] = str(error)
    return damage


def damaged_results(run: Run) -> Damage:
    """Return the damaged files of the run's evaluations."""
    damage = {}
    for folder in dict.fromkeys(path.parent for path in run_results(run)):
        damage |= summary.damaged_results(folder)
    return damage


def repair_histories(run: Run, damaged: Damage) -> None:
    """Remove the `damaged` histories and collect them again, with the same bytes.

    The history of a task that the world does not have is only removed. Raises LockedError, and
    removes nothing, while another process collects into one of their datasets.
    """
    by_folder, all_tasks = histories(run), set(map(tuple, run.split.all_tasks.tolist()))
    due: dict[int, tuple[HistoryStore, list[np.ndarray]]] = {}  # by source seed
    with locked_all({path.parent for path in damaged}):
        for path in damaged:
            remove(path)
    for path in damaged:
        seed_histories, task = by_folder[path]
        if tuple(task.tolist()) in all_tasks:
            seed = seed_histories.config.source.source_seed
            due.setdefault(seed, (seed_histories, []))[1].append(task)
    for seed_histories, tasks in due.values():
        collect_tasks(seed_histories, np.array(tasks))


def remove_results(run: Run, damaged: Damage) -> None:
    """Remove all files of each evaluation that has a `damaged` file, to be evaluated again."""
    folders = {path.parent for path in damaged}
    for path in run_results(run):
        if path.parent in folders:
            remove(path)


def _history_damage(folder: Path, seed_histories: HistoryStore, task: np.ndarray) -> str:
    """Return a sentence about the damage of the history of `task`; "" if it has none."""
    if not folder.exists():
        return f"the history {folder} is missing"
    try:
        manifest = load_history(folder).manifest
    except CorruptError as error:
        return str(error)
    mismatch = seed_histories.manifest_mismatch(manifest, task)
    return mismatch and f"the history {folder} is another one, by its {mismatch}"
