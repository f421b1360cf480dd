"""The manifest of a history, `manifest.json`: written with a hash, validated when it is read.

The hash detects damage, not forgery. So every value of a manifest is validated before a file is
opened because of it, and a manifest can only name files of the store.
"""

import math
import re
import stat
from pathlib import Path

import numpy as np

from ad.data.checkpoints import check_entries, describe_checkpoints
from ad.data.schema import KINDS
from ad.data.spec import OBSERVATIONS
from ad.runtime.arrays import check_header
from ad.runtime.files import read_checked_json, sha256, write_checked_json
from envs.spaces import ARRAY_DTYPE, MAX_DIMENSIONS

SCHEMA = 2
MANIFEST = "manifest.json"
PART_SUFFIX = re.compile(r"(-[A-Za-z0-9_]+)+\.npy")  # after the role of an observation
CURVE, CURVE_START = "curve.npy", ["env_steps", "return", "length"]  # columns before statistics
STOPPED = "stopped_at_step"  # the steps that an agent learned from before it failed
MAX_BYTES = 1 << 20  # the manifests of the store have about 3000


def write_manifest(folder: Path, manifest: dict) -> None:
    """Write `manifest` into `folder` with the type, shape, size and hash of each array there.

    Checkpoints of the source have entries too.
    """
    entries = {path.name: _describe(path) for path in sorted(folder.glob("*.npy"))}
    own = {"schema": SCHEMA, "files": entries, **describe_checkpoints(folder)}
    write_checked_json(folder / MANIFEST, manifest | own)


def read_manifest(folder: Path) -> dict:
    """Return the manifest of the history in `folder`. Raises OSError.

    Raises ValueError if it is damaged or not a manifest of the store.
    """
    path = folder / MANIFEST
    if file_size(path) > MAX_BYTES:
        raise ValueError(f"{MANIFEST} is too large")
    manifest = read_checked_json(path)
    if manifest.get("schema") != SCHEMA:
        raise ValueError(
            f"{MANIFEST} has schema {manifest.get('schema')}, this version reads schema {SCHEMA}, "
            "and `ad collect` makes it again"
        )
    files, columns = manifest.get("files"), manifest.get("curve_columns")
    if not isinstance(files, dict) or not _are_of_history(set(files)):
        raise ValueError(f"{MANIFEST} does not list the files of a history")
    for name, entry in files.items():
        _check_entry(name, entry)
    check_entries(manifest)
    lengths = {tuple(entry["shape"][:2]) for name, entry in files.items() if name != CURVE}
    if len(lengths) != 1 or 0 in lengths.pop():
        raise ValueError(f"{MANIFEST} gives the arrays different lengths, or none")
    for name, entry in files.items():
        first = files.get(name.removeprefix("next_"))
        if first is not None and (first["dtype"], first["shape"]) != (
            entry["dtype"],
            entry["shape"],
        ):
            raise ValueError(f"{MANIFEST} gives both roles of an observation different types")
    if not _is_count(stop := manifest.get(STOPPED, 0)) or stop > files["action.npy"]["shape"][1]:
        raise ValueError(f"{MANIFEST} gives an invalid {STOPPED}")
    named = isinstance(columns, list) and all(isinstance(column, str) for column in columns)
    if not named or columns[:3] != CURVE_START or len(columns) != files[CURVE]["shape"][1]:
        raise ValueError(f"{MANIFEST} names other columns than {CURVE} has")
    return manifest


def check_file(path: Path, entry: dict) -> None:
    """Raise ValueError unless a file has the size, the header and the SHA-256 of its entry."""
    if (size := file_size(path)) != entry["bytes"]:
        raise ValueError(f"{path.name} has {size} bytes, not {entry['bytes']}")
    if "dtype" in entry:  # an array, not a checkpoint
        check_header(path, entry["dtype"], tuple(entry["shape"]), any_order=path.name == CURVE)
    if sha256(path) != entry["sha256"]:
        raise ValueError(f"{path.name} is not what was written: its SHA-256 differs")


def file_size(path: Path) -> int:
    """Return the bytes of a file. Raises ValueError for links, pipes and folders; OSError."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is not a plain file")
    return status.st_size


def _check_entry(name: str, entry: object) -> None:
    """Raise ValueError unless `entry` is a valid entry of the file `name`."""
    wanted = {"dtype", "shape", "bytes", "sha256"}
    if not isinstance(entry, dict) or entry.keys() != wanted:
        raise ValueError(f"{MANIFEST} does not describe {name}")
    shape = entry["shape"]
    if (
        not isinstance(shape, list)
        or not 2 <= len(shape) <= 2 + MAX_DIMENSIONS
        or not all(map(_is_count, shape))
    ):
        raise ValueError(f"{MANIFEST} gives {name} an impossible shape")
    kinds = {f"{field}.npy": kind for field, kind in KINDS.items()} | {CURVE: "f"}
    is_dtype = isinstance(entry["dtype"], str) and ARRAY_DTYPE.fullmatch(entry["dtype"])
    if not is_dtype or np.dtype(entry["dtype"]).kind not in kinds.get(name, "biuf"):
        raise ValueError(f"{MANIFEST} gives {name} an impossible type")
    is_flat = name not in kinds or len(shape) == 2
    if not _is_count(entry["bytes"]) or math.prod(shape) >= 2**63 or not is_flat:
        raise ValueError(f"{MANIFEST} gives {name} an impossible size")
    if not isinstance(entry["sha256"], str) or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise ValueError(f"{MANIFEST} gives {name} no SHA-256")


def _are_of_history(files: set[str]) -> bool:
    """Return whether `files` are the arrays of a history: its fields and the curve."""
    required = {CURVE, *(f"{name}.npy" for name in KINDS)}
    if not required <= files or not all(isinstance(name, str) for name in files):
        return False
    first, other = (
        {name.removeprefix(role) for name in files if name.startswith(role)}
        for role in OBSERVATIONS
    )
    named = first == {".npy"} or all(PART_SUFFIX.fullmatch(suffix) for suffix in first)
    count = 1 + len(KINDS) + len(first) + len(other)
    return named and first == other != set() and count == len(files)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _describe(path: Path) -> dict:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
    }
