"""The runs of a study: make those without a record, list them, and write the study's page."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ad.errors import NumericError
from ad.runtime import console
from ad.runtime.console import info
from ad.runtime.devices import choose_device
from ad.runtime.files import remove
from ad.runtime.locks import locked, locked_runs
from ad.runtime.run import Run
from ad.sweeps import pipeline
from ad.sweeps.study import Study, Trial, families, load_study, shard, trainings
from ad.sweeps.study_report import write_page
from ad.sweeps.study_rows import add_row, measured, read_rows


def plan(
    folder: Path, questions: Sequence[str], seeds: Sequence[int] | None, part: tuple[int, int]
) -> tuple[Study, list[Trial]]:
    """Return the study in `folder` and the runs of shard `part`, (k, n) with k from 1 to n."""
    study = load_study(folder, questions, seeds)
    return study, shard(study.trials(), *part)


def run_missing(study: Study, trials: Sequence[Trial], root: Path, keep: bool = False) -> None:
    """Make those of `trials` that have no row yet, in folders under `root`.

    The folder of a run is removed once its row is written, unless `keep`. A run whose numbers go
    wrong, as they would again, does not stop the others. Raises NumericError at the end.
    """
    rows, finished, missing, failed = read_rows(study.folder), [], [], []
    for group in trainings(trials):
        done = all(trial.key in rows for trial in group)
        (finished if done else missing).append(group)
    if not keep:
        for group in finished:
            remove(root / "logs" / group[0].training)
    ready = train_seeds(missing, root) if choose_device(study.base).type == "cuda" else missing
    for group in tqdm(ready, desc="study", total=len(missing), unit=" trainings", disable=None):
        try:
            for trial in group:
                if trial.key not in rows:
                    make(study, trial, root)
            if not keep:
                remove(root / "logs" / group[0].training)
        except NumericError as error:
            failed.append(group[0].training)
            console.error(f"{failed[-1]}: {error}")
    if failed:
        raise NumericError(f"{len(failed)} of {len(missing)} trainings failed: {', '.join(failed)}")


def make(study: Study, trial: Trial, root: Path) -> None:
    """Collect, train and evaluate one run under `root`, and add its row to the study."""
    root.mkdir(parents=True, exist_ok=True)
    config = replace(trial.config, root=str(root))
    with locked_runs([config]):
        run = Run.open(config)
        with locked(root / "histories", wait=True):  # another shard may need them too
            pipeline.collect(run)
        pipeline.train([run])
        pipeline.evaluate(run)
        row = measured(trial, run)
    with locked(study.folder, wait=True):
        add_row(study.folder, row)


def list_runs(study: Study, trials: Sequence[Trial]) -> None:
    """Print the runs, each with "done" or "missing"."""
    rows = read_rows(study.folder)
    for trial in trials:
        state = "done" if trial.key in rows else "missing"
        info(f"{state:7}  seed {trial.config.training.train_seed}  {trial.changed}")
    missing = sum(trial.key not in rows for trial in trials)
    info(f"study: {missing} of {len(trials)} runs are missing")


def make_page(folder: Path) -> None:
    """Write the page of all questions and seeds from the rows in `folder`."""
    study = load_study(folder)
    with locked(folder, wait=True):
        used = write_page(study)
    info(f"study: {used} of {len(study.trials())} runs in {folder / 'README.md'}")


def train_seeds(groups: Sequence[list[Trial]], root: Path) -> Iterator[list[Trial]]:
    """Yield `groups`, each after its training side by side with the other seeds of its kind.

    A training that fails here is tried again, alone, by `make`, which then raises NumericError.
    """
    for family in families(groups):
        configs = [replace(group[0].config, root=str(root)) for group in family]
        root.mkdir(parents=True, exist_ok=True)
        with locked_runs(configs), suppress(NumericError):
            runs = [Run.open(config) for config in configs]
            with locked(root / "histories", wait=True):
                for run in runs:
                    pipeline.collect(run)
            pipeline.train(runs)
        yield from family
