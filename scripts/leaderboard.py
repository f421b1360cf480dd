"""Evaluate every method in every world of configs/records/leaderboard.yaml, and write its page."""

from ad.cli import run_script

run_script("leaderboard", __name__)
