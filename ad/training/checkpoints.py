"""Checkpoints: weights, optimizer and fingerprint; written atomically, loaded with `weights_only`.

`step_<n>.pt` is the content. `step_<n>.json`, written after it, is its manifest: the size and the
SHA-256, since torch.load does not notice a flipped bit. Training resumes from the newest undamaged
checkpoint. Those at multiples of `training.keep_every` train steps are kept, for analyses.
"""

import hashlib
import io
import pickle
from pathlib import Path

import torch
from torch import nn

from ad.errors import ConfigError, CorruptError
from ad.runtime.console import warn
from ad.runtime.files import atomic_write, read_checked_json, sha256, write_checked_json

KEEP = 2  # number of newest checkpoints that are always kept
FORMAT = 4  # of the content; another number where its keys change


def name(step: int) -> str:
    """Return the file name of the checkpoint after `step` steps."""
    return f"step_{step:07d}.pt"


def save(folder: Path, step: int, content: dict, keep_every: int = 0) -> Path:
    """Write `content` (tensors and plain types); delete all but the newest `KEEP` checkpoints.

    Those at multiples of `keep_every` train steps stay too, unless it is 0.
    """
    path, buffer = folder / name(step), io.BytesIO()
    # Not straight into a file: its temporary name would be in the bytes, and a full disk would be
    # a RuntimeError without its cause.
    torch.save(content | {"step": step}, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    manifest = {"format": FORMAT, "bytes": buffer.tell(), "sha256": digest}
    write_checked_json(path.with_suffix(".json"), manifest)
    kept = sorted(folder.glob("step_*.pt"))[-KEEP:]
    kept += [folder / name(n) for n in steps(folder) if keep_every and n % keep_every == 0]
    # The .pt file goes first: without its manifest it would look like a damaged checkpoint.
    for old in sorted(folder.glob("step_*.*"), reverse=True):
        if old.with_suffix(".pt") not in kept:
            old.unlink()
    return path


def steps(folder: Path) -> list[int]:
    """Return the train steps of all checkpoints, in order."""
    return sorted(int(path.stem.removeprefix("step_")) for path in folder.glob("step_*.pt"))


def newest(folder: Path) -> Path | None:
    """Return the path of the checkpoint of the highest step; None without any."""
    return max(folder.glob("step_*.pt"), default=None)


def load(path: Path) -> dict:
    """Read a checkpoint into the CPU's memory. Raises CorruptError if it is damaged or incomplete.

    Raises ConfigError if its format is that of another version. An OSError other than a missing
    file is the machine's and is raised as it is. A checkpoint from a GPU loads without one too.
    """
    try:
        manifest = read_checked_json(path.with_suffix(".json"))
        if path.stat().st_size != manifest["bytes"] or sha256(path) != manifest["sha256"]:
            raise ValueError("its SHA-256 is not the one in its manifest")
        if manifest.get("format") != FORMAT:
            raise ConfigError(f"{path} is of another version: train again, with --fresh true")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CorruptError(
            f"the checkpoint {path} is incomplete: {Path(error.filename).name} is missing"
        ) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise CorruptError(f"the checkpoint {path} cannot be read: {error}") from error


def load_weights(model: nn.Module, content: dict) -> None:
    """Set the weights of `model` to a checkpoint's. Raises ConfigError if they do not fit."""
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:  # the code of the model has changed, not its settings
        raise ConfigError(
            f"the model of the checkpoint of train step {content['step']} has other weights than "
            f"{type(model).__name__} has now: train again, with --fresh true"
        ) from error


def load_newest(folder: Path) -> dict | None:
    """Return the newest readable checkpoint and delete damaged newer ones, with a warning each.

    Returns None if there is none.
    """
    paths = sorted(folder.glob("step_*.pt"), reverse=True)
    for path in paths:
        try:
            return load(path)
        except CorruptError as error:
            instead = "the one before it is used" if path != paths[-1] else "training begins again"
            warn(f"{error}; {instead}")
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()
    return None
