"""The reader of local data sets of Minari."""

from pathlib import Path

import numpy as np

from ad.data.spec import field_name
from ad.errors import ConfigError
from ad.exchange.formats import KEY, Contents, Reader, parse_description
from envs.spaces import check_action_space, parts_of_space, split_observation


class MinariReader(Reader):
    """An open data set of Minari.

    One that this suite did not write is read as the history of a single actor on one task; an
    episode that has no flag at its end is then truncated there.
    """

    def __init__(self, place: str):
        import minari

        folder = dataset_folder(place)
        if not (folder / "data").exists():
            raise ConfigError(f"Minari has no local data set {place} in {folder}")
        self.place = place
        with self.reading():
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
        with self.reading():
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
        terminated = episode["terminations"].astype(bool)
        truncated = episode["truncations"].astype(bool) & ~terminated  # a step never is both
        if not self.is_own and not terminated[-1]:
            truncated[-1] = True
        rewards = episode["rewards"].astype(np.float32)
        return fields | {
            "action": episode["actions"],
            "reward": rewards,
            "terminated": terminated,
            "truncated": truncated,
        }


def dataset_folder(place: str) -> Path:
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
