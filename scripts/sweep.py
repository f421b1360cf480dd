"""Run any sweep by its file, or list the runs of all with --status true."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("sweep")
