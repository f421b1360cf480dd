"""Collect the learning histories of all train tasks: histories/<dataset>/<unit>/."""

from ad.config.schema import Experiment
from ad.runtime.console import info
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """Run the source agents that have no history yet; with `fresh`, all of them."""
    from ad.collection.collect import collect, show_curves
    from ad.data.histories import Histories
    from ad.runtime.run import Run

    run = Run.open(config, fresh)
    with run.timed("collect_s"):
        fresh_units = collect(run, fresh)
    show_curves(run)
    total = len(run.split.train_tasks)
    info(f"collect: {fresh_units} of {total} histories collected, in {Histories(config).path}")


if __name__ == "__main__":
    run_verb(main)
