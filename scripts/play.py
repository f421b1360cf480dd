"""Play a world next to a released model in a browser."""

from ad.cli import run_script

run_script("play", __name__)
