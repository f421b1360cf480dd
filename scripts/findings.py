"""Look inside the models of configs/interpret/findings.yaml and write the tables of its page."""

from ad.cli import run_script

run_script("findings", __name__)
