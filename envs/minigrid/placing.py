"""Placing the agent and the balls of a MiniGrid environment, to observe what it sees from there."""

import gymnasium
import numpy as np

from envs.minigrid.observation import current


class Placed:
    """The grid of a reset with `seed`, in which the agent and the moving balls can be put anywhere.

    poses: int64 [P, 3], each (x, y, direction) of the agent in which its cell is free.
    """

    def __init__(self, env: gymnasium.Env, seed: int):
        env.reset(seed=seed)
        self._observe, self._inside = env.get_wrapper_attr("observe"), current(env)
        self._balls = getattr(self._inside, "obstacles", [])
        grid = self._inside.grid
        for ball in self._balls:
            grid.set(*ball.cur_pos, None)
        cells = np.ndindex(grid.width, grid.height)
        self._free = [cell for cell in cells if grid.get(*cell) is None]
        self.poses = np.array([(*cell, to) for cell in self._free for to in range(4)])

    def observe(self, pose: np.ndarray, rng: np.random.Generator, in_front: bool = False):
        """Return the observation of the agent in `pose`, with the balls on drawn free cells.

        With `in_front` one of them is right in front of the agent; None if that cell is not free,
        or if there are no balls.
        """
        inside, (*place, direction) = self._inside, pose.tolist()
        inside.agent_pos, inside.agent_dir = np.array(place), direction
        front = tuple(inside.front_pos.tolist())
        if in_front and (front not in self._free or not self._balls):
            return None
        first = [front] if in_front else []
        others = [cell for cell in self._free if cell not in (tuple(place), *first)]
        drawn = rng.permutation(len(others))[: len(self._balls) - len(first)]
        cells = [*first, *(others[n] for n in drawn)]
        for ball, cell in zip(self._balls, cells, strict=True):
            inside.grid.set(*cell, ball)
        observation = self._observe(inside.gen_obs())
        for cell in cells:
            inside.grid.set(*cell, None)
        return observation
