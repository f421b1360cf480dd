"""Write the experiments of the suite into a folder of one's own."""

from ad.cli import run_script

run_script("init", __name__)
