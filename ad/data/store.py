"""The store of learning histories: one folder for each task and source seed.

`histories/<dataset>/task_<task>_seed_<seed>/` holds a `.npy` file [actors, T, ...] for each field
of a transition (`ad.data.schema.transition_fields`), `curve.npy` (the learner's statistics),
`manifest.json` (what made the history, shapes, the SHA-256 of each file), and the checkpoints of a
source that keeps some (`ad.data.checkpoints`). A history is published by one rename when it is
complete, and verified when it is read (`ad.data.load`). `histories/README.md` draws the arrays.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ad.data.checkpoints import KEY, write_checkpoint
from ad.data.episodes import episodes
from ad.data.manifest import (
    CURVE,
    CURVE_START,
    STOPPED,
    check_file,
    file_size,
    read_manifest,
    write_manifest,
)
from ad.data.schema import Field, Fields, TransitionChunk
from ad.errors import CorruptError
from ad.runtime.arrays import LazyArrays, create_memmap, open_memmap
from ad.runtime.files import atomic_rename_dir, remove_leftovers

SMALL_FILES = 64 * 1024  # bytes, more than the curve, the manifest and the headers take
PARTIAL = ".partial-"  # the prefix of the folder of histories that are being collected


@dataclass
class History:
    """The learning history of one task: `arrays` [actors, T, ...] by field, `curve` by column."""

    arrays: LazyArrays
    curve: dict[str, np.ndarray]
    manifest: dict

    @property
    def fields(self) -> Fields:
        """The fields of a transition, by the manifest."""
        entries = {
            name.removesuffix(".npy"): entry for name, entry in self.manifest["files"].items()
        }
        del entries["curve"]
        return {
            name: Field(np.dtype(entry["dtype"]), tuple(entry["shape"][2:]))
            for name, entry in entries.items()
        }

    @property
    def stopped_at(self) -> int | None:
        """The steps per actor that a failed agent learned from; None if it did not fail."""
        return self.manifest.get(STOPPED)

    @property
    def learned(self) -> LazyArrays:
        """The arrays up to the step at which the agent stopped learning, if it did."""
        return LazyArrays(self.arrays.folder, self.arrays.names, self.stopped_at)


class HistoryWriter:
    """Writes the histories of K tasks side by side in one partial folder; `close` publishes them.

    `fields` are the fields of a transition, `steps` is the number of transitions of an actor. With
    `resume`, reopen the partial folder that an interrupted writer of the same `folders` left; call
    `restore` to set how many steps in it are valid. Raises CorruptError if the folder does not hold
    the files of that writer.
    """

    def __init__(
        self, folders: list[Path], fields: Fields, num_envs: int, steps: int, resume: bool = False
    ):
        self.folders, self.fields, self.shape, self.written = folders, fields, (num_envs, steps), 0
        self.statistics: list[dict[str, np.ndarray]] = []  # an entry for each chunk
        self.digests: list[np.ndarray] = []  # for each chunk the SHA-256 by task, uint8 [K, 32]
        names = "\n".join(folder.name for folder in folders)
        digest = hashlib.sha256(names.encode()).hexdigest()[:12]
        self.partial = folders[0].parent / f"{PARTIAL}{digest}"
        self.temporary = [self.partial / folder.name for folder in folders]
        try:
            self.maps = self._reopen() if resume else self._create()
        except (ValueError, FileNotFoundError) as error:
            raise CorruptError(f"{self.partial} cannot be resumed: {error}") from error

    def _create(self) -> dict[int, dict[str, np.memmap]]:
        """Create the arrays of all histories, by task and field."""
        self.discard()
        maps: dict[int, dict[str, np.memmap]] = {}
        try:
            for k, folder in enumerate(self.temporary):
                folder.mkdir(parents=True)
                maps[k] = self._open_each(create_memmap, folder)
        except OSError:  # a full disk, too many open files
            self.discard()
            raise
        return maps

    def _reopen(self) -> dict[int, dict[str, np.memmap]]:
        """Open the arrays of the histories that are not published yet, by task and field."""
        remove_leftovers(self.partial)
        return {
            k: self._open_each(open_memmap, folder)
            for k, folder in enumerate(self.temporary)
            if folder.exists() or not is_complete(self.folders[k])
        }

    def _open_each(self, open_array: Callable, folder: Path) -> dict[str, np.memmap]:
        """Return the arrays of one history, each from `open_array(path, dtype, shape)`."""
        return {
            name: open_array(folder / f"{name}.npy", field.dtype, (*self.shape, *field.shape))
            for name, field in self.fields.items()
        }

    def state(self) -> dict:
        """Return the number of written steps, the statistics and the digests as arrays.

        Call `flush` before saving them.
        """
        names = self.statistics[0] if self.statistics else ()
        statistics = {name: np.stack([s[name] for s in self.statistics]) for name in names}
        digests = np.array(self.digests, np.uint8)
        return {"written": np.array(self.written), "statistics": statistics, "digests": digests}

    def restore(self, state: dict) -> None:
        """Set the writer to a state returned by `state`; later steps are written again.

        Raises CorruptError if the arrays do not hold what was written before that state.
        """
        self.written, saved = int(state["written"]), state.get("statistics", {})
        count = len(saved["stop"]) if saved else 0
        self.statistics = [{name: saved[name][i] for name in saved} for i in range(count)]
        self.digests, start = list(state["digests"]), 0
        for statistics, digests in zip(self.statistics, self.digests, strict=True):
            stop = int(statistics["stop"][0])
            part = slice(start, stop)
            start = stop
            for k, maps in self.maps.items():
                if _digest(maps[name][:, part] for name in self.fields) != digests[k].tobytes():
                    raise CorruptError(f"{self.temporary[k]} is not what was written")

    def flush(self) -> None:
        """Flush the appended transitions to the disk."""
        for maps in self.maps.values():
            for array in maps.values():
                array.flush()

    def append(self, chunk: TransitionChunk) -> None:
        """Write the transitions [T, K, N, ...] of a chunk after the last chunk."""
        part = slice(self.written, self.written + len(chunk))
        digests = np.zeros((len(self.folders), hashlib.sha256().digest_size), np.uint8)
        for k, maps in self.maps.items():
            own = {name: array[:, k].swapaxes(0, 1) for name, array in chunk.arrays.items()}
            for name, array in own.items():
                maps[name][:, part] = array
            digests[k] = np.frombuffer(_digest(own[name] for name in self.fields), np.uint8)
            for env_steps, contents in chunk.checkpoints.items():
                write_checkpoint(self.temporary[k], env_steps, contents[k])
        self.digests.append(digests)
        means = {name: mean_in_order(values) for name, values in chunk.statistics.items()}
        self.statistics.append({"stop": np.full(len(self.folders), part.stop), **means})
        self.written = part.stop

    def close(self, manifests: list[dict]) -> None:
        """Publish every history; `manifests[k]` says what made the history of task k."""
        self.flush()
        columns = [*CURVE_START, *self._learner_statistics()]
        for k in self.maps:
            folder = self.temporary[k]
            np.save(folder / CURVE, self._curve(k))
            write_manifest(folder, manifests[k] | {"curve_columns": columns})
            atomic_rename_dir(folder, self.folders[k])
        self.discard()

    def discard(self) -> None:
        """Remove the partial folder with all histories that are not published."""
        self.maps = {}
        shutil.rmtree(self.partial, ignore_errors=True)

    def _learner_statistics(self) -> list[str]:
        """Return the names of the learner's statistics: all but `stop`, which `append` adds."""
        return [name for name in self.statistics[0] if name != "stop"]

    def _curve(self, k: int) -> np.ndarray:
        """Return the curve of task k, float32 [chunks, columns].

        The columns are the env steps up to the end of the chunk, the mean return and length of the
        episodes that end in it, and the learner's statistics.
        """
        arrays = self.maps[k]
        stops = np.array([s["stop"][k] for s in self.statistics])
        episode = episodes(arrays["terminated"] | arrays["truncated"], arrays["reward"])
        interval = np.searchsorted(stops, episode.stop, side="left")
        count = np.bincount(interval, minlength=len(stops))
        columns: list[np.ndarray | list[float]] = [stops * self.shape[0]]
        for value in (episode.returns, episode.stop - episode.start):
            total = np.bincount(interval, value, minlength=len(stops))
            columns.append(
                np.divide(total, count, out=np.full(len(stops), np.nan), where=count > 0)
            )
        names = self._learner_statistics()
        columns += [[s[name][k] for s in self.statistics] for name in names]
        return np.array(columns, np.float32).T


