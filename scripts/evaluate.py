"""Evaluate the frozen model in context on held-out and train tasks: logs/<run>/results.csv.

Then in the other worlds of `evaluation.worlds`: logs/<run>/worlds/<world>/results.csv.
"""

from ad.config.schema import Experiment
from ad.runtime.console import info
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """Roll the trained model out unless the results of this configuration are there."""
    from ad.evaluation.evaluate import evaluate
    from ad.evaluation.transfer import evaluate_worlds
    from ad.runtime.run import Run

    run = Run.open(config)
    evaluated = evaluate(run, fresh)
    info(f"evaluate: {'done' if evaluated else 'done before'}, {run.folder / 'results.csv'}")
    for world in evaluate_worlds(run, fresh):
        info(f"evaluate: done in another world, {world.folder / 'results.csv'}")


if __name__ == "__main__":
    run_verb(main)
