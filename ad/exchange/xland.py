"""The HDF5 layout of the data sets of XLand-MiniGrid (Nikulin et al. 2024, arXiv 2406.08973).

A group "0", "1", ... for each task, with the attributes env-id, benchmark-id and ruleset-id, holds
arrays [actors, T, ...]: `states` uint8, `actions` uint8, `rewards` float16, `dones` bool and, where
the optimal action is known, `expert_actions` uint8. They are compressed by gzip 6 in chunks of
4,096 transitions of an actor. In the published data sets a state is [5, 5], the tile times the
number of colors plus the color of each cell in view; after a done comes the state of a reset.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ad.data.derived import knows_optimal_actions
from ad.data.store import History
from ad.errors import ConfigError
from ad.exchange.formats import (
    KEY,
    Contents,
    Export,
    Format,
    Reader,
    parse_description,
    time_in_episode,
)
from ad.runtime.files import atomic_write, remove_leftovers_of
from ad.runtime.locks import locked
from envs.spaces import Array, Discrete, observation_parts

CHUNK = 4096  # transitions of an actor in a compressed chunk
CACHE = 2**23  # bytes of decompressed chunks that are kept for an array: the chunks of 32 actors
NUM_ACTIONS = 6  # of XLand-MiniGrid
ARRAYS = {"states": "u", "actions": "u", "rewards": "f", "dones": "b"}  # kind of the dtype
EXACT = 256  # values of uint8


class XLand(Format):
    """Files in the layout of XLand-MiniGrid's data sets; `place` is the path of a file."""

    extra = "xland"
    lost = (
        "the last observation of an episode (after an import the one before it stands there), "
        "digits of rewards beyond float16, whether an episode was terminated or truncated (a "
        "shorter one than env.episode_length counts as terminated), and the learner's statistics "
        "and checkpoints"
    )

    def default_place(self, dataset: Path) -> str:
        return f"{dataset}.hdf5"

    def problem(self, world) -> str | None:
        """Return why the observations or the actions do not fit uint8, None if they do."""
        parts = observation_parts(world)
        if set(parts) != {""}:
            return f"holds undivided observations, not the parts {', '.join(parts)}"
        part = parts[""]
        if isinstance(part, Discrete):
            fits = part.n <= EXACT
        else:
            is_whole = np.dtype(part.dtype).kind in "biu"
            is_bounded = part.low is not None and part.low >= 0 and (part.high or 0) < EXACT
            fits = is_whole and is_bounded
        if not fits:
            return f"holds observations of whole numbers from 0 to 255, not {parts['']}"
        if world.single_action_space.n > EXACT:
            return f"holds at most 256 actions, not {world.single_action_space.n}"
        return None

    def write(self, place: str, export: Export) -> None:
        tasks = export.world.all_tasks().tolist()
        index_of = {tuple(task): index for index, task in enumerate(tasks)}
        env_id, source = export.description.env["id"], export.description.source
        with locked(Path(place)), new_file(Path(place)) as (file, check):
            file.attrs[KEY] = export.description.dump()
            for number, (task, history) in enumerate(export.histories()):
                group = file.create_group(str(number))
                group.attrs["env-id"] = env_id
                group.attrs["benchmark-id"] = f"{env_id}-{source['algorithm']}"
                group.attrs["ruleset-id"] = index_of[tuple(task.tolist())]
                _write_group(group, task, history, export)
                check()

    def open(self, place: str) -> "XLandReader":
        return XLandReader(place)


class XLandReader(Reader):
    """An open file of the layout; a task is the number of its group."""

    def __init__(self, place: str):
        import h5py

        if not Path(place).is_file():
            raise ConfigError(f"there is no file {place}")
        self.place = place
        with self.reading():
            self.file = h5py.File(place, "r", rdcc_nbytes=CACHE)
            self.contents = self._contents()

    def read(self, task: int, num_actors: int, start: int, stop: int) -> dict[str, np.ndarray]:
        group, steps = self.file[str(task)], slice(start, stop)
        with self.reading():
            # One state more: it is what the last transition leads to, unless that is done.
            states = group["states"][:num_actors, start : stop + 1]
            action, reward, done = (
                group[name][:num_actors, steps] for name in ("actions", "rewards", "dones")
            )
        before, after = states[:, : stop - start], states[:, 1:]
        if after.shape[1] < before.shape[1]:
            after = np.concatenate([after, before[:, -1:]], axis=1)
        repeated = done.reshape(*done.shape, *[1] * (states.ndim - 2))
        return {
            "observation": before,
            "action": action,
            "reward": reward.astype(np.float32),
            "next_observation": np.where(repeated, before, after),
            "done": done,
        }

    def _contents(self) -> Contents:
        names = [str(number) for number in range(len(self.file))]
        if not names or {*names} != {*self.file}:
            raise ConfigError(f"{self.place} has no groups 0, 1, ... of tasks: {LAYOUT}")
        for name in names:
            self._check_group(name)
        states = self.file["0/states"]
        description = None
        if KEY in self.file.attrs:
            description = parse_description(self.file.attrs[KEY], self.place)
        return Contents(
            parts={"": Array(tuple(states.shape[2:]), "uint8", 0.0, 255.0)},
            num_actions=NUM_ACTIONS,
            num_tasks=len(names),
            num_actors=min(self.file[name]["states"].shape[0] for name in names),
            steps=min(self.file[name]["states"].shape[1] for name in names),
            description=description,
            episode_length=None if description else self._longest_episode(names),
        )

    def _check_group(self, name: str) -> None:
        """Raise ConfigError unless a group has the arrays of the layout."""
        group = self.file[name]
        if missing := [array for array in ARRAYS if array not in group]:
            raise ConfigError(f"group {name} of {self.place} has no {missing[0]}: {LAYOUT}")
        shape = group["states"].shape[:2]
        for array, kind in ARRAYS.items():
            stored = group[array]
            is_byte = kind != "u" or stored.dtype.itemsize == 1
            if stored.dtype.kind != kind or not is_byte or stored.shape[:2] != shape:
                raise ConfigError(
                    f"{array} of group {name} of {self.place} is {stored.dtype} "
                    f"{list(stored.shape)}: {LAYOUT}"
                )
        if group["states"].shape[2:] != self.file["0/states"].shape[2:] or 0 in shape:
            raise ConfigError(f"the states of group {name} of {self.place} have another shape")

    def _longest_episode(self, names: list[str]) -> int:
        """Return the env steps of the longest episode; an array of `dones` is small."""
        longest = 0
        for name in tqdm(names, desc="measure episodes", unit=" tasks", disable=None, leave=False):
            for dones in self.file[name]["dones"]:
                longest = max(longest, int(time_in_episode(dones[None], np.zeros(1)).max()) + 1)
        return longest


