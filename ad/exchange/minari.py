"""Data sets of Minari: the episodes of an actor stand one after the other, in learning order.

The metadata of an episode holds its place in the history: `task`, `actor`, `episode_in_history`,
`first_step`, `source` and `source_seed`. `iterate_episodes` keeps the order, `sample_episodes` does
not. The metadata of the data set hold the description of the histories.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from ad.data.spec import field_name
from ad.errors import ConfigError
from ad.exchange.formats import KEY, Description, Export, Format, nested, spans
from ad.exchange.minari_reader import MinariReader, dataset_folder
from ad.runtime.files import atomic_rename_dir, remove, require_disk_space
from ad.runtime.locks import locked
from envs.spaces import observation_parts
from envs.tasks import task_name

ARRAY_BYTES = 3000  # of an array of an episode in addition to its values


class Minari(Format):
    """Local data sets of Minari; `place` is the id of one, e.g. dark_room/a2c-v0."""

    extra = "minari"
    lost = "the learner's statistics and checkpoints"

    def default_place(self, dataset: Path) -> str:
        return f"{dataset.name}-v0"

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
        return (dataset_folder(place) / "data").exists()

    def write(self, place: str, export: Export) -> None:
        folder = dataset_folder(place)
        needed = _bytes_needed(export)
        with locked(folder):
            require_disk_space(folder, needed, f"the data set {place}")
            temporary = folder / f".data.{os.getpid()}.tmp"
            temporary.mkdir(parents=True)
            try:
                _write(temporary, place, export)
                atomic_rename_dir(temporary, folder / "data")
            finally:
                remove(temporary)
                if not any(folder.iterdir()):
                    folder.rmdir()

    def open(self, place: str) -> MinariReader:
        return MinariReader(place)


class Place(NamedTuple):
    """The place of an actor's episodes: the number of the history, and their first transitions."""

    history: int
    task: str
    actor: int
    first_steps: np.ndarray


def _write(folder: Path, place: str, export: Export) -> None:
    """Write the files of the data set called `place` into `folder`."""
    import minari
    from minari.dataset.minari_storage import MinariStorage

    storage = MinariStorage.new(
        folder,
        export.world.single_observation_space,
        gymnasium.spaces.Discrete(export.world.num_actions),
        _env_spec(export.description.env),
        jpeg_encoding=False,  # which would change the pictures
    )
    own = {
        "dataset_id": place,
        "minari_version": minari.__version__,
        "algorithm_name": export.description.source["algorithm"],
        "description": f"Learning histories of {len(export.description.tasks)} tasks.",
        KEY: export.description.dump(),
    }
    storage.update_metadata(own)
    places: list[Place] = []
    storage.update_episodes(_buffers(export, places))
    storage.update_episode_metadata(_metadata(places, export.description))


def _bytes_needed(export: Export) -> int:
    """Return about how many bytes the data set takes, rather too many.

    An array of an episode has an index of its own in HDF5, however short the episode is.
    """
    episodes = transitions = 0
    for _, history in export.histories():
        done = history.arrays["terminated"] | history.arrays["truncated"]
        episodes += int(done.sum()) + len(done)
        transitions += done.size
    parts = observation_parts(export.world)
    num_arrays = len(parts) + 4
    values = 8 * 4 + sum(8 * math.prod(part.shape) for part in parts.values())
    return episodes * num_arrays * ARRAY_BYTES + transitions * values


def _env_spec(env: dict) -> EnvSpec | None:
    """Return the Gymnasium spec from which Minari makes the environment of the first task again.

    None for an environment that has no id of Gymnasium.
    """
    if env["id"] not in gymnasium.registry:
        return None
    length = {"env_id": env["id"], "episode_length": env["episode_length"]}
    first_task = env["tasks"][0] if env["tasks"] else {}
    return EnvSpec(env["id"], "envs:make", kwargs=length | env["kwargs"] | first_task)


def _buffers(export: Export, places: list[Place]) -> Iterator:
    """Yield the episodes in learning order, and append the places of those of each actor.

    Raises ConfigError if an observation is not the one that the step before it led to.
    """
    from minari.data_collector import EpisodeBuffer

    names, space = list(observation_parts(export.world)), export.world.single_observation_space
    for number, (task, history) in enumerate(export.histories()):
        arrays = history.arrays
        for actor in range(arrays["action"].shape[0]):
            own = {name: np.asarray(arrays[name][actor]) for name in arrays}
            episodes = spans(own["terminated"] | own["truncated"])
            places.append(Place(number, task_name(task), actor, np.array(episodes)[:, 0]))
            for start, stop in episodes:
                steps = slice(start, stop)
                # Minari's writer takes arrays, which the annotations of its buffer leave out.
                columns: dict = {
                    "observations": nested(space, _observations(own, names, steps)),
                    "actions": own["action"][steps].astype(np.int64),
                    "rewards": own["reward"][steps],
                    "terminations": own["terminated"][steps],
                    "truncations": own["truncated"][steps],
                }
                yield EpisodeBuffer(**columns)
                export.bar.update(stop - start)


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
    observations = {}
    for name in names:
        before, after = (
            own[field_name(role, name)][steps] for role in ("observation", "next_observation")
        )
        if not np.array_equal(before[1:], after[:-1]):
            raise ConfigError(
                "an observation of the histories is not what the step before it led to: Minari "
                "stores it once"
            )
        observations[name] = np.concatenate([before, after[-1:]])
    return observations
