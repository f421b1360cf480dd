"""Evaluate every method in every world and write the leaderboard."""

from ad.cli import run_script

run_script("leaderboard", __name__)
