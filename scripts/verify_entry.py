"""Evaluate an entry again, from its weights alone, and say whether its claim stands."""

from ad.cli import run_script

run_script("verify_entry", __name__)
