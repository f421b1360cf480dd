"""Read learning histories of another format, and write an experiment to train on them."""

from ad.cli import run_script

run_script("import_histories", __name__)
