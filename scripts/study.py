"""Run the study in configs/study and write its page."""

from ad.cli import run_script

run_script("study", __name__)
