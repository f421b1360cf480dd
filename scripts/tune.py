"""Search settings of the source algorithm: logs/<run>/tuning/."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("tune")
