"""Histories that were recorded elsewhere: a source that reads them, and a world that has them.

`scripts.import_histories` writes the experiment that names both by their places, since neither is a
component to choose. Their histories are collected, stored, verified and resumed as any others.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array

from ad.config.fields import field
from ad.data.schema import TransitionChunk, transition_fields
from ad.data.spec import field_name
from ad.errors import ConfigError
from ad.exchange.formats import Contents, new_format, time_in_episode
from ad.sources.base import Source
from envs.spaces import Array, Discrete, Part, observation_parts
from envs.world import World

CHUNK_BYTES = 2**27  # of transitions held in memory


@dataclass(frozen=True)
class Settings:
    """Settings of recorded histories: the data set that holds them."""

    format: str = field("")
    """format of the data set, e.g. minari, parquet or xland"""
    place: str = field("")
    """where the data set is: for minari its id, for parquet a folder, for xland a file"""


class Recorded(Source):
    """A source whose K agents have learned already: it reads what their N actors did.

    In a `RecordedWorld` a task is the number of a history in the data set; in another world the
    data set names the task of each history. Later changes of the data set are not noticed.
    """

    Settings = Settings

    def __init__(self, settings: Settings, env, tasks, num_envs: int, keys):
        self.reader, self.place = new_format(settings.format).open(settings.place), settings.place
        self.env, self.shape = env, (len(tasks), num_envs)
        contents = self.reader.contents
        if num_envs > contents.num_actors:
            raise ConfigError(
                f"source.num_envs is {num_envs}, but {self.place} has {contents.num_actors} actors"
            )
        self.histories = _numbers(contents, tasks, self.place)
        self.fields, parts = transition_fields(env.unwrapped), observation_parts(env.unwrapped)
        self.parts = {field_name("observation", name): part for name, part in parts.items()}
        self.steps, self.time = 0, np.zeros(self.shape, np.int64)
        stopped = contents.description.stopped if contents.description else {}
        steps = {tuple(map(int, name.split("-"))): step for name, step in stopped.items()}
        self.stopped_at = np.array([steps.get(tuple(task.tolist()), -1) for task in tasks])

    def run(self, steps: int) -> Iterator[TransitionChunk]:
        """Read the first `steps` transitions of each actor; yield them in chunks."""
        assert self.stopped_at is not None  # as `__init__` has set it
        self.stopped_at[self.stopped_at >= steps] = -1  # an agent that stopped later
        if steps > self.reader.contents.steps:
            raise ConfigError(
                f"source.env_steps asks for {steps} transitions of each actor, but {self.place} "
                f"has {self.reader.contents.steps}"
            )
        nbytes = sum(entry.nbytes for entry in self.fields.values()) * np.prod(self.shape)
        length = max(int(CHUNK_BYTES // nbytes), 1)
        while self.steps < steps:
            stop = min(self.steps + length, steps)
            chunk = TransitionChunk.empty(self.fields, stop - self.steps, *self.shape)
            for k, history in enumerate(self.histories):
                for name, values in self._read(k, history, stop).items():
                    chunk.arrays[name][:, k] = values.swapaxes(0, 1)
            self.steps = stop
            yield chunk

    def state(self) -> dict:
        """Return the state between two chunks as arrays."""
        return {"steps": np.array(self.steps), "time": self.time.copy()}

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`."""
        self.steps, self.time = int(state["steps"]), state["time"].copy()

    def _read(self, k: int, history: int, stop: int) -> dict[str, np.ndarray]:
        """Return the next fields [N, T, ...] of a history, up to the transition before `stop`.

        Raises ConfigError for values that are outside the spaces of the world.
        """
        arrays = self.reader.read(history, self.shape[1], self.steps, stop)
        done = arrays.pop("done", None)
        if done is None:
            done = arrays["terminated"] | arrays["truncated"]
        time, limit = time_in_episode(done, self.time[k]), self.env.episode_length
        if time.max() >= limit:
            raise ConfigError(
                f"{self.place} has an episode of more than env.episode_length ({limit}) steps"
            )
        if (count := self.env.single_action_space.n) <= arrays["action"].max():
            raise ConfigError(f"{self.place} has the action {arrays['action'].max()} of {count}")
        if "terminated" not in arrays:
            arrays["truncated"] = done & (time == limit - 1)
            arrays["terminated"] = done & ~arrays["truncated"]
        self.time[k] = np.where(done[:, -1], 0, time[:, -1] + 1)
        if missing := self.fields.keys() - {*arrays, "time"}:
            raise ConfigError(f"{self.place} has no {', '.join(sorted(missing))}")
        arrays["time"] = time
        return {name: self._cast(name, arrays[name]) for name in self.fields}

    def _cast(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return the values of a field in its dtype. Raises ConfigError if it does not hold one."""
        dtype, part = self.fields[name].dtype, self.parts.get(name.removeprefix("next_"))
        kept = values.astype(dtype)
        found: list[tuple[object, np.ndarray]] = []
        if dtype.kind in "iu":
            found.append((dtype, kept != values))
        if isinstance(part, Discrete):
            found.append((f"a space of {part.n}", values >= part.n))
        for what, wrong in found:
            if wrong.any():
                text = f"has {values[wrong][0]} as {name}, which {what} does not hold"
                raise ConfigError(f"{self.place} {text}")
        return kept


class RecordedWorld(World):
    """The world of a data set that describes only its spaces. It cannot be stepped.

    `observation` is what `describe_parts` returns. The tasks are the numbers of the
    histories and, last, one without a history, which is held out: a split holds out a task.
    """

    can_be_stepped = False

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        observation: dict | None = None,
        num_actions: int = 2,
        num_tasks: int = 1,
    ):
        self.num_tasks = num_tasks
        space = _space({"n": 1} if observation is None else observation)
        super().__init__(num_envs, tasks, space, spaces.Discrete(num_actions))

    def all_tasks(self) -> np.ndarray:
        return np.arange(self.num_tasks + 1)[:, None]

    def held_out_tasks(self) -> np.ndarray:
        return self.all_tasks()[-1:]

    def _advance(self, actions, envs):
        raise ConfigError("the world of recorded histories cannot be stepped")

    def _observation(self):
        return create_empty_array(self.single_observation_space, self.num_envs, np.zeros)


def describe_parts(parts: dict[str, Part]) -> dict:
    """Return the parts of an observation as plain values, for `RecordedWorld`.

    The result has a dict for each part by its name. The result of an undivided observation is
    the dict of its only part.
    """
    plain = {}
    for name, part in parts.items():
        own = {key: v for key, v in asdict(part).items() if key != "factors" and v is not None}
        plain[name] = own | ({"shape": list(part.shape)} if isinstance(part, Array) else {})
    return plain.get("", plain)


def _space(parts: dict) -> spaces.Space:
    """Return the space with the parts of `describe_parts`, nested as their names say."""
    if not all(isinstance(part, dict) for part in parts.values()):
        return _leaf(parts)
    if list(parts) == [""]:
        return _leaf(parts[""])
    groups: dict[str, dict] = {}
    for name, part in parts.items():
        key, _, rest = name.partition("-")
        groups.setdefault(key, {})[rest] = part
    return spaces.Dict([(key, _space(inner)) for key, inner in groups.items()])


def _leaf(part: dict) -> spaces.Space:
    if "n" in part:
        return spaces.Discrete(part["n"])
    dtype = np.dtype(part["dtype"])
    limits = np.iinfo(dtype.name) if dtype.kind in "iu" else None
    if dtype.kind == "b":
        return spaces.MultiBinary(part["shape"])
    low, high = part.get("low", -np.inf), part.get("high", np.inf)
    if limits:  # as a float, the largest int64 is one more than it
        low, high = max(low, limits.min), min(high, limits.max)
    return spaces.Box(dtype.type(low), dtype.type(high), tuple(part["shape"]), dtype.type)


def _numbers(contents: Contents, tasks: np.ndarray, place: str) -> list[int]:
    """Return the number of the history of each task. Raises ConfigError if there is none."""
    recorded = [[number] for number in range(contents.num_tasks)]
    if contents.description is not None:
        recorded = contents.description.tasks
    number_of = {tuple(task): number for number, task in enumerate(recorded)}
    for task in tasks.tolist():
        if tuple(task) not in number_of:
            raise ConfigError(f"{place} has no history of the task {tuple(task)}")
    return [number_of[tuple(task)] for task in tasks.tolist()]
