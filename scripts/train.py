"""Train the sequence model on the histories: logs/<run>/checkpoints."""

from ad.config import Experiment
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """Train to the configured step, from the newest checkpoint; with `fresh`, from the start."""
    from ad import checkpoints
    from ad.runs import Run
    from ad.training import Trainer

    run = Run(config, fresh)
    if fresh:
        run.discard_training()
    trainer = Trainer(run)
    if trainer.step == config.training.steps:
        print(f"train: done before ({trainer.step} steps), in {run.folder}")
        return
    try:
        trainer.train()
    finally:
        run.log.close()
    print(f"train: {trainer.step} steps, {checkpoints.newest(run.folder / 'checkpoints')}")


if __name__ == "__main__":
    run_verb(main)
