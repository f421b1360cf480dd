"""Print the table of worlds."""

from ad.cli import run_script

run_script("worlds", __name__)
