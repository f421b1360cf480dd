"""Snapshots of unfinished work: nested dicts of arrays in one file, and their metadata.

`state.json` holds the metadata: what the snapshot belongs to, its step, and the size and SHA-256 of
`state_<step>.npz`, which holds the arrays. It is written after the arrays and replaced by one
rename, so that an interruption leaves either the old snapshot or the new one.
"""

import zipfile
from pathlib import Path

import numpy as np

from ad.errors import CorruptError
from ad.runtime.files import atomic_write, read_checked_json, sha256, write_checked_json

METADATA = "state.json"


def save_state(folder: Path, step: int, state: dict, metadata: dict) -> None:
    """Replace the snapshot in `folder` by `state`, nested dicts of arrays, at `step`."""
    path = folder / f"state_{step}.npz"
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **flatten(state))  # ty: ignore[invalid-argument-type] names, not keywords
    entry = {"step": step, "bytes": path.stat().st_size, "sha256": sha256(path)}
    write_checked_json(folder / METADATA, metadata | entry)
    for old in folder.glob("state_*.npz"):
        if old != path:
            old.unlink()


def read_metadata(folder: Path) -> dict | None:
    """Return the metadata of the snapshot in `folder`; None if there is none or it is damaged."""
    try:
        return read_checked_json(folder / METADATA)
    except (OSError, ValueError):
        return None


def load_state(folder: Path) -> dict:
    """Return the state of the snapshot in `folder`. Raises CorruptError if it is damaged."""
    try:
        entry = read_checked_json(folder / METADATA)
        path = folder / f"state_{int(entry['step'])}.npz"
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise ValueError("its SHA-256 differs from the one in its metadata")
        with np.load(path, allow_pickle=False) as arrays:
            return unflatten({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CorruptError(f"the state in {folder} cannot be read: {error}") from error


def flatten(state: dict, path: str = "") -> dict[str, np.ndarray]:
    """Return nested dicts of arrays as one dict, with the names joined by slashes."""
    arrays = {}
    for name, value in state.items():
        if isinstance(value, dict):
            arrays |= flatten(value, f"{path}{name}/")
        else:
            arrays[path + name] = value
    return arrays


def unflatten(arrays: dict[str, np.ndarray]) -> dict:
    """Return the nested dicts whose names `flatten` joined."""
    state: dict = {}
    for path, array in arrays.items():
        *groups, name = path.split("/")
        group = state
        for name_of_group in groups:
            group = group.setdefault(name_of_group, {})
        group[name] = array
    return state
