"""Print the total rewards of sources beside those that a paper prints."""

from ad.cli import run_script

run_script("totals", __name__)
