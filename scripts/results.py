"""Run the rows of configs/records/results.yaml and write the tables of README.md."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("results")
