"""Collect the learning histories of all train tasks: histories/<dataset>/."""

from ad.cli import run_script

run_script("collect", __name__)
