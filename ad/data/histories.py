"""The dataset of an experiment's source: the folder and the manifest of each task's history."""

import json
import platform
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numba
import numpy as np

from ad.config.schema import Experiment, config_hash
from ad.config.world import configured_world, history_changes
from ad.data.manifest import MANIFEST, read_manifest
from ad.data.schema import Fields, transition_fields
from ad.data.store import is_complete
from ad.registry import METHODS, SOURCES
from ad.runtime.files import sha256
from envs.registry import file_hashes
from envs.tasks import task_name


class HistoryStore:
    """The learning histories of an experiment's source under its source seed.

    `path` is the folder `histories/<dataset>/`, one for each world and source configuration. It
    holds the histories of all splits and of all source seeds; of tasks that change, those of one
    split and stride.
    """

    def __init__(self, config: Experiment):
        self.config = config
        source = replace(config.source, source_seed=0)
        name = f"{_slug(config.env.id)}-{_slug(source.algorithm)}"
        stride = {"history_stride": config.data.history_stride}
        of_changes = (config.split, stride) if config.env.change else ()
        name += f"-{config_hash(config.env, source, *of_changes)[:8]}"
        self.path = Path(config.root) / "histories" / name

    @cached_property
    def fields(self) -> Fields:
        """The fields of a transition of the world."""
        return transition_fields(configured_world(self.config.env))

    @property
    def settings(self) -> dict:
        """The settings of the source, resolved (`Source.resolve`). Raises ConfigError."""
        return self._resolved[0]

    @property
    def needed(self) -> list["HistoryStore"]:
        """The histories of other experiments that the source reads. Raises ConfigError."""
        return [HistoryStore(config) for config in self._resolved[1]]

    @cached_property
    def _resolved(self) -> tuple[dict, list[Experiment]]:
        return SOURCES.load(self.config.source.algorithm).resolve(self.config)

    def folder(self, task: np.ndarray) -> Path:
        """Return the folder of the history of `task`."""
        return self.path / f"task_{task_name(task)}_seed_{self.config.source.source_seed}"

    def folders(self, tasks: np.ndarray) -> list[Path] | None:
        """Return the folders of the histories of `tasks`; None if one is missing."""
        folders = [self.folder(task) for task in tasks]
        return folders if all((folder / MANIFEST).exists() for folder in folders) else None

    def inputs(self, tasks: Iterable[np.ndarray]) -> dict[str, str]:
        """Return path -> SHA-256 of each file that the source reads for `tasks`.

        Paths inside the root are relative to it, so that they do not depend on where it is. Raises
        ValueError if a file is missing.
        """
        source = SOURCES.load(self.config.source.algorithm)
        paths = [path for task in tasks for path in source.files(self.settings, task)]
        root = Path(self.config.root)
        return {
            str(path.relative_to(root) if path.is_relative_to(root) else path): sha256(path)
            for path in map(Path, paths)
        }

    def has_inputs(self, inputs: dict[str, str], tasks: Iterable[np.ndarray]) -> bool:
        """Return whether `inputs` still are the inputs of `tasks`, and no file is missing."""
        try:
            return inputs == self.inputs(tasks)
        except ValueError:
            return False

    def manifest(self, task: np.ndarray) -> dict:
        """Return the entries of the manifest of `task` that determine its history.

        Raises ValueError if a file that the source reads is missing.
        """
        env, source = self.config.env, self.config.source
        inputs, changes = self.inputs([task]), history_changes(self.config, task[None])
        if changes:  # what the tasks of all episodes of an actor follow from: `Changes.tasks`
            pool = changes.pools[0].tolist()
            changes = {"rate": changes.rate, "key": changes.keys[0], "tasks": pool}
        return {
            "env": {"id": env.id, "kwargs": env.kwargs, "episode_length": env.episode_length},
            "task": task.tolist(),
            "task_kwargs": env.tasks[int(task[0])] if env.tasks else None,
            "source": {"algorithm": source.algorithm, "settings": source.settings},
            "source_seed": source.source_seed,
            "env_steps": source.env_steps,
            "num_envs": source.num_envs,
            "code": file_hashes(env.id, *env.kwargs.values(), source.algorithm),
            "fields": {name: [str(f.dtype), *f.shape] for name, f in self.fields.items()},
            "versions": versions(),
            **({"inputs": inputs} if inputs else {}),
            **({"changes": changes} if changes else {}),
        }

    def manifest_mismatch(self, manifest: dict, task: np.ndarray) -> str:
        """Return the keys, joined by commas, in which `manifest` differs from that of `task`.

        Returns "" if there is none. Other versions of Python and its packages do not count. If a
        file that the source reads is missing, returns "inputs".
        """
        try:
            wanted = json.loads(json.dumps(self.manifest(task)))  # as it is read from the disk
        except ValueError:
            return "inputs"
        del wanted["versions"]
        return ", ".join(key for key, value in wanted.items() if manifest.get(key) != value)

    def is_complete(self, task: np.ndarray) -> bool:
        """Return whether the history of `task` is there, complete, and of this source."""
        folder = self.folder(task)
        return is_complete(folder) and not self.manifest_mismatch(read_manifest(folder), task)

    def missing(self, tasks: np.ndarray) -> np.ndarray:
        """Return the `tasks` [K, ...] that have no complete history."""
        return tasks[[not self.is_complete(task) for task in tasks]]


def training_folders(config: Experiment, tasks: np.ndarray) -> list[Path] | None:
    """Return the folders of the histories of `tasks` that the configured method learns from.

    None if one is missing, or if the method learns in the worlds themselves.
    """
    reads_histories = METHODS.load(config.method.name).reads_histories
    return HistoryStore(config).folders(tasks) if reads_histories else None


def _slug(name: str) -> str:
    """Return the end of a name or a path as it stands in file names, e.g. darkroom_v0."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name)[-60:].strip("_").lower()


def versions() -> dict[str, str]:
    """Return the versions of the packages that the bits of a history depend on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
    }
