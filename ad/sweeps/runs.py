"""Many runs: make those without a record, each in a folder of its own, or list them."""

import math
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ad import pipeline
from ad.config.schema import Experiment
from ad.errors import LockedError, NumericError
from ad.reporting.tables import COLUMNS, number
from ad.runtime import console
from ad.runtime.console import info
from ad.runtime.devices import choose_device
from ad.runtime.files import remove
from ad.runtime.locks import is_locked, locked, locked_files, locked_runs
from ad.sweeps.failures import add_failures, forget_failures, read_failures
from ad.sweeps.planned import (
    PlannedRun,
    check_libraries,
    group_by_experiment,
    group_by_training,
    locked_last,
)
from ad.sweeps.records import SECONDS, RunRecord, add_records, read_records, records_of


def run_missing(
    path: Path, runs: Sequence[PlannedRun], root: Path, keep: bool = False, retry: bool = False
) -> None:
    """Make those of `runs` that have no record at `path` yet, in folders under `root`.

    Other processes may make some of them at the same time: runs whose folder is locked come last,
    once the lock is free, and only if they have no record by then. The folder of a run is removed
    once its record is written, unless `keep`. A run that fails with a NumericError does not stop
    the others; its sentence is kept beside the records, and NumericError is raised at the end.
    Since it would fail again, it is made again only with `retry` or other settings. Raises
    ConfigError, before any run, for what a library lacks or refuses.
    """
    missing = missing_trainings(path, runs, root, keep, retry)
    if failed := _make_all(path, missing, root, keep):
        raise NumericError(f"{len(failed)} of {len(missing)} trainings failed: {', '.join(failed)}")


def missing_trainings(
    path: Path, runs: Sequence[PlannedRun], root: Path, keep: bool = False, retry: bool = False
) -> list[list[PlannedRun]]:
    """Return the trainings that `run_missing` makes, and say how many runs are missing or failed.

    The folders of finished runs are removed, unless `keep`. Raises ConfigError for what a library
    lacks or refuses.
    """
    if retry:
        forget_failures(path, runs)
    records, failures, missing = read_records(path), read_failures(path), []
    for training in group_by_training(runs):
        if any(run.key not in records and run.key not in failures for run in training):
            missing.append(training)
        elif not keep and all(run.key in records for run in training):
            _remove_finished(_in_root(training[0], root).folder)
    if missing:
        check_libraries(training[0] for training in missing)
        info(budget(runs, records, failures))
    if count := sum(run.key in failures and run.key not in records for run in runs):
        console.warn(
            f"{count} of {len(runs)} runs failed and are not made again: --status true says why, "
            "--retry true makes them again"
        )
    return missing


def _make_all(
    path: Path, trainings: Sequence[list[PlannedRun]], root: Path, keep: bool
) -> list[str]:
    """Make `trainings`, those that another process has locked at the end; return who failed."""
    on_gpu = bool(trainings) and choose_device(trainings[0][0].config).type == "cuda"
    due = train_side_by_side(path, trainings, root) if on_gpu else trainings
    failed = []
    with tqdm(desc=path.stem, total=len(trainings), unit=" trainings", disable=None) as bar:

        def make_or_fail(training: list[PlannedRun], wait: bool) -> None:
            try:
                make_training(path, training, root, keep, wait)
            except NumericError as error:
                failed.append(training[0].config.name)
                console.error(f"{failed[-1]}: {error}")
            bar.update()

        locked_last(make_or_fail, due)
    return failed


def make_training(
    path: Path, training: Sequence[PlannedRun], root: Path, keep: bool = False, wait: bool = False
) -> None:
    """Make the runs of `training` without a record, under the lock of the folder that they share.

    Raises LockedError if another process holds the lock, unless `wait`, and NumericError, which is
    kept as the failure of all that are left: those that share a training fail with it.
    """
    folder = _in_root(training[0], root).folder
    with locked(folder, wait):
        left = without_record(path, training)  # other processes may have made some
        try:
            while left:
                make(path, left[0], root)
                left.pop(0)
        except NumericError as error:
            add_failures(path, left, str(error))
            raise
        if not keep:
            remove(folder)


def _remove_finished(folder: Path) -> None:
    """Remove the folder of a finished run, unless a process needs it for another evaluation."""
    if folder.exists():
        with suppress(LockedError), locked(folder):
            remove(folder)


