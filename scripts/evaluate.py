"""Evaluate the frozen model in context on held-out and train tasks: logs/<run>/results.csv."""

from ad.config import Experiment
from ad.notices import say
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """Roll the trained model out unless the results of this configuration are there."""
    from ad.evaluation import evaluate
    from ad.runs import Run

    run = Run(config)
    evaluated = evaluate(run, fresh)
    say(f"evaluate: {'done' if evaluated else 'done before'}, {run.folder / 'results.csv'}")


if __name__ == "__main__":
    run_verb(main)
