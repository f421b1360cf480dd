"""Checkpoints: weights, optimiser and what they belong to; written whole, never unpickled.

`step_<n>.pt` is the content and `step_<n>.json`, written after it, its size and SHA-256: torch.load
itself does not notice a flipped bit. The newest checkpoint that is what was written counts.
"""

import hashlib
import io
import pickle
from pathlib import Path

import torch

from ad.errors import CorruptError
from ad.runtime.console import notice
from ad.runtime.files import read_sealed, replacing, sha256, write_sealed

KEEP = 2  # newest checkpoints


def name(step: int) -> str:
    """The file name of the checkpoint after `step` steps."""
    return f"step_{step:07d}.pt"


def save(folder: Path, step: int, content: dict) -> Path:
    """Write `content` (tensors and plain types) for `step`; all but the newest `KEEP` go."""
    path, buffer = folder / name(step), io.BytesIO()
    # Not straight into a file: its temporary name would be in the bytes, and a full disk would be
    # a RuntimeError without its cause.
    torch.save(content | {"step": step}, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    write_sealed(path.with_suffix(".json"), {"bytes": buffer.tell(), "sha256": digest})
    kept = sorted(folder.glob("step_*.pt"))[-KEEP:]
    # The content goes first: without its description it would look like a damaged one.
    for old in sorted(folder.glob("step_*.*"), reverse=True):
        if old.with_suffix(".pt") not in kept:
            old.unlink()
    return path


def newest(folder: Path) -> Path | None:
    """The checkpoint of the highest step, if there is one."""
    return max(folder.glob("step_*.pt"), default=None)


def load(path: Path) -> dict:
    """Read a checkpoint into the CPU's memory. Raises CorruptError if it is not what was written.

    OSError is the machine's, not damage. Nor is a device that is missing: `load_state_dict` moves.
    """
    try:
        manifest = read_sealed(path.with_suffix(".json"))
        if path.stat().st_size != manifest["bytes"] or sha256(path) != manifest["sha256"]:
            raise ValueError("its SHA-256 is not the one in its manifest")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CorruptError(
            f"the checkpoint {path} is incomplete: {Path(error.filename).name} is missing"
        ) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise CorruptError(f"the checkpoint {path} cannot be read: {error}") from error


def load_newest(folder: Path) -> dict | None:
    """The newest checkpoint that can be read; a warning for each newer one, None without any."""
    paths = sorted(folder.glob("step_*.pt"), reverse=True)
    for path in paths:
        try:
            return load(path)
        except CorruptError as error:
            instead = "the one before it is used" if path != paths[-1] else "training begins again"
            notice(f"{error}; {instead}")
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()
    return None
