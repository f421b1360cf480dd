"""Play a world beside the trained model in a browser, look inside it, edit what it remembers."""

from ad.cli import run_script

run_script("app", __name__)
