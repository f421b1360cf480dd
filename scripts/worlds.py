"""Print the table of worlds."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("worlds")
