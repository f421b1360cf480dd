"""All five verbs in turn: collect, train, evaluate, record, report. What is there is kept."""

from ad.config import Experiment
from ad.errors import MachineError
from ad.notices import notice
from scripts import collect, evaluate, record, report, train
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """From nothing to a report with videos; with `fresh` again, but for the histories."""
    from ad.runs import Run

    Run(config, fresh)  # empties a run of other settings before collect would refuse it
    for verb in (collect, train, evaluate, record, report):
        try:
            verb.main(config, fresh and verb is not collect)
        except MachineError as error:
            if verb is not record:
                raise
            notice(f"no videos: {error}")  # the results do not depend on them


if __name__ == "__main__":
    run_verb(main)
