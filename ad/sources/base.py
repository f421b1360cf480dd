"""The interface of sources: algorithms whose learning is recorded as histories."""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from gymnasium.vector import VectorEnv

from ad.config.schema import Experiment
from ad.data.schema import TransitionChunk
from ad.errors import SettingError
from ad.sources.actors import Actors
from envs.oracle import TaskOracle, knows_its_state


class Source:
    """K agents with N actors each, which learn one task each and are recorded.

    It is built as `Source(settings, env, tasks, num_envs, keys)`. All K agents have the
    same `settings`, a `Settings`. `env` is a vector environment with SAME_STEP autoreset and K * N
    environments, grouped by task; its `unwrapped` is the world. `tasks` is int [K, ...], `num_envs`
    is N, `keys` has a 64-bit key for each agent, from which all its random numbers are derived.
    `ad.sources.actors.Actors` steps and records the environments.

    A subclass needs `Settings`, a frozen dataclass of `ad.config.fields`, and `run`; the other
    members have a default. Only actions that a task has are taken (`Actors.action_mask`). An
    agent that is trained several times for a short time has an actor for each time.
    """

    Settings: ClassVar[type]
    # What the source knows of its task besides observations and rewards, for tables of results.
    # "nothing"; "family": all tasks of the world and how to solve each, or the prior from which
    # they are drawn, but not the present one; "optimum": the optimal policy; None: unknown.
    privileged_info: ClassVar[str | None] = None
    paper: ClassVar[str | None] = None  # of the algorithm, for the table of sources
    learns: ClassVar[bool] = True  # whether it gets better in a history
    # int [K], the number of steps that each agent learned from before it failed, -1 for all;
    # None for a source whose agents cannot fail.
    stopped_at: np.ndarray | None = None

    @abstractmethod
    def __init__(self, settings, env: VectorEnv, tasks: np.ndarray, num_envs: int, keys: list[int]):
        raise NotImplementedError

    @classmethod
    def check(cls, config: Experiment, world: TaskOracle) -> None:
        """Raise SettingError if the source cannot run as `config` says.

        It is called before anything runs, with valid `config.source.settings`. `world` is the base
        environment of `config.env`, which is not stepped.
        """

    @classmethod
    def resolve(cls, config: Experiment) -> tuple[dict, list[Experiment]]:
        """Return the settings of the source in `config`, and the experiments that it reads.

        The settings are in plain types. The histories of the same tasks of these experiments are
        collected first. Raises SettingError.
        """
        return config.source.settings, []

    @classmethod
    def files(cls, settings: dict, task: np.ndarray) -> list[Path]:
        """Return the paths of the files that the resolved `settings` name for `task`.

        Their SHA-256 is part of what determines a history. Raises ValueError if one is missing.
        """
        return []

    @abstractmethod
    def run(self, steps: int) -> Iterator[TransitionChunk]:
        """Learn until each environment has taken `steps` steps; yield the transitions in chunks.

        A chunk can hold checkpoints of the policies, which are stored with the history.
        """
        raise NotImplementedError

    def state(self) -> dict | None:
        """Return the state between two chunks as nested dicts of arrays.

        None: it cannot be saved, and an interrupted collection starts again.
        """
        return None

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`: the source resumes with the same bits.

        Raises CorruptError if that is not possible.
        """
        raise NotImplementedError


class RolloutSource(Source):
    """K agents with N actors each, `actors`, that learn after every rollout of `rollout_length`.

    `state_names` are the attributes that make up the state of the agents: arrays, or dicts of
    arrays by name. A subclass has `act`, and overrides `_begin_rollout`, `_learn` and `_statistics`
    where it needs them.
    """

    actors: Actors
    state_names: ClassVar[tuple[str, ...]] = ()
    rollout_length = 1  # steps of each actor

    def run(self, steps: int) -> Iterator[TransitionChunk]:
        """Learn until each environment has taken `steps` steps; yield the transitions in chunks."""
        length = self.rollout_length
        for chunk in self.actors.chunks(steps, length):
            for rollout in chunk.rollouts(length):
                self._begin_rollout(self.actors.steps / max(steps - 1, 1))
                self.actors.fill(rollout, self.act)
                self._learn(self.actors.read(rollout))
            chunk.statistics.update({name: [own] for name, own in self._statistics().items()})
            yield chunk

    def state(self) -> dict | None:
        """Return the state as nested dicts of arrays; None if the environments have none."""
        actors = self.actors.state()
        if actors is None:
            return None
        own = {name: getattr(self, name) for name in self.state_names}
        return {**_copy(own, own), "actors": actors}

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`.

        Raises CorruptError if the environments cannot be restored exactly.
        """
        own = {name: getattr(self, name) for name in self.state_names}
        for name, values in _copy(own, state).items():
            setattr(self, name, values)
        self.actors.restore(state["actors"])

    @abstractmethod
    def act(self, observations, u: np.ndarray) -> np.ndarray:
        """Return the actions, int [K, N], at `observations` [K, N] by the uniforms `u` [K, N]."""
        raise NotImplementedError

    def _begin_rollout(self, progress: float) -> None:
        """Set what follows a schedule, after a share `progress` of the history; does nothing."""

    def _learn(self, rollout: TransitionChunk) -> None:
        """Learn from a rollout, arrays [T, K, N], and add to its statistics; does nothing."""

    def _statistics(self) -> dict[str, np.ndarray]:
        """Return the statistics of a chunk that is complete, arrays [K] by name; none."""
        return {}


class TabularSource(RolloutSource):
    """A RolloutSource that learns a table of the observations, which have numbers.

    `act` and `_learn` get the numbers, int, in place of the observations.
    """

    @classmethod
    def check(cls, config: Experiment, world: TaskOracle) -> None:
        """Raise SettingError unless the observations of `world` have numbers."""
        if world.num_observations is None:
            text = "one discrete number or one picture that its world numbers"
            raise unfit(config, f"it learns a table, so an observation must be {text}")

    def run(self, steps: int) -> Iterator[TransitionChunk]:
        """Learn until each environment has taken `steps` steps; yield the transitions in chunks."""
        self.actors.numbered = True
        yield from super().run(steps)


def knows_optimal_policy(world: TaskOracle) -> bool:
    """Return whether `world` knows its optimal policy and the state that it is in."""
    return world.optimal_policy(world.all_tasks()[:1]) is not None and knows_its_state(world)


def linear(start: float, end: float, fraction: float, progress: float) -> float:
    """Return the value after a share `progress` of the steps: from `start` linearly to `end`.

    `end` is reached after a share `fraction` of the steps and kept.
    """
    return start + (end - start) * min(progress / fraction, 1.0)


def unfit(config: Experiment, reason: str) -> SettingError:
    """Return the error of a source that cannot learn in the world of `config`."""
    text = f"cannot be {config.source.algorithm} with {config.env.id}: {reason}"
    return SettingError("source.algorithm", text)


def _copy(names: dict, values: dict) -> dict:
    """Copy the arrays of nested dicts that are named in `names`: a snapshot lacks empty dicts."""
    return {
        name: _copy(own, values.get(name, {})) if isinstance(own, dict) else values[name].copy()
        for name, own in names.items()
    }
