"""All five verbs in turn: collect, train, evaluate, record, report. What is there is kept."""

from ad.config.schema import Experiment
from ad.errors import MachineError
from ad.runtime.console import warn
from scripts import collect, evaluate, record, report, train
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """From nothing to a report with videos; with `fresh` again, but for the histories."""
    from ad.runtime.run import Run

    Run.open(config, fresh)  # empties a run of other settings before collect would refuse it
    collect.main(config)
    train.main(config, fresh)
    show(config, fresh)


def show(config: Experiment, fresh: bool = False) -> None:
    """What comes after training: evaluate, record, report."""
    evaluate.main(config, fresh)
    try:
        record.main(config, fresh)
    except MachineError as error:
        warn(f"no videos: {error}")  # the results do not depend on them
    report.main(config, fresh)


if __name__ == "__main__":
    run_verb(main)
