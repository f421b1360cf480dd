"""Write the report of an evaluated run: logs/<run>/report.html."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("report")
