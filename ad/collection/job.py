"""A batch of source agents and the histories that they write: run, saved, gone on with.

While it runs everything is in one partial folder, `histories/<dataset>/.partial-<hash>/`: the
arrays and the state of the agents, saved from time to time and on an interruption. The arrays go to
the disk first: whatever they hold behind the step of the state is written again.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numba
import numpy as np
from tqdm import tqdm

from ad.config.schema import Experiment
from ad.data.histories import Histories, versions
from ad.data.manifest import STOPPED
from ad.data.store import HistoryWriter, describe_stopped, history_bytes
from ad.errors import CorruptError
from ad.registry import SOURCES
from ad.runtime.console import warn
from ad.runtime.files import remove, require_disk_space
from ad.runtime.signals import defer_signals
from ad.runtime.snapshots import flatten, load_state, read_metadata, save_state
from envs import make_vec
from envs.rng import derive_key
from envs.tasks import task_name


class CollectionJob:
    """The source agents of `tasks` [K, ...] and their histories; `resume` goes on with both."""

    def __init__(self, histories: Histories, tasks: np.ndarray, resume: bool = False):
        self.histories, self.config, self.tasks = histories, histories.config, tasks
        config = self.config
        self.steps = config.source.env_steps // config.source.num_envs
        self.source = new_source(config, tasks)
        state = _state(self.source)
        self.can_be_saved = state is not None
        if not resume:
            self._require_room(flatten(state or {}))
        folders = [histories.folder(task) for task in tasks]
        self.writer = HistoryWriter(folders, config.source.num_envs, self.steps, resume)
        if resume:
            state = load_state(self.writer.partial)
            self.source.restore(state["source"])
            self.writer.restore(state["histories"])
        self.saved = time.monotonic()

    def _require_room(self, state: dict[str, np.ndarray]) -> None:
        """MachineError unless there is room for the histories and for two states, old and new."""
        states = 2 * sum(array.nbytes for array in state.values())
        needed = len(self.tasks) * history_bytes(self.config.source.num_envs, self.steps)
        what = f"collecting {len(self.tasks)} histories"
        require_disk_space(self.histories.path, needed + states, what)

    def collect(self) -> None:
        """Run the agents to the end and publish their histories, or save all when interrupted."""
        try:
            # Numbers that overflow stop their own agent; NumPy's word on them would say no more.
            deferring = defer_signals() if self.can_be_saved else nullcontext(lambda: False)
            with deferring as stop_requested, np.errstate(over="ignore", invalid="ignore"):
                self._run(stop_requested)
                if self.writer.written == self.steps:
                    self._publish()
        except BaseException:
            if read_metadata(self.writer.partial) is None:
                self.writer.discard()
                print("nothing of these histories is saved: they start again", file=sys.stderr)
            raise

    def _run(self, stop_requested) -> None:
        with self._bar() as bar:
            for block in self.source.run(self.steps):
                self.writer.append(block)
                bar.set_postfix_str(f"mean return {_mean_return(block):.2f}", refresh=False)
                bar.update(block.arrays["action"].size)
                due = time.monotonic() - self.saved >= self.config.source.state_every
                if due or stop_requested() or self.writer.written == self.steps:
                    self.save()
                if stop_requested():
                    break

    def _publish(self) -> None:
        """Publish the histories; those of agents that failed carry a mark, stderr names them."""
        manifests = [self.histories.manifest(task) for task in self.tasks]
        stopped_at = getattr(self.source, "stopped_at", np.full(len(self.tasks), -1))
        stopped = {k: int(stopped_at[k]) for k in np.flatnonzero(stopped_at >= 0)}
        for k, step in stopped.items():
            manifests[k][STOPPED] = step
        self.writer.close(manifests)
        if stopped:
            named = describe_stopped(
                {task_name(self.tasks[k]): step for k, step in stopped.items()}
            )
            warn(f"{named}: their loss or gradient was not finite; the others are not touched")

    def save(self) -> None:
        """Save the histories and agents as they are now, where the world can be saved."""
        if not self.can_be_saved:
            return
        self.writer.flush()
        state = {"source": self.source.state(), "histories": self.writer.state()}
        save_state(self.writer.partial, self.writer.written, state, _about(self.config, self.tasks))
        self.saved = time.monotonic()

    def _bar(self) -> tqdm:
        lanes = self.config.source.num_envs * len(self.tasks)
        return tqdm(
            total=self.steps * lanes,
            initial=self.writer.written * lanes,
            desc="collect",
            unit=" steps",
            unit_scale=True,
            disable=None,
        )


def resumable_jobs(histories: Histories, missing: np.ndarray) -> Iterator[CollectionJob]:
    """The interrupted batches whose histories are all among the `missing` tasks, to go on with.

    What nobody can go on with is removed, and a line on stderr says why.
    """
    for partial, about in resumable_folders(histories, missing):
        yield from _gone_on_with(histories, np.array(about["tasks"]), partial)


def resumable_folders(histories: Histories, missing: np.ndarray) -> list[tuple[Path, dict]]:
    """Their folders and what their states belong to. Those of other tasks or seeds are let be."""
    wanted = {task_name(task) for task in missing}
    found = []
    for partial, about in histories.partial_folders():
        if about is None:
            _give_up(partial, "it left no state")
        elif about.get("versions") != versions():
            _give_up(partial, f"it ran with other versions ({about['versions']})")
        elif about["source_seed"] == histories.config.source.source_seed:
            tasks = [np.array(task) for task in about["tasks"]]
            left = {task_name(task) for task in tasks if not histories.is_complete(task)}
            if not left:
                remove(partial)  # a kill came between the last publication and this
            elif left <= wanted:
                found.append((partial, about))
    return found


def _gone_on_with(histories: Histories, tasks: np.ndarray, partial: Path) -> list[CollectionJob]:
    try:
        batch = CollectionJob(histories, tasks, resume=True)
    except (CorruptError, KeyError) as error:  # KeyError: the state is of another code
        _give_up(partial, str(error))
        return []
    done, steps = batch.writer.written, batch.steps
    print(f"{len(tasks)} histories go on from step {done} of {steps}", file=sys.stderr)
    return [batch]


def _give_up(partial: Path, reason: str) -> None:
    print(f"an interrupted collection starts again: {reason}", file=sys.stderr)
    remove(partial)


def new_source(config: Experiment, tasks: np.ndarray, settings=None):
    """The configured source algorithm on `tasks` [K, ...], each with its own key and actors.

    `settings`: one `Settings` for all agents or one for each, in place of the configured ones.
    """
    env, source = config.env, config.source
    source_class = SOURCES.load(source.algorithm)
    lanes = make_vec(
        env.id,
        np.repeat(tasks, source.num_envs, axis=0),
        env.episode_length,
        task_kwargs=env.tasks,
        **env.kwargs,
    )
    keys = [derive_key(source.source_seed, source.algorithm, task_name(task)) for task in tasks]
    settings = settings or source_class.Settings(**source.settings)
    return source_class(settings, lanes, tasks, source.num_envs, keys, lanes.unwrapped)


def limit_threads(config: Experiment) -> None:
    """Let compiled loops take no more threads than the configuration allows."""
    if config.threads:
        numba.set_num_threads(min(config.threads, numba.config.NUMBA_NUM_THREADS))


def _about(config: Experiment, tasks: np.ndarray) -> dict:
    seed = config.source.source_seed
    return {"tasks": tasks.tolist(), "source_seed": seed, "versions": versions()}


def _state(source) -> dict | None:
    return source.state() if hasattr(source, "state") else None


def _mean_return(block) -> float:
    arrays = block.arrays
    ended = (arrays["terminated"] | arrays["truncated"]).sum()
    return arrays["reward"].sum() / max(ended, 1)
