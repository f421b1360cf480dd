"""Collect, train, evaluate, record and report."""

from ad.cli import run_script

run_script("run", __name__)
