"""Print the total rewards of sources beside those that a paper prints."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("totals")
