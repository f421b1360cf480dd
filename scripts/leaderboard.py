"""Evaluate every method in every world and write the leaderboard."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("leaderboard")
