"""Run the sweep of any file, or list the runs of all with --status true."""

from ad.cli import run_script

run_script("sweep", __name__)
