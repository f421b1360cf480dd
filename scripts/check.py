"""Try the components of an experiment against their contracts."""

from ad.cli import run_script

run_script("check", __name__)
