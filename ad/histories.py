"""The store of learning histories: a folder a task and source seed, arrays [streams, T], verified.

`histories/<dataset>/<unit>/` holds a `.npy` file for each field of `ad.transitions.FIELDS`,
`curve.npy` (the learner's statistics) and `unit.json` (what made it, shapes, SHA-256 of each file).
A unit appears by one rename when it is whole and is checked again whenever it is read.
`histories/README.md` draws the arrays.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ad.errors import CorruptError
from ad.files import publish, read_sealed, sha256, write_sealed
from ad.transitions import FIELDS, Block

SCHEMA = 1
CURVE_START = (
    "env_steps",
    "return",
    "length",
)  # columns of curve.npy before the source's statistics


@dataclass
class Unit:
    """One history: `arrays` [streams, T] by field (mapped), `curve` by column, `manifest`."""

    arrays: dict[str, np.ndarray]
    curve: dict[str, np.ndarray]
    manifest: dict


class HistoryWriter:
    """Writes the histories of K tasks side by side in temporary folders; `close` publishes them."""

    def __init__(self, folders: list[Path], num_envs: int, steps: int):
        self.folders, self.shape, self.written = folders, (num_envs, steps), 0
        self.temporary = [f.with_name(f".{f.name}.{os.getpid()}.tmp") for f in folders]
        self.maps = [self._open(folder) for folder in self.temporary]
        self.statistics: list[dict[str, np.ndarray]] = []

    def _open(self, folder: Path) -> dict[str, np.ndarray]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        create = np.lib.format.open_memmap
        return {
            name: create(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=self.shape)
            for name, dtype in FIELDS.items()
        }

    def append(self, block: Block) -> None:
        """Add the transitions [T, K, E] of a block behind those already written."""
        part = slice(self.written, self.written + len(block))
        for name, array in block.arrays.items():
            for k, maps in enumerate(self.maps):
                maps[name][:, part] = array[:, k].T
        means = {name: _mean(values) for name, values in block.statistics.items()}
        self.statistics.append({"stop": np.full(len(self.maps), part.stop), **means})
        self.written = part.stop

    def close(self, manifests: list[dict]) -> None:
        """Publish every unit with its manifest: `manifests[k]` says what made unit k."""
        for k, (folder, temporary) in enumerate(zip(self.folders, self.temporary, strict=True)):
            np.save(temporary / "curve.npy", self._curve(k))
            columns = [*CURVE_START, *list(self.statistics[0])[1:]]
            for array in self.maps[k].values():
                array.flush()
            manifest = manifests[k] | {"schema": SCHEMA, "curve_columns": columns}
            write_sealed(temporary / "unit.json", manifest | {"files": _describe(temporary)})
            publish(temporary, folder)
        self.maps = []

    def discard(self) -> None:
        """Remove what is not published."""
        for folder in self.temporary:
            shutil.rmtree(folder, ignore_errors=True)

    def _curve(self, k: int) -> np.ndarray:
        arrays = self.maps[k]
        stops = np.array([s["stop"][k] for s in self.statistics])
        episode = episodes(arrays["terminated"] | arrays["truncated"], arrays["reward"])
        interval = np.searchsorted(stops, episode.stop, side="left")
        count = np.bincount(interval, minlength=len(stops))
        columns = [stops * self.shape[0]]
        for value in (episode.returns, episode.stop - episode.start):
            total = np.bincount(interval, value, minlength=len(stops))
            columns.append(
                np.divide(total, count, out=np.full(len(stops), np.nan), where=count > 0)
            )
        columns += [[s[name][k] for s in self.statistics] for name in list(self.statistics[0])[1:]]
        return np.array(columns, np.float32).T


@dataclass
class Episodes:
    """Whole episodes in order: stream, start and stop (exclusive), undiscounted return."""

    stream: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    returns: np.ndarray


def episodes(done: np.ndarray, reward: np.ndarray) -> Episodes:
    """The whole episodes of `done` and `reward` [streams, T], without an unfinished last one."""
    stream, last = np.nonzero(done)
    stop = last + 1
    fresh = np.r_[True, stream[1:] != stream[:-1]][: len(stream)]
    start = np.where(fresh, 0, np.r_[0, stop[:-1]][: len(stop)])
    total = np.pad(np.cumsum(reward, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    return Episodes(stream, start, stop, total[stream, stop] - total[stream, start])


def load_unit(folder: Path, fields: tuple[str, ...] = tuple(FIELDS)) -> Unit:
    """Read a unit, with sizes and hashes checked before anything is mapped. Raises CorruptError."""
    try:
        manifest = _manifest(folder)
        for name in (*fields, "curve"):
            _check(folder / f"{name}.npy", manifest["files"][f"{name}.npy"])
    except (OSError, ValueError) as error:
        raise CorruptError(f"the history {folder} cannot be read: {error!r}") from error
    read = {n: np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in fields}
    curve = np.load(folder / "curve.npy", allow_pickle=False)
    return Unit(read, dict(zip(manifest["curve_columns"], curve.T, strict=True)), manifest)


def is_whole(folder: Path) -> bool:
    """Whether a unit has the files and sizes of its manifest (reading checks the hashes)."""
    try:
        files = _manifest(folder)["files"]
        return all((folder / n).stat().st_size == entry["bytes"] for n, entry in files.items())
    except (OSError, ValueError):
        return False


def _manifest(folder: Path) -> dict:
    manifest = read_sealed(folder / "unit.json")
    if manifest.get("schema") != SCHEMA:
        raise ValueError(f"unit.json has schema {manifest.get('schema')}, not {SCHEMA}")
    return manifest


def _mean(values: list[np.ndarray]) -> np.ndarray:
    # One after the other: np.mean would add in an order that depends on the number of agents.
    return np.cumsum(values, axis=0, dtype=np.float64)[-1] / len(values)


def _describe(folder: Path) -> dict:
    entries = {}
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        entries[path.name] = {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
    return entries


def _check(path: Path, entry: dict) -> None:
    if path.stat().st_size != entry["bytes"]:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {entry['bytes']}")
    if sha256(path) != entry["sha256"]:
        raise ValueError(f"{path.name} is not what was written: its SHA-256 differs")
