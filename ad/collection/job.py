"""A collection job: source agents and the histories that they write, with snapshots to resume from.

While a job runs, its files are in one partial folder, `histories/<dataset>/.partial-<hash>/`: the
arrays, and a snapshot of the agents that is written from time to time and on an interruption. The
arrays are flushed first; transitions after the step of the snapshot are written again on resuming.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ad.config.schema import Experiment
from ad.config.world import history_changes, make_envs
from ad.data.histories import HistoryStore, versions
from ad.data.manifest import STOPPED
from ad.data.store import PARTIAL, HistoryWriter, describe_stopped, history_bytes
from ad.errors import ConfigError, CorruptError
from ad.registry import SOURCES
from ad.runtime import console
from ad.runtime.console import warn
from ad.runtime.files import remove, require_disk_space
from ad.runtime.signals import defer_signals
from ad.runtime.snapshots import flatten, load_state, read_metadata, save_state
from ad.sources.base import Source
from envs.rng import derive_key
from envs.tasks import task_name


class CollectionJob:
    """The source agents of `tasks` [K, ...] and the writer of their histories.

    `resume` continues from the snapshot in the partial folder. Raises CorruptError if that is
    damaged; MachineError if a new job needs more disk space than there is.
    """

    def __init__(self, histories: HistoryStore, tasks: np.ndarray, resume: bool = False):
        self.histories, self.config, self.tasks = histories, histories.config, tasks
        config = self.config
        self.steps = config.source.env_steps // config.source.num_envs
        # Before the agents are made: the files that they read may change afterwards.
        self.manifests = [histories.manifest(task) for task in tasks]
        self.source = new_source(config, tasks)
        state = self.source.state()
        self.can_be_saved = state is not None
        num_envs = config.source.num_envs
        if not resume:  # the histories and two snapshots, old and new
            needed = 2 * sum(array.nbytes for array in flatten(state or {}).values())
            needed += len(tasks) * history_bytes(histories.fields, num_envs, self.steps)
            require_disk_space(histories.path, needed, f"collecting {len(tasks)} histories")
        folders = [histories.folder(task) for task in tasks]
        self.writer = HistoryWriter(folders, histories.fields, num_envs, self.steps, resume)
        if resume:
            state = load_state(self.writer.partial)
            self.source.restore(state["source"])
            self.writer.restore(state["histories"])
        self.last_save = time.monotonic()

    def collect(self) -> None:
        """Run the agents to the end and publish their histories; save a snapshot on a signal."""
        try:
            # An overflow stops one agent, which `_publish` reports: NumPy's warning adds nothing.
            deferring = defer_signals() if self.can_be_saved else nullcontext(lambda: False)
            with deferring as stop_requested, np.errstate(over="ignore", invalid="ignore"):
                self._run(stop_requested)
                if self.writer.written == self.steps:
                    self._publish()
                elif not stop_requested():
                    raise ConfigError(
                        f"the source {self.config.source.algorithm} ended after "
                        f"{self.writer.written} of {self.steps} steps"
                    )
        except BaseException:
            if read_metadata(self.writer.partial) is None:
                self.writer.discard()
                warn("these histories have no snapshot: they start again")
            raise

    def _run(self, stop_requested) -> None:
        num_actors = self.config.source.num_envs * len(self.tasks)
        with tqdm(
            total=self.steps * num_actors,
            initial=self.writer.written * num_actors,
            desc="collect",
            unit=" steps",
            unit_scale=True,
            disable=None,
        ) as bar:
            for chunk in self.source.run(self.steps):
                self.writer.append(chunk)
                arrays = chunk.arrays
                ended = max((arrays["terminated"] | arrays["truncated"]).sum(), 1)
                mean_return = arrays["reward"].sum() / ended
                bar.set_postfix_str(f"mean return {mean_return:.2f}", refresh=False)
                bar.update(arrays["action"].size)
                due = time.monotonic() - self.last_save >= self.config.source.state_every
                if due or stop_requested() or self.writer.written == self.steps:
                    self.save()
                if stop_requested():
                    break

    def _publish(self) -> None:
        """Publish the histories; mark those of failed agents and warn about them."""
        at = self.source.stopped_at
        stopped = {} if at is None else {k: int(at[k]) for k in np.flatnonzero(at >= 0)}
        for k, step in stopped.items():
            self.manifests[k][STOPPED] = step
        self.writer.close(self.manifests)
        if stopped:
            named = describe_stopped(
                {task_name(self.tasks[k]): step for k, step in stopped.items()}
            )
            warn(f"{named}: their loss or gradient was not finite; the others are not affected")

    def save(self) -> None:
        """Write a snapshot of the agents and the histories, if the source supports it."""
        if not self.can_be_saved:
            return
        self.writer.flush()
        state = {"source": self.source.state(), "histories": self.writer.state()}
        metadata = {  # what a snapshot belongs to
            "tasks": self.tasks.tolist(),
            "source_seed": self.config.source.source_seed,
            "versions": versions(),
            "code": self.manifests[0]["code"],
            "inputs": {path: h for m in self.manifests for path, h in m.get("inputs", {}).items()},
        }
        save_state(self.writer.partial, self.writer.written, state, metadata)
        self.last_save = time.monotonic()


def resumable_jobs(histories: HistoryStore, missing: np.ndarray) -> Iterator[CollectionJob]:
    """Yield the interrupted jobs whose tasks are all among `missing`, to be resumed.

    A partial folder that cannot be resumed is removed, with a warning.
    """
    for partial, metadata in resumable_folders(histories, missing):
        tasks = np.array(metadata["tasks"])
        try:
            job = CollectionJob(histories, tasks, resume=True)
        except (CorruptError, KeyError) as error:  # KeyError: the snapshot of another version
            _give_up(partial, str(error))
            continue
        console.error(
            f"resuming {len(tasks)} histories at step {job.writer.written} of {job.steps}"
        )
        yield job


def resumable_folders(histories: HistoryStore, missing: np.ndarray) -> list[tuple[Path, dict]]:
    """Return the partial folders of jobs whose tasks are all among `missing`, with their metadata.

    A folder that cannot be resumed is removed. Those of other tasks or source seeds are kept.
    """
    wanted = {task_name(task) for task in missing}
    resumable = []
    for partial in sorted(histories.path.glob(f"{PARTIAL}*")):
        if (metadata := read_metadata(partial)) is None:
            _give_up(partial, "it left no snapshot")
        elif metadata.get("versions") != versions():
            _give_up(partial, f"it ran with other versions ({metadata.get('versions')})")
        elif metadata["source_seed"] == histories.config.source.source_seed:
            tasks = [np.array(task) for task in metadata["tasks"]]
            left = {task_name(task) for task in tasks if not histories.is_complete(task)}
            if not left:
                remove(partial)  # the process was killed after publishing, before removing it
            elif left <= wanted and not histories.has_inputs(metadata.get("inputs", {}), tasks):
                _give_up(partial, "the files that its source reads have changed")
            elif left <= wanted and metadata.get("code") != histories.manifest(tasks[0])["code"]:
                _give_up(partial, "the files of its classes have changed")
            elif left <= wanted:
                resumable.append((partial, metadata))
    return resumable


def _give_up(partial: Path, reason: str) -> None:
    """Remove a partial folder that cannot be resumed, with a warning."""
    warn(f"an interrupted collection starts again: {reason}")
    remove(partial)


def new_source(config: Experiment, tasks: np.ndarray) -> Source:
    """Return the configured source algorithm on `tasks` [K, ...], an agent for each task."""
    source = config.source
    source_class = SOURCES.load(source.algorithm)
    actors = np.repeat(tasks, source.num_envs, axis=0)
    vec_env = make_envs(config.env, actors, history_changes(config, tasks))
    name = source.algorithm.rpartition("/")[2]  # wherever the file of a user's class lies
    keys = [derive_key(source.source_seed, name, task_name(task)) for task in tasks]
    settings = source_class.Settings(**HistoryStore(config).settings)
    return source_class(settings, vec_env, tasks, source.num_envs, keys)
