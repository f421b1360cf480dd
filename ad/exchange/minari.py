"""Data sets of Minari: the episodes of an actor stand one after the other, in learning order.

The metadata of an episode tells its place in the history: `task`, `actor`, `episode_in_history`,
`first_step`, `source` and `source_seed`. `iterate_episodes` keeps the order, `sample_episodes` does
not. The metadata of the data set hold the description of the histories.
"""

import copy
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
from tqdm import tqdm

from ad.data.spec import field_name
from ad.data.store import History
from ad.errors import ConfigError, CorruptError
from ad.exchange.formats import (
    KEY,
    Contents,
    Description,
    Format,
    Reader,
    nested,
    parse_description,
    spans,
)
from ad.runtime.files import atomic_rename_dir, remove, require_disk_space
from ad.runtime.locks import locked
from envs.spaces import (
    check_action_space,
    observation_parts,
    parts_of_space,
    split_observation,
)
from envs.tasks import task_name

ARRAY_BYTES = 3000  # that an array of an episode takes beside its values


class Minari(Format):
    """Local data sets of Minari; `place` is the id of one, e.g. dark_room/a2c-v0."""

    extra = "minari"
    packages = ("minari", "h5py", "PIL")
    lost = "the learner's statistics and checkpoints"

    def default_place(self, dataset: str) -> str:
        return f"{dataset}-v0"

    def problem(self, world) -> str | None:
        """Return why Minari has no space for the observations, None if it has one."""
        from minari.serialization import serialize_space

        space = world.single_observation_space
        try:
            serialize_space(space)
        except (NotImplementedError, TypeError, ValueError):
            return f"has no space for the observations {space}"
        return None

    def exists(self, place: str) -> bool:
        return (_folder(place) / "data").exists()

    def write(
        self,
        place: str,
        description: Description,
        histories: Iterable[tuple[np.ndarray, History]],
        world,
        bar: tqdm,
    ) -> None:
        folder = _folder(place)
        needed = _bytes_needed(histories, world)
        with locked(folder):
            require_disk_space(folder, needed, f"the data set {place}")
            temporary = folder / f".data.{os.getpid()}.tmp"
            temporary.mkdir(parents=True)
            try:
                _write(temporary, place, description, histories, world, bar)
                atomic_rename_dir(temporary, folder / "data")
            finally:
                remove(temporary)
                if not any(folder.iterdir()):
                    folder.rmdir()

    def open(self, place: str) -> "MinariReader":
        return MinariReader(place)


