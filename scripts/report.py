"""Write the report of an evaluated run: table.md, curve.png and report.html."""

from ad.config.schema import Experiment
from ad.runtime.console import info
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """Write the report anew; it is made from what evaluation and record left, in seconds."""
    from ad.reporting.report import report
    from ad.runtime.run import Run

    path = report(Run.open(config))
    info(path.with_name("table.md").read_text(encoding="utf-8"))
    info(f"report: {path}")


if __name__ == "__main__":
    run_verb(main)
