"""Print the results of all runs under logs/ as a table."""

from ad.cli import run_script

run_script("table", __name__)
