"""Search settings of the source algorithm: logs/<run>/tuning/."""

from ad.cli import run_script

run_script("tune", __name__)
