"""A batch of source agents and the histories that they write: run, saved, gone on with.

While it runs everything is in one partial folder, `histories/<dataset>/.partial-<hash>/`: the
arrays and the state of the agents, saved from time to time and on an interruption. The arrays go to
the disk first: whatever they hold behind the step of the state is written again.
"""

import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numba
import numpy as np
from tqdm import tqdm

from ad.config.schema import Experiment
from ad.data.manifest import STOPPED, read_manifest
from ad.data.store import PARTIAL, HistoryWriter, is_whole, say_stopped, unit_bytes
from ad.errors import CorruptError
from ad.registry import SOURCES
from ad.runtime.console import notice
from ad.runtime.files import remove, require_room
from ad.runtime.run import dataset_folder, task_name, unit_folder
from ad.runtime.signals import deferred
from ad.runtime.snapshots import flat, load_state, read_about, save_state
from envs import make_vec, world
from envs.rng import derive_key


class Batch:
    """The source agents of `tasks` [K, ...] and their histories; `resume` goes on with both."""

    def __init__(self, config: Experiment, tasks: np.ndarray, resume: bool = False):
        self.config, self.tasks = config, tasks
        self.steps = config.source.env_steps // config.source.num_envs
        self.source = new_source(config, tasks)
        state = _state(self.source)
        self.can_be_saved = state is not None
        if not resume:
            self._require_room(flat(state or {}))
        folders = [unit_folder(config, task) for task in tasks]
        self.writer = HistoryWriter(folders, config.source.num_envs, self.steps, resume)
        if resume:
            state = load_state(self.writer.partial)
            self.source.restore(state["source"])
            self.writer.restore(state["histories"])
        self.saved = time.monotonic()

    def _require_room(self, state: dict[str, np.ndarray]) -> None:
        """MachineError unless there is room for the histories and for two states, old and new."""
        states = 2 * sum(array.nbytes for array in state.values())
        histories = len(self.tasks) * unit_bytes(self.config.source.num_envs, self.steps)
        what = f"collecting {len(self.tasks)} histories"
        require_room(dataset_folder(self.config), histories + states, what)

    def collect(self) -> None:
        """Run the agents to the end and publish their histories, or save all when interrupted."""
        try:
            # Numbers that overflow stop their own agent; NumPy's word on them would say no more.
            deferring = deferred() if self.can_be_saved else nullcontext(lambda: False)
            with deferring as asked, np.errstate(over="ignore", invalid="ignore"):
                self._run(asked)
                if self.writer.written == self.steps:
                    self._publish()
        except BaseException:
            if read_about(self.writer.partial) is None:
                self.writer.discard()
                print("nothing of these histories is saved: they start again", file=sys.stderr)
            raise

    def _run(self, asked) -> None:
        with self._bar() as bar:
            for block in self.source.run(self.steps):
                self.writer.append(block)
                bar.set_postfix_str(f"mean return {_mean_return(block):.2f}", refresh=False)
                bar.update(block.arrays["action"].size)
                due = time.monotonic() - self.saved >= self.config.source.state_every
                if due or asked() or self.writer.written == self.steps:
                    self.save()
                if asked():
                    break

    def _publish(self) -> None:
        """Publish the histories; those of agents that failed carry a mark, stderr names them."""
        manifests = [unit_manifest(self.config, task) for task in self.tasks]
        stopped_at = getattr(self.source, "stopped_at", np.full(len(self.tasks), -1))
        stopped = {k: int(stopped_at[k]) for k in np.flatnonzero(stopped_at >= 0)}
        for k, step in stopped.items():
            manifests[k][STOPPED] = step
        self.writer.close(manifests)
        if stopped:
            named = say_stopped({task_name(self.tasks[k]): step for k, step in stopped.items()})
            notice(f"{named}: their loss or gradient was not finite; the others are not touched")

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


