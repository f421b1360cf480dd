"""Print the table of source algorithms."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("sources")
