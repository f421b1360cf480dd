"""Write a page in which the trained model plays a dark room: logs/<run>/demo.html."""

from ad.cli import run_script

run_script("demo", __name__)