LAYOUT = "the layout of XLand-MiniGrid's data sets is expected"


class _Sink:
    """A file for h5py that keeps its first error and goes on as if there were none.

    The HDF5 library crashes when it frees a file that it could not write.
    """

    def __init__(self, file):
        self.file, self.error = file, None
        self.seek, self.tell = file.seek, file.tell
        self.read, self.readinto = file.read, file.readinto

    def write(self, content) -> int:
        """Write all of `content` unless there was an error. Returns its length."""
        left = memoryview(content).cast("B")
        while len(left) and self.error is None:
            try:
                left = left[self.file.write(left) :]
            except OSError as error:
                self.error = error
        return len(content)

    def truncate(self, size: int | None = None) -> None:
        """Set the size of the file unless there was an error."""
        try:
            if self.error is None:
                self.file.truncate(size)
        except OSError as error:
            self.error = error

    def flush(self) -> None:
        """Do nothing: the file has no buffer."""

    def check(self) -> None:
        """Raise the error of an earlier operation, if there was one."""
        if self.error is not None:
            raise self.error


@contextmanager
def new_file(path: Path) -> Generator[tuple]:
    """Yield (file, check) of an HDF5 file that replaces `path` if the block succeeds.

    `check()` raises the error of a write so far: the library does not see it. Raises OSError.
    """
    import h5py

    remove_leftovers_of(path)
    with atomic_write(path) as temporary, open(temporary, "w+b", buffering=0) as raw:
        sink = _Sink(raw)
        with h5py.File(sink, "w") as file:
            yield file, sink.check
        sink.check()


def create_arrays(group, arrays: dict[str, tuple[tuple[int, ...], np.dtype]]) -> None:
    """Create compressed arrays [actors, T, ...] in an HDF5 group, from their shapes and dtypes."""
    for name, (shape, dtype) in arrays.items():
        chunks = (1, min(CHUNK, shape[1]), *shape[2:])
        group.create_dataset(
            name, shape, dtype, chunks=chunks, compression="gzip", compression_opts=6
        )


def _write_group(group, task: np.ndarray, history: History, export: Export) -> None:
    """Write the arrays of one history, an actor's chunk at a time."""
    arrays = history.arrays
    expert, policy = None, export.world.optimal_policy(task[None])
    if policy is not None and knows_optimal_actions(export.world):
        expert = policy[0].argmax(-1)
    source = {"states": "observation", "actions": "action", "rewards": "reward"}
    dtypes = {"states": np.uint8, "actions": np.uint8, "rewards": np.float16, "dones": np.bool_}
    if expert is not None:
        dtypes["expert_actions"] = np.uint8
    shape = arrays["observation"].shape
    shapes = {name: shape if name == "states" else shape[:2] for name in dtypes}
    create_arrays(group, {name: (shapes[name], np.dtype(own)) for name, own in dtypes.items()})
    for actor in range(shape[0]):
        kept = {name: arrays[field][actor] for name, field in source.items()}
        kept["dones"] = arrays["terminated"][actor] | arrays["truncated"][actor]
        for start in range(0, shape[1], CHUNK):
            steps = slice(start, start + CHUNK)
            own = {name: values[steps] for name, values in kept.items()}
            with np.errstate(over="ignore"):
                half = own["rewards"].astype(np.float16)
            if len(wrong := own["rewards"][~np.isfinite(half)]):
                text = f"holds rewards as float16, which has no {wrong[0]:g}"
                raise ConfigError(f"the format xland {text}")
            own["rewards"] = half
            if expert is not None:
                own["expert_actions"] = expert[own["states"]]
            for name, values in own.items():
                group[name][actor, steps] = values
            export.bar.update(len(own["dones"]))
