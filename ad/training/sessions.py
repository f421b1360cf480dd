"""On what a run was computed: a line for each process that trained it, in `sessions.json`.

Bits depend on versions, device, threads and how many models a pass serves. A run may go on with
others; that is said once, and `results.json` keeps it (`resumed_with`, `evaluated_on`), where the
report finds it. Histories depend on neither device nor threads; their `unit.json` has the versions.
"""

import itertools
import json
import platform
from pathlib import Path

import numba
import numpy as np
import torch

from ad.config.schema import Experiment
from ad.runtime.console import notice
from ad.runtime.devices import autocast
from ad.runtime.files import write_json


def machine(config: Experiment, device: torch.device) -> dict[str, str | int]:
    """What the bits of a computation depend on beside its configuration."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    rough = autocast(config, device)._enabled
    return {
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "precision": "bfloat16" if rough else "float32",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,  # training and evaluations on a CPU
    }


def begin(folder: Path, step: int, present: dict[str, str | int]) -> None:
    """Note that a process goes on with training from `step` on the machine `present`.

    Processes whose work is not part of it (they began at or after `step`) are forgotten.
    """
    before = [session for session in read(folder) if session["from_step"] < step]
    if before and (changed := _changes(before[-1], present)):
        notice(f"training goes on with {', '.join(changed)}: the bits may differ from a whole run")
    write_json(folder / "sessions.json", {"train": [*before, {"from_step": step} | present]})


def read(folder: Path) -> list[dict]:
    """The sessions of a training, the first one first; none where that is not known."""
    try:
        return json.loads((folder / "sessions.json").read_text(encoding="utf-8"))["train"]
    except (OSError, ValueError, KeyError):
        return []


def resumed_with(sessions: list[dict]) -> list[str]:
    """'step 200: threads 2 -> 1' for all that changed between the sessions of a training."""
    return [
        f"step {after['from_step']}: {change}"
        for before, after in itertools.pairwise(sessions)
        for change in _changes(before, after)
    ]


def _changes(before: dict, after: dict) -> list[str]:
    names = [name for name in after if name != "from_step"]
    return [
        f"{name} {before.get(name)} -> {after[name]}"
        for name in names
        if before.get(name) != after[name]
    ]
