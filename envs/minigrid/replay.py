"""Episodes of MiniGrid that can be played again, by which environments are saved and restored.

The families keep their states in attributes of their own, e.g. a list of obstacles that are the
same objects as those of the grid. So the state of an environment is how it was reached: the state
of its random generator before the last reset, and the actions since then.
"""

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils.seeding import np_random

from envs.minigrid.observation import current


class Replayable(gymnasium.Wrapper):
    """Keep what is needed to play the present episode again."""

    _generator: dict | None = None  # its state before the last reset

    def reset(self, *, seed=None, options=None):
        """Begin an episode."""
        generator = self.np_random if seed is None else np_random(seed)[0]
        self._generator, self._actions = generator.bit_generator.state, []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: int):
        """Take one step."""
        self._actions.append(action)
        return self.env.step(action)

    def episode(self) -> dict:
        """Return the present episode as values of JSON; ResetNeeded before the first one.

        generator: the state of the random generator before the reset; a reset without a seed from
        it is the same as one with the seed that was given. actions: those since the reset. hash:
        of the grid and the agent: equal if an episode was played again exactly.
        """
        if self._generator is None:
            raise ResetNeeded("reset() comes before state()")
        grid_hash = current(self).hash(64)
        return {"generator": self._generator, "actions": self._actions, "hash": grid_hash}


def new_generator(state: dict) -> np.random.Generator:
    """Return a random generator in a state that `Replayable.episode` returned."""
    generator, _ = np_random(0)
    generator.bit_generator.state = state
    return generator
