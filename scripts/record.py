"""Record videos of the source agents and of the trained model: videos/<run>/."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("record")
