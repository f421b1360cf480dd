"""Check the histories, checkpoints and results of a run; --repair true makes them again."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("verify")
