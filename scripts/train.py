"""Train the sequence model on the histories: logs/<run>/checkpoints."""

import contextlib

from ad.config import Experiment
from ad.notices import say
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """Train to the configured step, from the newest checkpoint; with `fresh`, from the start."""
    from ad import checkpoints
    from ad.interruption import deferred
    from ad.runs import Run
    from ad.training import Trainer

    run = Run(config, fresh)
    if fresh:
        run.discard_training()
    trainer = Trainer(run)
    if trainer.step == config.training.steps:
        say(f"train: done before ({trainer.step} steps), in {run.folder}")
        return
    with deferred() as asked, contextlib.closing(run.log):
        trainer.train(asked)
    say(f"train: {trainer.step} steps, {checkpoints.newest(run.folder / 'checkpoints')}")


if __name__ == "__main__":
    run_verb(main)
