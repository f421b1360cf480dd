"""Run the rows of configs/records/results.yaml and write the tables of README.md."""

from ad.cli import run_script

run_script("results", __name__)
