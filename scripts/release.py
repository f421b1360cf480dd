"""Write the trained model as safetensors, with a model card: logs/<run>/release/."""

from ad.cli import run_script

if __name__ == "__main__":
    run_script("release")
