"""Write the release of an evaluated run and its claim as one file: logs/<run>/entry.tar."""

from ad.cli import run_script

run_script("submit", __name__)
