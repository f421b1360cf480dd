"""Play a world beside the trained model in a browser, look inside it, edit what it remembers."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("app")
