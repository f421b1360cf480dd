"""Train the sequence model on the histories: logs/<run>/checkpoints/."""

from ad.cli import run_script

run_script("train", __name__)
