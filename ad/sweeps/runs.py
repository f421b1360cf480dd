"""Many runs: make those without a record, each in a folder of its own, or list them."""

import math
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ad.config.component_constraints import LIBRARY_CONSTRAINTS
from ad.errors import ConfigError, NumericError
from ad.reporting.tables import COLUMNS, number
from ad.runtime import console
from ad.runtime.console import info
from ad.runtime.devices import choose_device
from ad.runtime.files import remove
from ad.runtime.locks import locked, locked_runs
from ad.sweeps import pipeline
from ad.sweeps.failures import add_failures, forget_failures, read_failures
from ad.sweeps.planned import PlannedRun, group_by_experiment, group_by_training
from ad.sweeps.records import SECONDS, RunRecord, add_records, read_records, records_of


def run_missing(
    path: Path, runs: Sequence[PlannedRun], root: Path, keep: bool = False, retry: bool = False
) -> None:
    """Make those of `runs` that have no record at `path` yet, in folders under `root`.

    The folder of a run is removed once its record is written, unless `keep`. A run that fails with
    a NumericError does not stop the others; its sentence is kept beside the records, and
    NumericError is raised at the end. Since it would fail again, it is made again only with `retry`
    or other settings. Raises ConfigError, before any run, for what a library lacks or refuses.
    """
    if retry:
        forget_failures(path, runs)
    records, failures, missing, failed = read_records(path), read_failures(path), [], []
    for training in group_by_training(runs):
        if any(run.key not in records and run.key not in failures for run in training):
            missing.append(training)
        elif not keep and all(run.key in records for run in training):
            remove(root / "logs" / training[0].config.name)
    if missing:
        _check_libraries(missing)
        info(budget(runs, records, failures))
    if count := sum(run.key in failures and run.key not in records for run in runs):
        console.warn(
            f"{count} of {len(runs)} runs failed and are not made again: --status true says why, "
            "--retry true makes them again"
        )
    on_gpu = bool(missing) and choose_device(missing[0][0].config).type == "cuda"
    due = train_side_by_side(missing, root) if on_gpu else missing
    for training in tqdm(due, desc=path.stem, total=len(missing), unit=" trainings", disable=None):
        new = [r for r in training if r.key not in records and r.key not in failures]
        try:
            while new:
                make(path, new[0], root)
                new.pop(0)
            if not keep:
                remove(root / "logs" / training[0].config.name)
        except NumericError as error:
            failed.append(training[0].config.name)
            console.error(f"{failed[-1]}: {error}")
            add_failures(path, new, str(error))  # those that share a training fail with it
    if failed:
        raise NumericError(f"{len(failed)} of {len(missing)} trainings failed: {', '.join(failed)}")


def _check_libraries(trainings: Sequence[list[PlannedRun]]) -> None:
    """Raise ConfigError for the first of `trainings` of which a library lacks or refuses a part."""
    for run, *_ in trainings:
        for problem in LIBRARY_CONSTRAINTS.violations(run.config):
            raise ConfigError(f"{run.changed}: {problem.path} {problem.text}")


def make(path: Path, planned: PlannedRun, root: Path) -> None:
    """Collect, train and evaluate one run under `root`, and add its records to those at `path`."""
    config = replace(planned.config, root=str(root))
    with locked_runs([config]):
        (run,) = pipeline.collect_and_train([config], root)
        pipeline.evaluate(run)
        records = records_of(planned, run)
    with locked(path.parent, wait=True):
        add_records(path, records)


def list_runs(path: Path, runs: Sequence[PlannedRun]) -> None:
    """Print a line for each run: done with its score, failed and why, or missing and its time."""
    records, failures = read_records(path), read_failures(path)
    seconds = seconds_of_runs(runs, records)
    for run in runs:
        if run.key in records:
            state, about = "done", _score(records[run.key])
        elif run.key in failures:
            state, about = "failed", failures[run.key]["failure"]
        else:
            state, about = "missing", _minutes(seconds[run.key]) if seconds else ""
        seeds = f"split {run.config.split.split_seed}  seed {run.config.training.train_seed}"
        info(f"{state:7}  {seeds}  {run.changed}" + (f": {about}" if about else ""))
    info(f"{path.stem}: {budget(runs, records, failures)}")


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
    trainings: Sequence[list[PlannedRun]], root: Path
) -> Iterator[list[PlannedRun]]:
    """Yield `trainings`, each once it is trained; seeds of an experiment train side by side.

    A training that fails here is tried again alone by `make`, which then raises NumericError.
    """
    for experiment in group_by_experiment(trainings):
        configs = [replace(training[0].config, root=str(root)) for training in experiment]
        with locked_runs(configs), suppress(NumericError):
            pipeline.collect_and_train(configs, root)
        yield from experiment
