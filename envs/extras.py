"""The extras of the project: packages that only some components need, and how to install them."""

from importlib.util import find_spec

EXTRAS = {  # extra in pyproject.toml -> the modules that it brings
    "interpret": ("sklearn",),
    "minari": ("minari", "h5py"),
    "minigrid": ("minigrid",),
    "parquet": ("pyarrow",),
    "ray": ("ray",),
    "release": ("safetensors",),
    "sb3": ("stable_baselines3", "sb3_contrib"),
    "submitit": ("submitit",),
    "xland": ("h5py",),
}


def missing(extra: str) -> str | None:
    """Return what to install for `extra`, as the rest of a sentence; None if nothing is missing.

    An extra that is not in EXTRAS is the package of somebody else's component.
    """
    absent = [name for name in EXTRAS.get(extra, (extra,)) if find_spec(name) is None]
    if not absent:
        return None
    place = f'"algorithm-distillation[{extra}]"' if extra in EXTRAS else extra
    return f"needs a package that is not installed ({', '.join(absent)}): pip install {place}"
