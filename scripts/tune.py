"""Search settings of the source algorithm, side by side: logs/<run>/tuning/."""

from ad.config.schema import Experiment
from ad.runtime.console import info
from scripts.cli import run_verb

SHOWN = 20  # settings in the table on the terminal


def main(config: Experiment, fresh: bool = False) -> None:
    """Try the settings of tune.grid that are not tried yet (with `fresh`, all); rank them."""
    from ad.config.schema import dump
    from ad.reporting.tables import Table
    from ad.runtime.files import write_text
    from ad.sweeps.tuning import tune, tuning_folder
    from ad.sweeps.tuning_report import write_report

    folder = tuning_folder(config)
    tuning = tune(config, fresh)
    write_text(folder / "config.yaml", dump(config))
    table = write_report(config, tuning, folder)
    info(Table(table.header, table.rows[:SHOWN]).markdown())
    info(f"tune: {len(table.rows)} settings on {len(tuning.tasks)} tasks, the best in {folder}")


if __name__ == "__main__":
    run_verb(main)
