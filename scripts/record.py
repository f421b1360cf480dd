"""Make the videos of a run: its source agents and the frozen model on held-out goals."""

import shutil

from ad.config.schema import Experiment
from ad.runtime.console import info
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """Make the videos that are missing or out of date; with `fresh`, all of them."""
    from ad.reporting.record import record
    from ad.runtime.run import Run

    run = Run.open(config)
    if fresh:
        shutil.rmtree(run.videos, ignore_errors=True)
    written, total = record(run)
    info(f"record: {written} of {total} videos written, in {run.videos}")


if __name__ == "__main__":
    run_verb(main)
