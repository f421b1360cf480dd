"""Write the trained model as safetensors with a model card: logs/<run>/release/."""

from ad.config.schema import Experiment
from ad.runtime.console import info
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """Write the release anew; it takes a second."""
    from ad.exchange.release import release
    from ad.runtime.run import Run

    info(f"release: {release(Run.open(config))}")


if __name__ == "__main__":
    run_verb(main)
