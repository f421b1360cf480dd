"""The state of unfinished work on the disk: arrays in one file, which a sealed description names.

`state.json` says what the state belongs to and which `state_<step>.npz` holds it, with its size and
SHA-256. It is written after the arrays and replaced in one rename, so that a state is either the
old one or the new one, whole.
"""

import zipfile
from pathlib import Path

import numpy as np

from ad.errors import CorruptError
from ad.runtime.files import atomic_write, read_checked_json, sha256, write_checked_json

DESCRIPTION = "state.json"


def save_state(folder: Path, step: int, state: dict, about: dict) -> None:
    """Replace the state in `folder` by `state` (nested dicts of arrays), reached at `step`."""
    path = folder / f"state_{step}.npz"
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **flatten(state))
    entry = {"step": step, "bytes": path.stat().st_size, "sha256": sha256(path)}
    write_checked_json(folder / DESCRIPTION, about | entry)
    for old in folder.glob("state_*.npz"):
        if old != path:
            old.unlink()


def read_metadata(folder: Path) -> dict | None:
    """What the state in `folder` belongs to, with its `step`; None without one or without sense."""
    try:
        return read_checked_json(folder / DESCRIPTION)
    except (OSError, ValueError):
        return None


def load_state(folder: Path) -> dict:
    """The nested dicts of arrays. Raises CorruptError if they are not what was written."""
    try:
        entry = read_checked_json(folder / DESCRIPTION)
        path = folder / f"state_{int(entry['step'])}.npz"
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise ValueError("its SHA-256 is not the one in its description")
        with np.load(path, allow_pickle=False) as arrays:
            return unflatten({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CorruptError(f"the state in {folder} cannot be read: {error}") from error


def flatten(state: dict, path: str = "") -> dict[str, np.ndarray]:
    """Nested dicts of arrays as one, with the names joined by slashes."""
    parts = {}
    for name, value in state.items():
        parts |= (
            flatten(value, f"{path}{name}/") if isinstance(value, dict) else {path + name: value}
        )
    return parts


def unflatten(arrays: dict[str, np.ndarray]) -> dict:
    """What `flatten` made one."""
    state: dict = {}
    for path, array in arrays.items():
        *groups, name = path.split("/")
        place = state
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = array
    return state
