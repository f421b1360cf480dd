"""Collect the learning histories of all train tasks: histories/<dataset>/."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("collect")
