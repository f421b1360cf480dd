"""Check the histories, checkpoints and results of a run; --repair true makes them again."""

from ad.cli import run_script

run_script("verify", __name__)
