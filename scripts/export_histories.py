"""Write the learning histories of an experiment in another format: Minari or XLand-MiniGrid's."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("export_histories")