def unfinished(config: Experiment, missing: np.ndarray) -> Iterator[Batch]:
    """The interrupted batches whose histories are all among the `missing` tasks, to go on with.

    What nobody can go on with is removed, and a line on stderr says why.
    """
    for partial, about in partials(config, missing):
        yield from _gone_on_with(config, np.array(about["tasks"]), partial)


def partials(config: Experiment, missing: np.ndarray) -> list[tuple[Path, dict]]:
    """Their folders and what their states belong to. Those of other tasks or seeds are let be."""
    wanted = {task_name(task) for task in missing}
    found = []
    for partial in sorted(dataset_folder(config).glob(f"{PARTIAL}*")):
        about = read_about(partial)
        if about is None:
            _give_up(partial, "it left no state")
        elif about.get("versions") != versions():
            _give_up(partial, f"it ran with other versions ({about['versions']})")
        elif about["source_seed"] == config.source.source_seed:
            tasks = [np.array(task) for task in about["tasks"]]
            left = {task_name(task) for task in tasks if not is_there(config, task)}
            if not left:
                remove(partial)  # a kill came between the last publication and this
            elif left <= wanted:
                found.append((partial, about))
    return found


def _gone_on_with(config: Experiment, tasks: np.ndarray, partial: Path) -> list[Batch]:
    try:
        batch = Batch(config, tasks, resume=True)
    except (CorruptError, KeyError) as error:  # KeyError: the state is of another code
        _give_up(partial, str(error))
        return []
    done, steps = batch.writer.written, batch.steps
    print(f"{len(tasks)} histories go on from step {done} of {steps}", file=sys.stderr)
    return [batch]


def _give_up(partial: Path, reason: str) -> None:
    print(f"an interrupted collection starts again: {reason}", file=sys.stderr)
    remove(partial)


def is_there(config: Experiment, task: np.ndarray) -> bool:
    """Whether the history of `task` is there and whole, and says that it is that one."""
    folder = unit_folder(config, task)
    return is_whole(folder) and not other_history(read_manifest(folder), config, task)


def other_history(manifest: dict, config: Experiment, task: np.ndarray) -> str:
    """In what `manifest` is not that of the history of `task`; empty if it is."""
    wanted = json.loads(json.dumps(unit_manifest(config, task)))  # as it comes from the disk
    del wanted["versions"]  # a history of other versions is as good
    return ", ".join(key for key, value in wanted.items() if manifest.get(key) != value)


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
    knowledge = world(env.id, env.tasks, **env.kwargs)
    settings = settings or source_class.Settings(**source.settings)
    return source_class(settings, lanes, tasks, source.num_envs, keys, knowledge)


def unit_manifest(config: Experiment, task: np.ndarray) -> dict:
    """What makes the history of `task`, as its manifest says it."""
    env, source = config.env, config.source
    return {
        "env": {"id": env.id, "kwargs": env.kwargs, "episode_length": env.episode_length},
        "task": task.tolist(),
        "task_kwargs": env.tasks[int(task[0])] if env.tasks else None,
        "source": {"algorithm": source.algorithm, "settings": source.settings},
        "source_seed": source.source_seed,
        "env_steps": source.env_steps,
        "num_envs": source.num_envs,
        "versions": versions(),
    }


def limit_threads(config: Experiment) -> None:
    """Let compiled loops take no more threads than the configuration allows."""
    if config.threads:
        numba.set_num_threads(min(config.threads, numba.config.NUMBA_NUM_THREADS))


def versions() -> dict[str, str]:
    """Of what the bits of a history depend on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


def _about(config: Experiment, tasks: np.ndarray) -> dict:
    seed = config.source.source_seed
    return {"tasks": tasks.tolist(), "source_seed": seed, "versions": versions()}


def _state(source) -> dict | None:
    return source.state() if hasattr(source, "state") else None


def _mean_return(block) -> float:
    arrays = block.arrays
    ended = (arrays["terminated"] | arrays["truncated"]).sum()
    return arrays["reward"].sum() / max(ended, 1)
