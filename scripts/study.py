"""Run the study of configs/records/study.yaml and write its page."""

from ad.cli import run_script

run_script("study", __name__)
