"""Look inside the trained model and print what each analysis says: logs/<run>/inspect/."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("inspect")