def without_record(path: Path, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return those of `runs` that have neither a record at `path` nor a failure beside it."""
    known = read_records(path).keys() | read_failures(path).keys()
    return [run for run in runs if run.key not in known]


def make(path: Path, planned: PlannedRun, root: Path) -> None:
    """Collect, train and evaluate one run under `root`, and add its records to those at `path`.

    The caller has locked the folder of the run.
    """
    (run,) = pipeline.collect_and_train([_in_root(planned, root)])
    pipeline.evaluate(run)
    records = records_of(planned, run)
    with locked_files(path.parent):
        add_records(path, records)


def list_runs(path: Path, runs: Sequence[PlannedRun], root: Path) -> None:
    """Print a line for each run: done with its score, failed and why, or running or missing.

    A run is running while its folder under `root` is locked. A running or missing one has the time
    that a whole run takes. The last line has the time of all that are left.
    """
    records, failures = read_records(path), read_failures(path)
    seconds = seconds_of_runs(runs, records)
    for run in runs:
        if run.key in records:
            state, about = "done", _score(records[run.key])
        elif run.key in failures:
            state, about = "failed", failures[run.key]["failure"]
        else:
            state = "running" if is_locked(_in_root(run, root).folder) else "missing"
            about = _minutes(seconds[run.key]) if seconds else ""
        seeds = f"split {run.config.split.split_seed}  seed {run.config.training.train_seed}"
        info(f"{state:7}  {seeds}  {run.changed}" + (f": {about}" if about else ""))
    if text := other_versions([records[run.key] for run in runs if run.key in records]):
        info(text)
    info(f"{path.stem}: {budget(runs, records, failures)}")


def other_versions(records: Sequence[RunRecord]) -> str:
    """Return a sentence about those of `records` that other versions made, "" if none were."""
    present = {"torch": torch.__version__, "numpy": np.__version__}
    others = [
        f"{name} {record[name]}"
        for record in records
        for name in present
        if record[name] != present[name]
    ]
    count = sum(any(record[name] != present[name] for name in present) for record in records)
    made = f"{count} of {len(records)} records were made with other versions than this machine's"
    return f"{made} ({', '.join(sorted(set(others)))}) and count as done" if count else ""


def budget(
    runs: Sequence[PlannedRun], records: dict[str, RunRecord], failed: Container[str] = ()
) -> str:
    """Return how many of `runs` are missing and how long they take, as text.

    A run without a record is missing, unless it `failed`.
    """
    missing = [run for run in runs if run.key not in records and run.key not in failed]
    failures = sum(run.key not in records and run.key in failed for run in runs)
    text = f"{len(missing)} of {len(runs)} runs are missing"
    text += f", {failures} failed" if failures else ""
    if not missing or not (seconds := seconds_of_runs(missing, records)):
        return text
    total = _minutes(sum(seconds.values()))
    return f"{text}; on the machines of the records the missing ones take {total}"


def seconds_of_runs(runs: Sequence[PlannedRun], records: dict[str, RunRecord]) -> dict[str, float]:
    """Return how long each run takes by key: the mean of those with its name in the records.

    A name without records has the mean of all. Returns {} if there are no records.
    """
    by_name: dict[str, list[float]] = {}
    for record in records.values():
        by_name.setdefault(record["changed"], []).append(sum(record[s] or 0 for s in SECONDS))
    if not by_name:
        return {}
    mean = float(np.mean([value for own in by_name.values() for value in own]))
    return {run.key: float(np.mean(by_name.get(run.changed, [mean]))) for run in runs}


def _minutes(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"about {minutes} minute" + ("" if minutes == 1 else "s")


def _score(record: RunRecord) -> str:
    """Return the NAUC of a run as text, or its return where the optimal return is unknown."""
    score = "return_last10" if record["nauc"] is None else "nauc"
    heading, style = COLUMNS[score]
    return f"{heading} {number(record[score], style)}"


def train_side_by_side(
    path: Path, trainings: Sequence[list[PlannedRun]], root: Path
) -> Iterator[list[PlannedRun]]:
    """Yield `trainings`, each once it is trained; seeds of an experiment train side by side.

    One that fails here is tried again alone by `make`, which then raises NumericError. One that
    another process has locked, or made since, is not trained here.
    """
    for experiment in group_by_experiment(trainings):
        configs = [_in_root(training[0], root) for training in experiment]
        with suppress(NumericError, LockedError), locked_runs(configs):
            due = [without_record(path, training) for training in experiment]
            if configs := [_in_root(left[0], root) for left in due if left]:
                pipeline.collect_and_train(configs)
        yield from experiment


def _in_root(planned: PlannedRun, root: Path) -> Experiment:
    """Return the configuration of a planned run whose files lie under `root`."""
    return replace(planned.config, root=str(root))
