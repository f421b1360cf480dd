"""Search settings of a source algorithm, by default those of configs/records/tune.yaml."""

from ad.cli import run_script

run_script("tune", __name__)
