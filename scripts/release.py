"""Write the trained model as safetensors with a model card: logs/<run>/release/."""

from ad.config import Experiment
from ad.notices import say
from scripts.cli import run_verb


def main(config: Experiment, fresh: bool = False) -> None:
    """Write the release anew; it takes a second."""
    from ad.release import release
    from ad.runs import Run

    say(f"release: {release(Run(config))}")


if __name__ == "__main__":
    run_verb(main)
