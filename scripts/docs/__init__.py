"""The documentation as a site: pages from docstrings, READMEs and tables, built by MkDocs."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
LEADERBOARD = ROOT / "configs/records/leaderboard.yaml"
