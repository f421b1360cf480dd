"""Record videos of the source agents and of the trained model: videos/<run>/."""

from ad.cli import run_script

run_script("record", __name__)
