"""Run the rows of configs/records/results.yaml and write its tables."""

from ad.cli import run_script

run_script("results", __name__)
