"""Look inside the trained model: logs/<run>/inspect/."""

from ad.cli import run_script

run_script("analyze", __name__)
