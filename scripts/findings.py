"""Look inside the models of configs/interpret/findings.yaml and write the tables of its page."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("findings")
