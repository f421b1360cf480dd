"""Train the sequence model on the histories: logs/<run>/checkpoints."""

from collections.abc import Sequence
from contextlib import ExitStack, closing

from ad.config.schema import Experiment
from ad.runtime.console import info
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """Train to the configured step, from the newest checkpoint; with `fresh`, from the start."""
    train_all([config], fresh)


def train_all(configs: Sequence[Experiment], fresh: bool = False) -> None:
    """The same for `configs` that differ in their training seeds, side by side."""
    from ad.runtime.run import Run
    from ad.runtime.signals import defer_signals
    from ad.training import checkpoints
    from ad.training.multi_seed import new_trainers, train_seeds

    runs = [Run.open(config, fresh) for config in configs]
    for run in runs if fresh else ():
        run.discard_training()
    trainers = new_trainers(runs)
    for trainer in trainers:
        if not trainer.left:
            info(f"train: done before ({trainer.step} steps), in {trainer.run.folder}")
    waiting = [trainer for trainer in trainers if trainer.left]
    try:
        with defer_signals() as stop_requested, ExitStack() as logs:
            for trainer in waiting:
                logs.enter_context(closing(trainer.run.log))
            train_seeds(waiting, stop_requested)
    finally:
        for trainer in waiting:
            if not trainer.left:
                newest = checkpoints.newest(trainer.run.folder / "checkpoints")
                info(f"train: {trainer.step} steps, {newest}")


if __name__ == "__main__":
    run_verb(main)
