"""The runs of a sweep: for each that has no record, lock its folder, make it, and add its record.

One loop serves every measure. Several processes may run it on the same sweep: runs whose folder is
locked come last, once the lock is free, and only if they have no record by then.
"""

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ad.errors import LockedError, NumericError
from ad.evaluation.scores import SCORES, number
from ad.runtime import console
from ad.runtime.console import info
from ad.runtime.files import remove
from ad.runtime.locks import is_locked, locked
from ad.sweeps.analyses import AnalysisMeasure
from ad.sweeps.measures import Measure
from ad.sweeps.plan import PlannedRun, Sweep
from ad.sweeps.records import (
    VERSIONS,
    Record,
    Records,
    add_records,
    forget_failures,
    new_record,
    read_records,
)

Bundle = list[PlannedRun]  # runs that are made together, in the folder of the first


def new_measure(sweep: Sweep) -> Measure:
    """Return what `sweep` measures."""
    return (AnalysisMeasure if sweep.tables else Measure)(sweep)


def take_shard(
    measure: Measure, runs: Sequence[PlannedRun], number: int, num_shards: int
) -> list[PlannedRun]:
    """Return the runs of a shard, `number` from 1 to `num_shards`, bundle by bundle."""
    return [run for bundle in measure.bundles(runs)[number - 1 :: num_shards] for run in bundle]


def run_missing(
    path: Path, measure: Measure, bundles: Sequence[Bundle], root: Path, keep: bool = False
) -> None:
    """Make `bundles` in folders under `root` and add their records to those at `path`.

    The folder of a bundle is removed once its records are written, unless `keep`. A NumericError is
    the record of the runs that it stopped, unless they have scores. It does not stop the others and
    is raised at the end.
    """
    failed, waiting = [], [(bundle, False) for bundle in bundles]
    with tqdm(desc=path.stem, total=len(bundles), unit=" bundles", disable=None) as bar:
        for bundle, wait in waiting:  # which grows by the bundles whose folder is locked
            folder = bundle[0].in_root(root).folder
            try:
                with locked(folder, wait):
                    failure = _make(path, measure, bundle, root)
                    if failure == "" and not keep:
                        remove(folder)
            except LockedError:
                if wait:
                    raise
                waiting.append((bundle, True))
                continue
            if failure:
                failed.append(bundle[0].config.name)
                console.error(f"{failed[-1]}: {failure}")
            bar.update()
    if failed:
        raise NumericError(f"{len(failed)} of {len(bundles)} bundles failed: {', '.join(failed)}")


def _make(path: Path, measure: Measure, bundle: Bundle, root: Path) -> str | None:
    """Make the runs of a bundle that have no record, and add it.

    Returns the sentence of a failure, "" for none, and None if there was nothing to make.
    """
    records = read_records(path)  # another process may have made some
    left = {run.key: run for run in bundle if not measure.is_done(run, records.get(run.key))}
    if not left:
        return None
    try:
        for record in measure.make(list(left.values()), root):
            add_records(path, [record])
            del left[record.key]
    except NumericError as error:
        add_records(path, [new_record(run, failure=str(error)) for run in left.values()])
        return str(error)
    return ""


def prepare_missing(
    path: Path, measure: Measure, runs: Sequence[PlannedRun], retry: bool = False
) -> list[Bundle]:
    """Prepare to make the bundles of `runs` that have no record, and return them.

    Prints how many there are. With `retry`, removes the records of failed runs, which count as
    missing then.
    """
    if retry:
        forget_failures(path, {run.key for run in runs})
    records, missing = read_records(path), []
    for bundle in measure.bundles(runs):
        if not all(measure.is_done(run, records.get(run.key)) for run in bundle):
            missing.append(bundle)
    if missing:
        version("algorithm-distillation")  # which a record names: an error now, not after a run
        measure.check(run for bundle in missing for run in bundle)
        info(budget(measure, runs, records))
    else:
        info(f"each of the {len(runs)} runs has a record: none is made again")
    if count := sum(run.key in records and bool(records[run.key].failure) for run in runs):
        console.warn(
            f"{count} of {len(runs)} runs failed and are not made again: --status true says why, "
            "--retry true makes them again"
        )
    return missing


