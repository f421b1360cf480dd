"""Write the trained model as safetensors, with a model card: logs/<run>/release/."""

from ad.cli import run_script

run_script("release", __name__)
