"""Say in sentences why a world does not learn."""

from ad.cli import run_script

run_script("doctor", __name__)