def list_runs(path: Path, measure: Measure, runs: Sequence[PlannedRun], root: Path) -> None:
    """Print a line for each run: done with its score, failed and why, running, or missing.

    A run is running while its folder under `root` is locked. A running or missing one has the time
    that a whole run takes. The last line has the time of all that are left.
    """
    records = read_records(path)
    seconds = seconds_of_runs(runs, records)
    folders = {run.key: bundle[0] for bundle in measure.bundles(runs) for run in bundle}
    for run in runs:
        record = records.get(run.key)
        if record is not None and record.failure:
            state, about = "failed", record.failure
        elif record is not None and measure.is_done(run, record):
            state, about = "done", _score(record)
        else:
            folder = folders[run.key].in_root(root).folder
            state = "running" if is_locked(folder) else "missing"
            about = _minutes(sum(seconds[run.key])) if seconds else ""
        seeds = f"split {run.config.split.split_seed}  seed {run.config.training.train_seed}"
        info(f"{state:7}  {seeds}  {run.label}" + (f": {about}" if about else ""))
    made = [records[run.key] for run in runs if run.key in records]
    if text := other_versions([record for record in made if not record.failure]):
        info(text)
    info(f"{path.stem}: {budget(measure, runs, records)}")


def other_versions(records: Sequence[Record]) -> str:
    """Return a sentence about the `records` that other versions made, "" if none were."""
    present = {"torch": torch.__version__, "numpy": np.__version__}
    made = [{name: record.made_with.get(name) for name in VERSIONS} for record in records]
    others = [own for own in made if own != present]
    if not others:
        return ""
    names = {f"{name} {own[name]}" for own in others for name in own if own[name] != present[name]}
    return (
        f"{len(others)} of {len(records)} records were made with other versions than this "
        f"machine's ({', '.join(sorted(names))}) and count as done"
    )


def budget(measure: Measure, runs: Sequence[PlannedRun], records: Records) -> str:
    """Return how many of `runs` are missing and how long they take, as text."""
    missing = [run for run in runs if not measure.is_done(run, records.get(run.key))]
    failures = sum(run.key in records and bool(records[run.key].failure) for run in runs)
    text = f"{len(missing)} of {len(runs)} runs are missing"
    text += f", {failures} failed" if failures else ""
    if not missing or not (seconds := seconds_of_runs(missing, records)):
        return text
    trained = {run.config.name: seconds[run.key][0] for run in missing}
    total = _minutes(sum(trained.values()) + sum(own for _, own in seconds.values()))
    return f"{text}; on the machines of the records the missing ones take {total}"


def seconds_of_runs(runs: Sequence[PlannedRun], records: Records) -> dict[str, list[float]]:
    """Return how long each run takes by key: the mean of the records with its titles.

    The first number is for histories and training, which runs of one name share, the second for the
    rest. Titles without records have the mean of all. Returns {} if there are no records.
    """
    by_title: dict[tuple[str, str], list[list[float]]] = {}
    for record in records.values():
        if of := {name: value or 0 for name, value in record.seconds.items()}:
            shared = of.pop("collect_s", 0) + of.pop("train_s", 0)
            by_title.setdefault((record.group, record.row), []).append([shared, sum(of.values())])
    every = [value for own in by_title.values() for value in own]
    own = {run.key: by_title.get((run.group, run.row), every) for run in runs}
    return {key: np.mean(values, 0).tolist() for key, values in own.items() if values}


def _minutes(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"about {minutes} minute" + ("" if minutes == 1 else "s")


def _score(record: Record) -> str:
    """Return the NAUC of a run as text, or its return where the optimal return is unknown."""
    name = "return_last10" if record.score("nauc") is None else "nauc"
    if record.score(name) is None:
        return ""
    return f"{SCORES[name].heading} {number(record.score(name), SCORES[name].format)}"
