"""The store of learning histories: a folder a task and source seed, arrays [streams, T], verified.

`histories/<dataset>/<unit>/` holds a `.npy` file for each field of `ad.data.schema.FIELDS`,
`curve.npy` (the learner's statistics) and `unit.json` (what made it, shapes, SHA-256 of each file).
A unit appears by one rename when it is whole and is checked again whenever it is read.
`histories/README.md` draws the arrays.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ad.data.episodes import episodes
from ad.data.manifest import (
    CURVE_START,
    STOPPED,
    check_file,
    file_size,
    read_manifest,
    write_manifest,
)
from ad.data.schema import FIELDS, TransitionChunk
from ad.errors import CorruptError
from ad.runtime.arrays import LazyArrays, create_memmap, open_memmap
from ad.runtime.files import atomic_rename_dir, remove_leftovers

SMALL_FILES = 64 * 1024  # bytes, more than the curve, the manifest and the headers take
PARTIAL = ".partial-"  # how the folder begins in which unfinished units grow


@dataclass
class History:
    """One history: `arrays` [streams, T] by field, `curve` by column, `manifest`."""

    arrays: LazyArrays
    curve: dict[str, np.ndarray]
    manifest: dict

    @property
    def stopped_at(self) -> int | None:
        """How many steps of each lane the agent learned from, if its numbers broke; else None."""
        return self.manifest.get(STOPPED)

    @property
    def learned(self) -> LazyArrays:
        """The arrays up to where the agent stopped learning; of a healthy one, to the end."""
        return LazyArrays(self.arrays.folder, self.arrays.names, self.stopped_at)


class HistoryWriter:
    """Writes the histories of K tasks side by side in one partial folder; `close` publishes them.

    `resume` goes on in the folder that a writer of the same `folders` left: `restore` then says how
    much in it counts. Raises CorruptError if it does not hold what that writer made there.
    """

    def __init__(self, folders: list[Path], num_envs: int, steps: int, resume: bool = False):
        self.folders, self.shape, self.written = folders, (num_envs, steps), 0
        self.statistics: list[dict[str, np.ndarray]] = []  # of each block
        self.digests: list[np.ndarray] = []  # of each block: SHA-256 of every unit, uint8 [K, 32]
        self.partial = partial_folder(folders)
        self.temporary = [self.partial / folder.name for folder in folders]
        try:
            self.maps = self._reopen() if resume else self._create()
        except ValueError as error:
            raise CorruptError(f"{self.partial} cannot be gone on with: {error}") from error

    def _create(self) -> dict[int, dict[str, np.ndarray]]:
        """The arrays of every unit, by its index."""
        self.discard()
        maps: dict[int, dict[str, np.ndarray]] = {}
        try:
            for k, folder in enumerate(self.temporary):
                folder.mkdir(parents=True)
                maps[k] = self._each(create_memmap, folder)
        except OSError:  # a full disk, too many open files
            self.discard()
            raise
        return maps

    def _reopen(self) -> dict[int, dict[str, np.ndarray]]:
        """Likewise; units that are published are no longer here."""
        remove_leftovers(self.partial)
        return {
            k: self._each(open_memmap, folder)
            for k, folder in enumerate(self.temporary)
            if folder.exists() or not is_complete(self.folders[k])
        }

    def _each(self, opened: Callable, folder: Path) -> dict[str, np.ndarray]:
        """The arrays of one unit, by `opened(path, dtype, shape)`."""
        return {
            name: opened(folder / f"{name}.npy", np.dtype(dtype), self.shape)
            for name, dtype in FIELDS.items()
        }

    def state(self) -> dict:
        """How much is written and what was measured, as arrays, once `flush` has secured it."""
        names = self.statistics[0] if self.statistics else ()
        rows = {name: np.stack([row[name] for row in self.statistics]) for name in names}
        digests = np.array(self.digests, np.uint8)
        return {"written": np.array(self.written), "statistics": rows, "digests": digests}

    def restore(self, state: dict) -> None:
        """Go on from what `state` gave: what was written behind it is written again.

        Raises CorruptError if what was written before is no longer there.
        """
        self.written, rows = int(state["written"]), state.get("statistics", {})
        count = len(rows["stop"]) if rows else 0
        self.statistics = [{name: rows[name][i] for name in rows} for i in range(count)]
        self.digests, start = list(state["digests"]), 0
        for row, digests in zip(self.statistics, self.digests, strict=True):
            part = slice(start, start := int(row["stop"][0]))
            for k, maps in self.maps.items():
                if _digest(maps[name][:, part] for name in FIELDS) != digests[k].tobytes():
                    raise CorruptError(f"{self.temporary[k]} is not what was written")

    def flush(self) -> None:
        """Bring what was appended to the disk."""
        for maps in self.maps.values():
            for array in maps.values():
                array.flush()

    def append(self, block: TransitionChunk) -> None:
        """Add the transitions [T, K, E] of a block behind the last."""
        part = slice(self.written, self.written + len(block))
        digests = np.zeros((len(self.folders), hashlib.sha256().digest_size), np.uint8)
        for k, maps in self.maps.items():
            own = {name: array[:, k].swapaxes(0, 1) for name, array in block.arrays.items()}
            for name, array in own.items():
                maps[name][:, part] = array
            digests[k] = np.frombuffer(_digest(own[name] for name in FIELDS), np.uint8)
        self.digests.append(digests)
        means = {name: mean_in_order(values) for name, values in block.statistics.items()}
        self.statistics.append({"stop": np.full(len(self.folders), part.stop), **means})
        self.written = part.stop

    def close(self, manifests: list[dict]) -> None:
        """Publish every unit with its manifest: `manifests[k]` says what made unit k."""
        self.flush()
        columns = [*CURVE_START, *list(self.statistics[0])[1:]]
        for k in self.maps:
            folder = self.temporary[k]
            np.save(folder / "curve.npy", self._curve(k))
            write_manifest(folder, manifests[k] | {"curve_columns": columns})
            atomic_rename_dir(folder, self.folders[k])
        self.discard()

    def discard(self) -> None:
        """Remove what is not published."""
        self.maps = {}
        shutil.rmtree(self.partial, ignore_errors=True)

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


def history_bytes(num_envs: int, steps: int) -> int:
    """About how much room a unit takes on the disk."""
    each = sum(np.dtype(dtype).itemsize for dtype in FIELDS.values())
    return num_envs * steps * each + SMALL_FILES


def partial_folder(folders: list[Path]) -> Path:
    """Where the units `folders` of one dataset grow together before they are published."""
    names = "\n".join(folder.name for folder in folders)
    return folders[0].parent / f"{PARTIAL}{hashlib.sha256(names.encode()).hexdigest()[:12]}"


def load_history(folder: Path, fields: tuple[str, ...] = tuple(FIELDS)) -> History:
    """Read `fields` of a unit.

    Sizes and hashes are checked before anything is mapped. Raises CorruptError.
    """
    try:
        manifest = read_manifest(folder)
        for name in (*fields, "curve"):
            check_file(folder / f"{name}.npy", manifest["files"][f"{name}.npy"])
    except (OSError, ValueError) as error:
        raise CorruptError(
            f"the history {folder} cannot be used: {error}; scripts.verify lists all such"
        ) from error
    curve = np.load(folder / "curve.npy", allow_pickle=False)
    return History(
        LazyArrays(folder, fields),
        dict(zip(manifest["curve_columns"], curve.T, strict=True)),
        manifest,
    )


def describe_stopped(stopped: dict[str, int]) -> str:
    """Names the agents that stopped learning, from task name -> step."""
    named = ", ".join(f"{name} at step {step}" for name, step in stopped.items())
    agents = "1 source agent" if len(stopped) == 1 else f"{len(stopped)} source agents"
    return f"{agents} stopped learning ({named})"


def is_complete(folder: Path) -> bool:
    """Whether a unit has the files and sizes of its manifest (reading checks the hashes)."""
    try:
        files = read_manifest(folder)["files"]
        return all(file_size(folder / n) == entry["bytes"] for n, entry in files.items())
    except (OSError, ValueError):
        return False


def _digest(arrays: Iterable[np.ndarray]) -> bytes:
    """SHA-256 of the arrays one after the other, each in C order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).reshape(-1))
    return digest.digest()


def mean_in_order(values: list[np.ndarray]) -> np.ndarray:
    """The mean of arrays of one shape, with the bits that each entry would have alone."""
    # One after the other: np.mean would add in an order that depends on the number of agents.
    return np.cumsum(values, axis=0, dtype=np.float64)[-1] / len(values)
