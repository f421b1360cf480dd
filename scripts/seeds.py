"""Run an experiment with several training seeds, e.g. --seeds 0,1,2, and print their table."""

from ad.cli import run_script

run_script("seeds", __name__)
