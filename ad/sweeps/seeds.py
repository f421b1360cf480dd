"""The runs of one experiment with several training seeds, and their table."""

from collections.abc import Sequence
from pathlib import Path

from ad.config.schema import Experiment
from ad.errors import NumericError
from ad.pipeline import run_all
from ad.runtime.locks import locked_runs
from ad.runtime.run import Run, with_seed
from ad.sweeps.results_table import print_table


def run_seeds(config: Experiment, seeds: Sequence[int], fresh: bool = False) -> None:
    """Run `config` with each of the training `seeds` and print the table of these runs.

    A NumericError of one is raised after the table.
    """
    configs, failure = [with_seed(config, seed) for seed in seeds], None
    with locked_runs(configs):
        try:
            # Other seeds may be run by other processes, which need the same histories.
            run_all([Run.open(config, fresh) for config in configs], fresh, wait=True)
        except NumericError as error:
            failure = error
    print_seeds(config, seeds)
    if failure:
        raise failure


def print_seeds(config: Experiment, seeds: Sequence[int]) -> None:
    """Print the table of the runs of `config` with each of the training `seeds`."""
    print_table(Path(config.root), [with_seed(config, seed).name for seed in seeds])
