"""Write the learning histories of an experiment in another format: Minari or XLand-MiniGrid's."""

from ad.cli import run_script

run_script("export_histories", __name__)