def history_bytes(fields: Fields, num_envs: int, steps: int) -> int:
    """Return about how many bytes a history of `steps` transitions an actor takes on the disk."""
    return num_envs * steps * sum(field.nbytes for field in fields.values()) + SMALL_FILES


def load_history(
    folder: Path, fields: Sequence[str] | None = None, check: Callable = check_file
) -> History:
    """Read `fields` of a history; None reads all, and checks its checkpoints too.

    `check(path, entry)` raises ValueError or OSError unless a file is what its entry in the
    manifest says; it is called before an array is mapped. Raises CorruptError.
    """
    try:
        manifest = read_manifest(folder)
        files = manifest["files"]
        if fields is None:
            fields = [name.removesuffix(".npy") for name in files if name != CURVE]
            for name, entry in manifest.get(KEY, {}).items():
                check(folder / name, entry)
        for name in (*fields, "curve"):
            check(folder / f"{name}.npy", files[f"{name}.npy"])
    except (OSError, ValueError) as error:
        raise CorruptError(
            f"the history {folder} cannot be used: {error}; `ad verify` lists all damaged files"
        ) from error
    curve = np.load(folder / CURVE, allow_pickle=False)
    return History(
        LazyArrays(folder, tuple(fields)),
        dict(zip(manifest["curve_columns"], curve.T, strict=True)),
        manifest,
    )


def describe_stopped(stopped: dict[str, int]) -> str:
    """Return a clause that names the agents that stopped learning, from task name -> step."""
    named = ", ".join(f"{name} at step {step}" for name, step in stopped.items())
    agents = "1 source agent" if len(stopped) == 1 else f"{len(stopped)} source agents"
    return f"{agents} stopped learning ({named})"


def is_complete(folder: Path) -> bool:
    """Return whether a history has the files and sizes of its manifest; no hash is checked."""
    try:
        manifest = read_manifest(folder)
        files = manifest["files"] | manifest.get(KEY, {})
        return all(file_size(folder / n) == entry["bytes"] for n, entry in files.items())
    except (OSError, ValueError):
        return False


def _digest(arrays: Iterable[np.ndarray]) -> bytes:
    """Return the SHA-256 of the arrays one after the other, each in C order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).reshape(-1).data)
    return digest.digest()


def mean_in_order(values: list[np.ndarray]) -> np.ndarray:
    """Return the mean of arrays of one shape; an entry's bits do not depend on the other entries.

    np.mean would add in an order that depends on the number of agents.
    """
    return np.cumsum(values, axis=0, dtype=np.float64)[-1] / len(values)
