"""Write a component and its test from a template."""

from ad.cli import run_script

run_script("new", __name__)
