"""One experiment with several training seeds: a run of each, trained side by side."""

from collections.abc import Sequence
from pathlib import Path

from ad.config.schema import Experiment
from ad.errors import NumericError
from ad.runtime import console
from ad.runtime.locks import locked_runs
from ad.runtime.run import Run, with_seed
from ad.sweeps import pipeline
from ad.sweeps.results_table import print_table
from ad.training import checkpoints


def run_seeds(config: Experiment, seeds: Sequence[int], fresh: bool = False) -> None:
    """Run `config` with each of the training `seeds` and print the table of these runs.

    Raises NumericError at the end if training some of them failed.
    """
    configs = [with_seed(config, seed) for seed in seeds]
    with locked_runs(configs):
        failed = run_experiments(configs, fresh)
    names = [config.name for config in configs]
    print_table(Path(config.root), names)
    if failed:
        raise NumericError(f"{len(failed)} of {len(names)} seeds failed: {', '.join(failed)}")


def run_experiments(configs: Sequence[Experiment], fresh: bool = False) -> list[str]:
    """Run all verbs for `configs`, which differ in their training seeds.

    Returns the names of the runs that failed with a NumericError, which does not stop the others.
    """
    runs = [Run.open(config, fresh) for config in configs]
    for run in runs:
        pipeline.collect(run)
    try:
        pipeline.train(runs, fresh)
    except NumericError as error:
        console.error(str(error))
    return [run.config.name for run in runs if not _evaluate_and_report(run, fresh)]


def _evaluate_and_report(run: Run, fresh: bool) -> bool:
    """Evaluate and report a run that is trained to its end. Returns whether it has results."""
    last = checkpoints.name(run.config.training.steps)
    if not (run.folder / "checkpoints" / last).exists():
        return False
    try:
        pipeline.evaluate_and_report(run, fresh)
    except NumericError as error:
        console.error(f"{run.config.name}: {error}")
        return False
    return True
