"""Collect, train, evaluate, record and report."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("run")
