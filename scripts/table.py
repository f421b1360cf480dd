"""Print the results of all runs under logs/ as a table."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("table")
