"""Many runs: make those without a record, each in a folder of its own, or list them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ad.config.schema import Experiment
from ad.errors import NumericError
from ad.runtime import console
from ad.runtime.console import info
from ad.runtime.devices import choose_device
from ad.runtime.files import remove
from ad.runtime.locks import locked, locked_runs
from ad.runtime.run import Run
from ad.sweeps import pipeline
from ad.sweeps.planned import PlannedRun, group_by_experiment, group_by_training
from ad.sweeps.records import SECONDS, RunRecord, add_records, read_records, records_of


def run_missing(path: Path, runs: Sequence[PlannedRun], root: Path, keep: bool = False) -> None:
    """Make those of `runs` that have no record at `path` yet, in folders under `root`.

    The folder of a run is removed once its record is written, unless `keep`. A run that fails with
    a NumericError would fail again and does not stop the others; NumericError is raised at the end.
    """
    records, missing, failed = read_records(path), [], []
    for training in group_by_training(runs):
        if any(run.key not in records for run in training):
            missing.append(training)
        elif not keep:
            remove(root / "logs" / training[0].config.name)
    if missing:
        info(budget(runs, records))
    on_gpu = bool(missing) and choose_device(missing[0][0].config).type == "cuda"
    due = train_side_by_side(missing, root) if on_gpu else missing
    for training in tqdm(due, desc=path.stem, total=len(missing), unit=" trainings", disable=None):
        try:
            for run in training:
                if run.key not in records:
                    make(path, run, root)
            if not keep:
                remove(root / "logs" / training[0].config.name)
        except NumericError as error:
            failed.append(training[0].config.name)
            console.error(f"{failed[-1]}: {error}")
    if failed:
        raise NumericError(f"{len(failed)} of {len(missing)} trainings failed: {', '.join(failed)}")


def make(path: Path, planned: PlannedRun, root: Path) -> None:
    """Collect, train and evaluate one run under `root`, and add its records to those at `path`."""
    config = replace(planned.config, root=str(root))
    with locked_runs([config]):
        (run,) = _collect_and_train([config], root)
        pipeline.evaluate(run)
        records = records_of(planned, run)
    with locked(path.parent, wait=True):
        add_records(path, records)


def list_runs(path: Path, runs: Sequence[PlannedRun]) -> None:
    """Print the runs, each with "done" or "missing" in the records at `path`."""
    records = read_records(path)
    for run in runs:
        state, config = "done" if run.key in records else "missing", run.config
        seeds = f"split {config.split.split_seed}  seed {config.training.train_seed}"
        info(f"{state:7}  {seeds}  {run.changed}")
    info(f"{path.stem}: {budget(runs, records)}")


def budget(runs: Sequence[PlannedRun], records: dict[str, RunRecord]) -> str:
    """Return how many of `runs` have no record and how long they take, as text.

    The time of a run is the mean of those with the same name in the records, or of all.
    """
    missing = [run for run in runs if run.key not in records]
    text = f"{len(missing)} of {len(runs)} runs are missing"
    seconds: dict[str, list[float]] = {}
    for record in records.values():
        seconds.setdefault(record["changed"], []).append(sum(record[s] or 0 for s in SECONDS))
    if not missing or not seconds:
        return text
    mean = float(np.mean([value for own in seconds.values() for value in own]))
    total = sum(float(np.mean(seconds.get(run.changed, [mean]))) for run in missing)
    minutes = math.ceil(total / 60)
    unit = "minute" if minutes == 1 else "minutes"
    return f"{text}; on the machines of the records they take about {minutes} {unit}"


def train_side_by_side(
    trainings: Sequence[list[PlannedRun]], root: Path
) -> Iterator[list[PlannedRun]]:
    """Yield `trainings`, each once it is trained; seeds of an experiment train side by side.

    A training that fails here is tried again alone by `make`, which then raises NumericError.
    """
    for experiment in group_by_experiment(trainings):
        configs = [replace(training[0].config, root=str(root)) for training in experiment]
        with locked_runs(configs), suppress(NumericError):
            _collect_and_train(configs, root)
        yield from experiment


def _collect_and_train(configs: Sequence[Experiment], root: Path) -> list[Run]:
    """Return the runs of `configs`, whose folders the caller has locked, trained side by side."""
    runs = [Run.open(config) for config in configs]
    with locked(root / "histories", wait=True):  # another shard may need them too
        for run in runs:
            pipeline.collect(run)
    pipeline.train(runs)
    return runs