class MinariReader(Reader):
    """An open data set of Minari.

    One that this suite did not write is read as the history of a single actor on one task; an
    episode that has no flag at its end is then truncated there.
    """

    def __init__(self, place: str):
        import minari

        folder = _folder(place)
        if not (folder / "data").exists():
            raise ConfigError(f"Minari has no local data set {place} in {folder}")
        self.place = place
        with self._reading():
            dataset = minari.load_dataset(place)
            self.storage, metadata = dataset.storage, dataset.storage.metadata
            self.space, action_space = dataset.observation_space, dataset.action_space
            self._index()
        try:
            check_action_space(action_space)
            parts = parts_of_space(self.space)
        except ValueError as error:
            raise ConfigError(f"the data set {place} cannot be imported: {error}") from error
        description = None
        if KEY in metadata:
            description = parse_description(metadata[KEY], place)
        self.is_own = description is not None
        lengths = self.stop[self.last_of_actor]
        self.contents = Contents(
            parts=parts,
            num_actions=int(action_space.n),
            num_tasks=1 if description is None else len(description.tasks),
            num_actors=1 if description is None else description.num_actors,
            steps=int(lengths.min()),
            description=description,
            episode_length=None if self.is_own else int((self.stop - self.start).max()),
        )

    def _index(self) -> None:
        """Find the place of each episode: arrays [E] of its actor and its transitions there."""
        count = self.storage.total_episodes
        if count == 0:
            raise ConfigError(f"the data set {self.place} has no episodes")
        metadata = self.storage.get_episode_metadata(range(count))
        entries = np.array(
            [[m.get("history", 0), m.get("actor", 0), m["total_steps"]] for m in metadata]
        )
        self.history, self.actor, length = entries.T
        is_first = np.ones(count, bool)
        is_first[1:] = (entries[1:, :2] != entries[:-1, :2]).any(1)
        total = np.append(0, np.cumsum(length))
        before = np.maximum.accumulate(np.where(is_first, total[:-1], 0))
        self.start, self.stop = total[:-1] - before, total[1:] - before
        self.last_of_actor = np.append(is_first[1:], True)

    def read(self, task: int, num_actors: int, start: int, stop: int) -> dict[str, np.ndarray]:
        actors = [self._read_actor(task, actor, start, stop) for actor in range(num_actors)]
        return {name: np.stack([own[name] for own in actors]) for name in actors[0]}

    def _read_actor(self, task: int, actor: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the transitions `start` to before `stop` of an actor, [T, ...] each."""
        is_own = (self.history == task) & (self.actor == actor)
        episodes = np.flatnonzero(is_own & (self.start < stop) & (self.stop > start))
        pieces = []
        with self._reading():
            read = self.storage.get_episodes(episodes.tolist())
            for number, episode in zip(episodes, read, strict=True):
                own = self._transitions(episode)
                first = int(self.start[number])
                part = slice(max(start - first, 0), stop - first)
                pieces.append({name: values[part] for name, values in own.items()})
            return {name: np.concatenate([own[name] for own in pieces]) for name in pieces[0]}

    def _transitions(self, episode: dict) -> dict[str, np.ndarray]:
        """Return the fields of an episode's transitions, [T, ...] each."""
        parts = split_observation(self.space, episode["observations"])
        fields = {field_name("observation", name): values[:-1] for name, values in parts.items()}
        fields |= {field_name("next_observation", name): v[1:] for name, v in parts.items()}
        truncated = episode["truncations"].astype(bool)
        terminated = episode["terminations"].astype(bool)
        if not self.is_own and not terminated[-1]:
            truncated[-1] = True
        rewards = episode["rewards"].astype(np.float32)
        return fields | {
            "action": episode["actions"],
            "reward": rewards,
            "terminated": terminated,
            "truncated": truncated,
        }

    @contextmanager
    def _reading(self):
        """Turn what Minari and h5py raise for a damaged data set into a CorruptError."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, AssertionError) as error:
            text = " ".join(str(error).split())
            raise CorruptError(f"the data set {self.place} cannot be read: {text}") from error


class Place(NamedTuple):
    """The place of an actor's episodes: the number of the history, and their first transitions."""

    history: int
    task: str
    actor: int
    first_steps: np.ndarray


def _folder(place: str) -> Path:
    """Return the folder of the data set called `place`. Raises ConfigError for a bad name."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    try:
        parse_dataset_id(place)
    except (ValueError, TypeError):  # TypeError: there is no version
        raise ConfigError(
            f"{place!r} is no id of a data set of Minari, which is like dark_room/a2c-v0"
        ) from None
    return get_dataset_path(place)


def _write(
    folder: Path,
    place: str,
    description: Description,
    histories: Iterable[tuple[np.ndarray, History]],
    world,
    bar: tqdm,
) -> None:
    """Write the files of the data set called `place` into `folder`."""
    import minari
    from minari.dataset.minari_storage import MinariStorage

    storage = MinariStorage.new(
        folder,
        world.single_observation_space,
        gymnasium.spaces.Discrete(world.single_action_space.n),
        _env_spec(description.env),
        jpeg_encoding=False,  # which would change the pictures
    )
    own = {
        "dataset_id": place,
        "minari_version": minari.__version__,
        "algorithm_name": description.source["algorithm"],
        "description": f"Learning histories of {len(description.tasks)} tasks.",
        KEY: description.dump(),
    }
    storage.update_metadata(own)
    places: list[Place] = []
    storage.update_episodes(_buffers(histories, world, places, bar))
    storage.update_episode_metadata(_metadata(places, description))


def _bytes_needed(histories: Iterable[tuple[np.ndarray, History]], world) -> int:
    """Return about how many bytes the data set takes, rather too many.

    An array of an episode has an index of its own in HDF5, however short the episode is.
    """
    episodes = transitions = 0
    for _, history in histories:
        done = history.arrays["terminated"] | history.arrays["truncated"]
        episodes += int(done.sum()) + len(done)
        transitions += done.size
    parts = observation_parts(world)
    num_arrays = len(parts) + 4
    values = 8 * 4 + sum(8 * math.prod(part.shape) for part in parts.values())
    return episodes * num_arrays * ARRAY_BYTES + transitions * values


def _env_spec(env: dict):
    """Return the Gymnasium spec of the environment, from which Minari makes it again, or None.

    Without its task it is the environment of the first task.
    """
    if env["id"] not in gymnasium.registry:
        return None
    spec = copy.deepcopy(gymnasium.spec(env["id"]))
    length = {"episode_length": env["episode_length"]} if "env_id" in spec.kwargs else {}
    spec.kwargs |= env["kwargs"] | length
    return spec


def _buffers(
    histories: Iterable[tuple[np.ndarray, History]], world, places: list[Place], bar: tqdm
) -> Iterator:
    """Yield the episodes in learning order, and append the places of those of each actor.

    Raises ConfigError if an observation is not the one that the step before it led to.
    """
    from minari.data_collector import EpisodeBuffer

    names, space = list(observation_parts(world)), world.single_observation_space
    for number, (task, history) in enumerate(histories):
        arrays = history.arrays
        for actor in range(arrays["action"].shape[0]):
            own = {name: np.asarray(arrays[name][actor]) for name in arrays}
            episodes = spans(own["terminated"] | own["truncated"])
            places.append(Place(number, task_name(task), actor, np.array(episodes)[:, 0]))
            for start, stop in episodes:
                steps = slice(start, stop)
                yield EpisodeBuffer(
                    observations=nested(space, _observations(own, names, steps)),
                    actions=own["action"][steps].astype(np.int64),
                    rewards=own["reward"][steps],
                    terminations=own["terminated"][steps],
                    truncations=own["truncated"][steps],
                )
                bar.update(stop - start)


def _metadata(places: list[Place], description: Description) -> Iterator[dict]:
    """Yield the metadata of each episode, in the order in which they were written."""
    source = {name: description.source[name] for name in ("algorithm", "source_seed")}
    for place in places:
        for index, first_step in enumerate(place.first_steps):
            yield {
                "history": place.history,
                "task": place.task,
                "actor": place.actor,
                "episode_in_history": index,
                "first_step": first_step,
                "source": source["algorithm"],
                "source_seed": source["source_seed"],
            }


def _observations(own: dict, names: list[str], steps: slice) -> dict[str, np.ndarray]:
    """Return the T + 1 observations of an episode of T transitions by part, [T + 1, ...] each."""
    found = {}
    for name in names:
        before, after = (
            own[field_name(role, name)][steps] for role in ("observation", "next_observation")
        )
        if not np.array_equal(before[1:], after[:-1]):
            raise ConfigError(
                "an observation of the histories is not what the step before it led to: Minari "
                "stores it once"
            )
        found[name] = np.concatenate([before, after[-1:]])
    return found
