"""Write the report of an evaluated run: logs/<run>/report.html."""

from ad.cli import run_script

run_script("report", __name__)
