"""Checkpoints of a source's policies: files beside the arrays of a history, `checkpoint_<n>.zip`.

n is the number of env steps that the source agent had taken. The manifest has the size and the
SHA-256 of each. They are written into the same folder as the arrays and published by one rename.
"""

import re
from pathlib import Path

from ad.runtime.files import sha256

NAME = re.compile(r"checkpoint_([0-9]{1,18})\.zip")
KEY = "checkpoints"  # of the manifest; a history without checkpoints has none


def write_checkpoint(folder: Path, env_steps: int, content: bytes) -> None:
    """Write a checkpoint into the folder of a history that is not published yet."""
    (folder / f"checkpoint_{env_steps}.zip").write_bytes(content)


def describe_checkpoints(folder: Path) -> dict[str, dict]:
    """Return the entry of the manifest for the checkpoints in `folder`, {} if there are none."""
    entries = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.glob("checkpoint_*.zip"))
    }
    return {KEY: entries} if entries else {}


def check_entries(manifest: dict) -> None:
    """Raise ValueError unless the entries of the checkpoints in `manifest` are valid."""
    entries = manifest.get(KEY, {})
    is_valid = isinstance(entries, dict) and all(
        NAME.fullmatch(name)
        and isinstance(entry, dict)
        and entry.keys() == {"bytes", "sha256"}
        and type(entry["bytes"]) is int
        and isinstance(entry["sha256"], str)
        for name, entry in entries.items()
    )
    if not is_valid:
        raise ValueError("the manifest describes no checkpoints of a source")


def checkpoint_at(folder: Path, manifest: dict, fraction: float) -> Path:
    """Return the checkpoint of a history that is nearest to a fraction of its env steps.

    Of two equally near ones the later. Raises ValueError if the history has none.
    """
    names = manifest.get(KEY, {})
    if not names:
        raise ValueError(f"the history {folder} has no checkpoints")
    steps = {int(NAME.sub(r"\1", name)): name for name in names}
    wanted = fraction * manifest["env_steps"]
    return folder / steps[min(sorted(steps, reverse=True), key=lambda step: abs(step - wanted))]
