"""Print the table of source algorithms."""

from ad.cli import run_script

run_script("sources", __name__)
