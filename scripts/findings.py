"""Analyze the models of configs/records/findings.yaml and write the tables of what is found."""

from ad.cli import run_script

run_script("findings", __name__)
