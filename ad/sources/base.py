"""What sources of the suite share: how a history is run, and how its state is saved."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from ad.data.schema import TransitionChunk
from ad.sources.actors import Actors


class Source:
    """K agents with N actors each, `actors`, that learn after every rollout of `rollout_length`.

    `state_names` are the attributes that make up the state of the agents: arrays, or dicts of
    arrays by name. A subclass has `act` and those of `_begin_rollout`, `_learn` and `_statistics`
    that it needs.
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
                self._learn(rollout)
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
    def act(self, observations: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return the actions, int [K, N], at `observations` [K, N] by the uniforms `u` [K, N]."""
        raise NotImplementedError

    def _begin_rollout(self, progress: float) -> None:
        """Set what follows a schedule, after a share `progress` of the history; does nothing."""

    def _learn(self, rollout: TransitionChunk) -> None:
        """Learn from a rollout, arrays [T, K, N], and add to its statistics; does nothing."""

    def _statistics(self) -> dict[str, np.ndarray]:
        """Return the statistics of a chunk that is complete, arrays [K] by name; none."""
        return {}


def _copy(names: dict, values: dict) -> dict:
    """Copy the arrays of nested dicts that are named in `names`: a snapshot lacks empty dicts."""
    return {
        name: _copy(own, values.get(name, {})) if isinstance(own, dict) else values[name].copy()
        for name, own in names.items()
    }
