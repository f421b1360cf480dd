"""What a checkpoint was made of, and on which hardware.

The fingerprint lies in the checkpoint. A held-out score means something only if the model never saw
the task; so this is checked against the checkpoint itself, not against the folder that holds it.

`sessions.json` has an entry for each process that trained. Bits depend on versions, device, threads
and the number of models in one pass. A run may resume with other ones: a warning says so once, and
`results.json` records it (`resumed_with`, `evaluated_on`), from where the report shows it.
Histories depend on neither device nor threads; their `manifest.json` has the versions.
"""

import itertools
import json
import platform
from pathlib import Path

import numpy as np
import torch

from ad.config.schema import Experiment, config_hash
from ad.errors import ConfigError
from ad.runtime.console import warn
from ad.runtime.files import write_json
from ad.training.precision import uses_bfloat16
from envs.registry import file_hashes
from envs.tasks import Split, task_name

LABELS = {"train_tasks": "list of train tasks"}


def fingerprint(config: Experiment, split: Split) -> dict:
    """Return encoder, train tasks, and hashes of world, split, model, data, method and code."""
    own, env = config.model, config.env
    parts = own.encoder, *own.encoders.values(), own.memory, own.tokenizer, own.position, own.reward
    return {
        "world": config_hash(config.env),
        "split": split.hash,
        "encoder": config.model.encoder,
        "model": config_hash(config.model),
        "data": config_hash(config.data),
        "method": config_hash(config.method),
        "train_tasks": split.train_tasks.tolist(),
        "code": file_hashes(
            env.id, *env.kwargs.values(), config.source.algorithm, config.method.name, *parts
        ),
    }


def check_fingerprint(content: dict, config: Experiment, split: Split) -> None:
    """Raise ConfigError, in one sentence, if a checkpoint is not one of this configuration."""
    made, present = content["fingerprint"], fingerprint(config, split)
    if made["world"] == present["world"]:
        trained = {tuple(task) for task in made["train_tasks"]}
        both = [task_name(task) for task in split.held_out_tasks if tuple(task.tolist()) in trained]
        if both:
            names = ", ".join(both[:5]) + (", ..." if both[5:] else "")
            raise ConfigError(
                f"the checkpoint was trained on {len(both)} of the held-out tasks ({names}): "
                "its score on them would not be one on unseen tasks"
            )
    for name in present:
        if made.get(name) != present[name]:
            what = f"{LABELS.get(name, name)} than the configured one"
            if name == "code":
                old, new = made[name], present[name]
                changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
                files = sorted({key.rpartition(":")[0] for key in changed})
                what = f"version of {', '.join(files)}"
            raise ConfigError(
                f"the checkpoint was trained with another {what}, so that its scores would not be "
                "what they are called: train again with --fresh true"
            )


def hardware(config: Experiment, device: torch.device) -> dict[str, str | int]:
    """Return what the bits of a computation depend on beside its configuration."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "precision": "bfloat16" if uses_bfloat16(config, device) else "float32",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def evaluation_hardware(config: Experiment, device: torch.device) -> dict[str, str | int]:
    """Return `hardware` of an evaluation, which is in float32 however the model was trained."""
    return hardware(config, device) | {"precision": "float32"}


def log_session(folder: Path, step: int, present: dict[str, str | int]) -> None:
    """Record that a process trains from `step` on, on the hardware `present`.

    Sessions that began at or after `step` are forgotten: nothing is left of their work.
    """
    before = [session for session in read_sessions(folder) if session["from_step"] < step]
    if before and (changed := _changes(before[-1], present)):
        warn(f"training resumes with {', '.join(changed)}: the bits may differ from a whole run")
    write_json(folder / "sessions.json", {"train": [*before, {"from_step": step} | present]})


def read_sessions(folder: Path) -> list[dict]:
    """Return the sessions of a training, the first one first; none if the file is unreadable."""
    try:
        return json.loads((folder / "sessions.json").read_text(encoding="utf-8"))["train"]
    except (OSError, ValueError, KeyError):
        return []


def resumed_with(sessions: list[dict]) -> list[str]:
    """Return 'step 200: threads 2 -> 1' for each change from one session to the next."""
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
