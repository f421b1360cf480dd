"""The runs of a study: make those without a record, list them, and write the study's page."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

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
from ad.sweeps.study import (
    PlannedRun,
    Study,
    group_by_experiment,
    group_by_training,
    load_study,
    shard,
)
from ad.sweeps.study_records import add_record, read_records, record_of
from ad.sweeps.study_report import write_page
from ad.sweeps.study_verdicts import contradictions, study_results


def plan(
    folder: Path, questions: Sequence[str], seeds: Sequence[int] | None, part: tuple[int, int]
) -> tuple[Study, list[PlannedRun]]:
    """Return the study in `folder` and the runs of shard `part`, (k, n) with k from 1 to n."""
    study = load_study(folder, questions, seeds)
    return study, shard(study.planned_runs(), *part)


def run_missing(study: Study, runs: Sequence[PlannedRun], root: Path, keep: bool = False) -> None:
    """Make those of `runs` that have no record yet, in folders under `root`.

    The folder of a run is removed once its record is written, unless `keep`. A run that fails with
    a NumericError would fail again and does not stop the others; NumericError is raised at the end.
    """
    records, missing, failed = read_records(study.records), [], []
    for training in group_by_training(runs):
        if any(run.key not in records for run in training):
            missing.append(training)
        elif not keep:
            remove(root / "logs" / training[0].config.name)
    due = train_side_by_side(missing, root) if choose_device(study.base).type == "cuda" else missing
    for training in tqdm(due, desc="study", total=len(missing), unit=" trainings", disable=None):
        try:
            for run in training:
                if run.key not in records:
                    make(study, run, root)
            if not keep:
                remove(root / "logs" / training[0].config.name)
        except NumericError as error:
            failed.append(training[0].config.name)
            console.error(f"{failed[-1]}: {error}")
    if failed:
        raise NumericError(f"{len(failed)} of {len(missing)} trainings failed: {', '.join(failed)}")


def make(study: Study, planned: PlannedRun, root: Path) -> None:
    """Collect, train and evaluate one run under `root`, and add its record to the study."""
    config = replace(planned.config, root=str(root))
    with locked_runs([config]):
        (run,) = _collect_and_train([config], root)
        pipeline.evaluate(run)
        record = record_of(planned, run)
    with locked(study.folder, wait=True):
        add_record(study.records, record)


def list_runs(study: Study, runs: Sequence[PlannedRun]) -> None:
    """Print the runs, each with "done" or "missing"."""
    records = read_records(study.records)
    for run in runs:
        state = "done" if run.key in records else "missing"
        info(f"{state:7}  seed {run.config.training.train_seed}  {run.changed}")
    missing = sum(run.key not in records for run in runs)
    info(f"study: {missing} of {len(runs)} runs are missing")


def make_page(folder: Path) -> None:
    """Write the page of all questions and seeds of the study in `folder` from its records.

    Warns of each question whose file states other verdicts than the records, once all are there.
    """
    study = load_study(folder)
    with locked(folder, wait=True):
        used = write_page(study)
    if used == len(study.planned_runs()):
        for text in contradictions(study, study_results(study, read_records(study.records))):
            console.error(f"warning: {text}")
    info(f"study: {used} of {len(study.planned_runs())} runs in {folder / 'README.md'}")


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
