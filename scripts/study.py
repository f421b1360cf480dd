"""Run the study in configs/study and write its page."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("study")
