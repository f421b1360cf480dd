"""Episodes of MiniGrid that can be played again, by which environments are saved and restored.

The families keep their states in attributes of their own, e.g. a list of obstacles that are the
same objects as those of the grid. So the state of an environment is how it was reached: the state
of its random generator before the last reset, and the actions since then. A cell that `put`
changes is not part of it: such a state cannot be restored.
"""

from collections.abc import Mapping

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils.seeding import np_random

from envs.minigrid.missions import is_babyai
from envs.minigrid.observation import current
from envs.render import cell_pixels

THINGS = ("wall", "ball", "goal", "nothing", "agent")  # that `put` puts into a cell


class Replayable(gymnasium.Wrapper):
    """Keep what is needed to play the present episode again."""

    _generator: Mapping | None = None  # its state before the last reset

    def reset(self, *, seed=None, options=None):
        """Begin an episode."""
        generator = self.np_random if seed is None else np_random(seed)[0]
        self._generator, self._actions = generator.bit_generator.state, []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: int):
        """Take one step."""
        self._actions.append(action)
        return self.env.step(action)

    def put(self, thing: str, x: int, y: int):
        """Put one of THINGS into the cell (x, y) and return what is observed then.

        A ball is an obstacle that moves, where the environment has some. Raises ValueError for the
        outer wall, for the agent's cell, and for an agent that is put into another thing.
        """
        from minigrid.core import world_object

        grid_env, cell = current(self), (x, y)
        if not (0 < x < grid_env.width - 1 and 0 < y < grid_env.height - 1):
            raise ValueError("a cell of the outer wall cannot be changed")
        if cell == tuple(grid_env.agent_pos):
            raise ValueError("the agent stands in this cell")
        if thing == "agent":
            if grid_env.grid.get(x, y) is not None:
                raise ValueError("the agent can be put into an empty cell only")
            grid_env.agent_pos = cell
            return self._observe(grid_env.gen_obs())
        new = None if thing == "nothing" else getattr(world_object, thing.capitalize())()
        if hasattr(grid_env, "obstacles"):
            kept = [ball for ball in grid_env.obstacles if tuple(ball.cur_pos) != cell]
            grid_env.obstacles = [*kept, new] if thing == "ball" else kept
        grid_env.grid.set(x, y, new)
        if new is not None:
            new.cur_pos = cell
        if is_babyai(grid_env):  # which keeps the cells of the objects of its mission
            grid_env.update_objs_poss()
        return self._observe(grid_env.gen_obs())

    def _observe(self, observation: dict):
        return self.env.get_wrapper_attr("observe")(observation)

    def shape(self) -> tuple[int, int]:
        """Return the (width, height) of the grid."""
        return current(self).width, current(self).height

    def draw(self) -> np.ndarray:
        """Draw the whole grid and the agent, uint8 [H, W, 3]."""
        grid_env = current(self)
        return grid_env.get_frame(tile_size=cell_pixels(grid_env.width, grid_env.height))

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
