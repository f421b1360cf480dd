"""Write a synthetic data set for an experiment that reads one in XLand-MiniGrid's layout."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("synthesize")
