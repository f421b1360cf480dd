"""A run: the folder `logs/<name>/` of an experiment, its split and its world.

The folder holds config.yaml, split.json, metrics.jsonl, timing.json, sessions.json, checkpoints/,
results.*, worlds/<world>/results.*, report.html, inspect/ (analyses of the model), tensorboard/
(the numbers of metrics.jsonl) and source/<task>/ (the learning curves of the source agents for
tensorboard).
"""

import contextlib
import json
import math
import re
import shutil
import time
from collections.abc import Generator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ad.config import schema as configuration
from ad.config.schema import Experiment
from ad.config.world import configured_split, configured_world
from ad.errors import ConfigError
from ad.registry import METHODS
from ad.runtime.console import warn
from ad.runtime.files import remove, write_json, write_text
from ad.runtime.metrics_log import MetricsLog
from envs.tasks import Split

# Sections of the configuration that may change without training again.
LATE_SECTIONS = ("evaluation.", "record.")


class Run:
    """The folder of one run, its log, and the split and the world of its experiment.

    `Run(config)` touches no file; `Run.open` creates the folder, for a verb that writes to it.
    """

    def __init__(self, config: Experiment):
        self.config, self.folder = config, config.folder
        self.log = MetricsLog(self.folder)

    @classmethod
    def open(cls, config: Experiment, fresh: bool = False, writes: bool = True) -> "Run":
        """Return the run of `config`, with config.yaml and split.json in its folder if `writes`.

        Raises ConfigError if the folder holds a run of other settings, MachineError if the device
        is not there. With `fresh` the folder is emptied instead, after a warning, as is that of its
        videos.
        """
        run = cls(config)
        path = run.folder / "config.yaml"  # a run of a machine with a GPU can be reported here
        old = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        if config.device == "cuda" and "\ndevice: cuda\n" not in f"\n{old}":
            from ad.runtime.devices import choose_device

            choose_device(config)
        if changed := run.changed_settings():
            found = f"{run.folder} holds a run with other settings ({'; '.join(changed)})"
            if not fresh:
                raise ConfigError(
                    f"{found}: choose another --name, or discard it with --fresh true"
                )
            warn(f"{found}: it is discarded")
            shutil.rmtree(run.folder)
            remove(run.videos)
        if writes:
            run.folder.mkdir(parents=True, exist_ok=True)
            write_text(run.folder / "config.yaml", configuration.dump(config))
            write_json(run.folder / "split.json", describe_split(run.split))
        return run

    @cached_property
    def split(self) -> Split:
        """The train and the held-out tasks of the experiment."""
        return configured_split(self.config.env, self.config.split)

    @property
    def evaluated_split(self) -> Split:
        """The split with the train tasks that the model is evaluated on."""
        return self.split.with_train_tasks(self.config.evaluation.num_train_tasks)

    @property
    def world(self):
        """The base vector environment of the experiment, which knows all its tasks."""
        return configured_world(self.config.env)

    @property
    def history_tasks(self) -> np.ndarray:
        """The train tasks, of which the method reads histories; none if it reads no histories."""
        tasks = self.split.train_tasks
        return tasks if METHODS.load(self.config.method.name).reads_histories else tasks[:0]

    @property
    def videos(self) -> Path:
        """The folder `videos/<name>/` of the run."""
        return Path(self.config.root) / "videos" / self.config.name

    def discard_training(self) -> None:
        """Remove what is made of the weights, so that training starts from the first step."""
        for name in ("checkpoints", "inspect", "demo.html"):
            remove(self.folder / name)
        self.log.discard()
        self.add_timing("train_s", 0.0, reset=True)

    @contextlib.contextmanager
    def timed(self, name: str, reset: bool = False) -> Generator[None]:
        """Add the seconds of the block to `name` in timing.json, with `reset` from zero."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add_timing(name, time.perf_counter() - start, reset)

    def timing(self) -> dict[str, float]:
        """Return the seconds in timing.json by name, without damaged entries.

        The names are collect_s, train_s and evaluate_s.
        """
        try:
            seconds = dict(json.loads((self.folder / "timing.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return {}
        durations = ((n, s) for n, s in seconds.items() if isinstance(s, float))
        return {name: value for name, value in durations if 0 <= value < math.inf}

    def add_timing(self, name: str, seconds: float, reset: bool = False) -> None:
        """Add `seconds` to `name` in timing.json, with `reset` to zero."""
        timing = self.timing()
        total = seconds + (0.0 if reset else timing.get(name, 0.0))
        write_json(self.folder / "timing.json", timing | {name: round(total, 3)})

    def changed_settings(self) -> list[str]:
        """Return "path: old -> new" for each setting that differs from the run in the folder.

        Only settings that affect the training are compared.
        """
        path = self.folder / "config.yaml"
        if not path.exists():
            return []
        try:
            old = configuration.parse_dump(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return [f"its config.yaml cannot be read: {error}"]
        changed = configuration.diff_text(old, self.config)
        return [line for line in changed if not line.startswith(LATE_SECTIONS)]


def with_seed(config: Experiment, seed: int) -> Experiment:
    """Return `config` with another training seed, under the name `<name>-seed-<seed>`."""
    training = replace(config.training, train_seed=seed)
    return replace(config, name=f"{config.name}-seed-{seed}", training=training)


def describe_split(split: Split) -> dict:
    """Return the tasks of a split and its hash in plain types."""
    return {
        "hash": split.hash,
        "train": split.train_tasks.tolist(),
        "held_out": split.held_out_tasks.tolist(),
    }


def world_folder(folder: Path, kwargs: dict) -> Path:
    """Return the subfolder of a run's `folder` for the results in another world.

    The settings {"size": 11} give worlds/size_11.
    """
    return folder / "worlds" / re.sub(r"[^A-Za-z0-9.-]+", "_", world_title(kwargs))


def world_title(kwargs: dict) -> str:
    """Return the settings of another world as a title: {"size": 11} gives "size 11"."""
    texts = {name: v if isinstance(v, str) else json.dumps(v) for name, v in kwargs.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())
