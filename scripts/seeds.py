"""One row with several training seeds: all five verbs for each, and a table with their mean.

    python -m scripts.seeds --seeds 0,1,2 --config_path configs/quickstart.yaml [--section.field v]

The run of seed 0, whatever `training.train_seed` says, is called <name>-seed-0. They train side by
side (`ad/training/multi_seed.py`). What is there is kept; interrupted, the same command goes on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ad.config.parser import load
from ad.config.schema import Experiment
from ad.errors import ConfigError, NumericError
from ad.runtime import console
from ad.runtime.run import with_seed
from scripts import collect, run, table, train
from scripts.cli import guarded, locked_runs, numbers, run_words


def main(argv: Sequence[str]) -> None:
    """Do what the words ask for: `--seeds 0,1,2`, and those of `scripts.run`."""
    seeds, words = _split(argv)
    invocation = load(words)
    configs = [with_seed(invocation.config, seed) for seed in seeds]
    with locked_runs(configs):
        failed = make(configs, invocation.flag)
    names = [config.name for config in configs]
    table.main(Path(invocation.config.root), names, None)
    if failed:
        raise NumericError(f"{len(failed)} of {len(names)} seeds failed: {', '.join(failed)}")


def make(configs: Sequence[Experiment], fresh: bool = False) -> list[str]:
    """The runs of `configs`, which differ in their training seeds; with `fresh` again.

    Returns the names of those whose numbers went wrong, which is nothing to the others.
    """
    from ad.runtime.run import Run

    for config in configs:
        Run.open(config, fresh)
        collect.main(config)
    try:
        train.train_all(configs, fresh)
    except NumericError as error:
        console.error(str(error))
    return [config.name for config in configs if not _shown(config, fresh)]


def _shown(config: Experiment, fresh: bool) -> bool:
    """What comes after training, where that is finished; whether there are results."""
    from ad.training import checkpoints

    if not (config.folder / "checkpoints" / checkpoints.name(config.training.steps)).exists():
        return False
    try:
        run.show(config, fresh)
    except NumericError as error:
        console.error(f"{config.name}: {error}")
        return False
    return True


def _split(argv: Sequence[str]) -> tuple[list[int], list[str]]:
    """The numbers behind --seeds, and the other words."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--seeds", nargs="?", default="")
    known, words = parser.parse_known_args(argv)
    if not known.seeds:
        raise ConfigError("--seeds is missing: the training seeds with commas between, e.g. 0,1,2")
    seeds = numbers("--seeds", known.seeds)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds must be different numbers, not {known.seeds}")
    return seeds, words


if __name__ == "__main__":
    run_words(lambda words: guarded(lambda: main(words)), f"{__doc__}\n")
