"""Train the sequence model on the histories: logs/<run>/checkpoints/."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("train")
