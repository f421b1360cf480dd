"""Formats of recorded histories: the description of a data set, and the interface of a format.

To add a format: a file here with a subclass of `Format`, and a line in `ad.registry.EXPORTS`. The
verbs export_histories and import_histories then take its name.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
from tqdm import tqdm

from ad.data.store import History, load_history
from ad.errors import ConfigError, CorruptError
from ad.registry import EXPORTS
from envs.extras import missing
from envs.oracle import TaskOracle
from envs.spaces import Part

SCHEMA = 1  # of a description
KEY = "learning_histories"  # the name of the description in the metadata of a format


@dataclass(frozen=True)
class Description:
    """The description of a data set of this suite in plain types, the same in every format.

    `env` and `split` are the sections of the experiment. `source` has the algorithm, its settings
    and the source seed. `tasks` are the train tasks, `stopped` the steps from which failed agents
    learned, by the name of the task. `steps` are the transitions of each of `num_actors` actors.
    `fingerprint` is a SHA-256 of the hashes of all arrays.
    """

    env: dict
    split: dict
    source: dict
    tasks: list[list[int]]
    stopped: dict[str, int]
    num_actors: int
    steps: int
    fingerprint: str

    def dump(self) -> str:
        """Return the description as JSON."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True)


def parse_description(text: str, place: str) -> Description:
    """Return the description that `dump` wrote. `place` names the data set in messages.

    Raises ConfigError for a data set of another schema, CorruptError for a damaged description.
    """
    try:
        value = dict(json.loads(text))
        schema = value.pop("schema")
        if schema != SCHEMA:
            raise ConfigError(f"{place} has schema {schema}; this version reads schema {SCHEMA}")
        if value.keys() != {entry.name for entry in fields(Description)}:
            raise ValueError("it has other entries")
        description = Description(**value)
        sections = description.env, description.split, description.source
        if not all(isinstance(own, dict) for own in sections) or "id" not in description.env:
            raise ValueError("env, split and source must be mappings, and env must have an id")
        return description
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptError(f"the description in {place} is damaged: {error}") from error


@dataclass(frozen=True)
class Contents:
    """The contents of a data set: K tasks of N actors with T transitions each.

    `parts` are the parts of an observation. `description` is None for a data set that this suite
    did not write; only then there is an `episode_length`, the env steps of its longest episode.
    """

    parts: dict[str, Part]
    num_actions: int
    num_tasks: int
    num_actors: int
    steps: int
    description: Description | None
    episode_length: int | None = None


@dataclass(frozen=True)
class Export:
    """The histories to write, one of each of `tasks` in `folders`, and their description and world.

    The progress bar `bar` counts transitions.
    """

    description: Description
    tasks: np.ndarray
    folders: list[Path]
    world: TaskOracle
    bar: tqdm

    def histories(self) -> Iterator[tuple[np.ndarray, History]]:
        """Yield each task with its history, read and verified when its turn comes."""
        for task, folder in zip(self.tasks, self.folders, strict=True):
            yield task, load_history(folder)


class Reader(ABC):
    """The open data set of an import at `place`, with its `contents`."""

    place: str
    contents: Contents

    @abstractmethod
    def read(self, task: int, num_actors: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the transitions `start` to before `stop` of the first actors of a task.

        Arrays [num_actors, stop - start, ...] by field, without `time`. In place of `terminated`
        and `truncated` there may be `done`, of a format that does not distinguish them.
        """

    @contextmanager
    def reading(self) -> Generator[None]:
        """Turn what the package of the format raises for damaged files into a CorruptError."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, AssertionError) as error:
            text = " ".join(str(error).split())
            raise CorruptError(f"the data set {self.place} cannot be read: {text}") from error


class Format(ABC):
    """A format of recorded histories. `place` is where a data set is: a path, or a name.

    The packages of the extra `extra` (`envs.extras`) are those that it imports. `lost` says what a
    data set of this format does not hold of the histories of this suite, as the rest of a sentence.
    """

    extra: ClassVar[str]
    lost: ClassVar[str]

    @abstractmethod
    def default_place(self, dataset: Path) -> str:
        """Return where the histories in the folder `dataset` are written unless the user says."""

    def problem(self, world) -> str | None:
        """Return why the format cannot hold the spaces of `world`, None if it can.

        It is the rest of a sentence about the format.
        """
        return None

    def exists(self, place: str) -> bool:
        """Return whether there is something at `place`. Raises ConfigError for a bad place."""
        return Path(place).exists()

    @abstractmethod
    def write(self, place: str, export: Export) -> None:
        """Write all histories of `export` or none, replacing `place`.

        Raises ConfigError for values that the format cannot hold, OSError.
        """

    @abstractmethod
    def open(self, place: str) -> Reader:
        """Open a data set. Raises ConfigError for another layout, CorruptError for damage."""


def new_format(name: str) -> Format:
    """Return the format called `name`.

    Raises ConfigError for an unknown name, or if a package that it needs is not installed.
    """
    try:
        chosen = EXPORTS.load(name)()
    except ValueError as error:
        raise ConfigError(f"--format: {error}") from error
    if text := missing(chosen.extra):
        raise ConfigError(f"the format {name} {text}")
    return chosen


def nested(space: gymnasium.Space, parts: dict[str, np.ndarray], name: str = ""):
    """Return the arrays `parts` [M, ...] as `space` nests them.

    `envs.spaces.split_observation` is the inverse.
    """

    def inner(key, child: gymnasium.Space):
        return nested(child, parts, f"{name}-{key}" if name else str(key))

    if isinstance(space, gymnasium.spaces.Dict):
        return {key: inner(key, child) for key, child in space.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(inner(index, child) for index, child in enumerate(space))
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        names = [f"{name}-{index}" if name else str(index) for index in range(space.nvec.size)]
        columns = np.stack([parts[own] for own in names], axis=-1)
        return columns.reshape(-1, *space.shape).astype(space.dtype)
    return parts[name].astype(space.dtype, copy=False)


def spans(done: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, stop) of each episode of an actor; the last one may be unfinished.

    done: bool [T].
    """
    stops = (np.flatnonzero(done) + 1).tolist()
    if not stops or stops[-1] < len(done):
        stops.append(len(done))
    return list(zip([0, *stops[:-1]], stops, strict=True))


def time_in_episode(done: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the time of each transition in its episode, int64 [N, T]; done: bool [N, T].

    first: the time of the first transition of each row, int [N].
    """
    index = np.arange(done.shape[1])
    begins = np.zeros(done.shape, bool)
    begins[:, 1:] = done[:, :-1]
    start = np.where(begins, index, -np.asarray(first)[:, None])
    return index - np.maximum.accumulate(start, axis=1)
