"""Evaluate the trained model in context on held-out and train tasks: logs/<run>/results.csv."""

from ad.cli import run_script

run_script("evaluate", __name__)
