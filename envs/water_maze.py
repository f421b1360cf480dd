"""Water Maze: a swimmer in a round pool looks for a platform under the water, which it cannot see.

A two-dimensional version of the task of Morris 1981, "Spatial localization does not require the
presence of local cues", in the manner of the hidden-goal tasks of Zintgraf et al. 2020 (VariBAD,
arXiv 1910.08348) and of Watermaze in Laskin et al. 2022, section 4. The definition is this file's
own, so no published number belongs to it.

The pool is the unit disk. In each step the swimmer swims one stroke of fixed length in its heading,
one of `headings` directions. A stroke that would leave the pool ends at the point of the pool that
is nearest to where it would have ended, so the swimmer slides along the wall. The reward is 1 for a
stroke that ends over the platform, a disk of radius `platform_radius`, and ends the episode. A
stroke is at most as long as that radius, so none leads over the middle of the platform and past it.
"""

from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete

from envs.checks import check_choice, check_indices, check_integer
from envs.render import pool_frames
from envs.rng import derive_key, uniform
from envs.world import World

STARTS = ("rim", "center")
STEERING = ("set", "turn")
MAX_HEADINGS, MAX_TASKS = 64, 100_000


class WaterMaze(World):
    """N pools; a task is the number of a platform, whose place that number and its radius decide.

    num_tasks: the number of platforms, uniformly distributed over the places where they lie wholly
    in the pool; start: where episodes start, at a random point of the rim or in the center;
    steering: set, where action a sets heading a, or turn, where actions turn left by one heading,
    not at all, and right. An observation is (x, y, cos h, sin h) of the position and the heading h,
    float32 [N, 4]; at the start of an episode the heading is random. Raises ValueError for a bad
    setting or task.
    """

    metadata = World.metadata | {"render_modes": ["rgb_array"], "render_fps": 8}
    state_names: ClassVar[tuple[str, ...]] = ("_position", "_heading")
    task_noun = "platform"
    success_ends = True

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        num_tasks: int = 200,
        platform_radius: float = 0.2,
        stroke: float = 0.15,
        headings: int = 8,
        steering: str = "set",
        start: str = "rim",
        render_mode: str | None = None,
    ):
        self.num_tasks = check_integer("num_tasks", num_tasks, 2, MAX_TASKS)
        self.headings = check_integer("headings", headings, 4, MAX_HEADINGS)
        lengths = (stroke, platform_radius)
        if (
            any(type(x) not in (int, float) for x in lengths)
            or not 0.01 <= stroke <= lengths[1] < 1
        ):
            raise ValueError(
                "stroke and platform_radius must be numbers from 0.01 to below 1, the stroke at "
                f"most the radius, got {stroke!r} and {platform_radius!r}"
            )
        self.platform_radius, self.stroke = platform_radius, stroke
        self.steering = check_choice("steering", steering, STEERING)
        self.start = check_choice("start", start, STARTS)
        angle = 2 * np.pi * np.arange(headings) / headings
        self._directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)  # [headings, 2]
        actions = Discrete(headings if steering == "set" else 3)
        super().__init__(num_envs, tasks, Box(-1, 1, (4,), np.float32), actions, render_mode)
        self._platform = self.platforms(self.tasks)
        self._position = np.zeros((self.num_envs, 2))
        self._heading = np.zeros(self.num_envs, np.int64)

    def all_tasks(self) -> np.ndarray:
        """Return the numbers of all platforms, int64 [num_tasks, 1]."""
        return np.arange(self.num_tasks)[:, None]

    def platforms(self, tasks) -> np.ndarray:
        """Return the centers (x, y) of the platforms, float64 [K, 2]; ValueError for no task."""
        numbers = check_indices(tasks, self.num_tasks).tolist()
        keys = np.array([derive_key("water maze", number) for number in numbers], np.uint64)
        distance = (1 - self.platform_radius) * np.sqrt(uniform(keys, 0))
        angle = 2 * np.pi * uniform(keys, 1)
        return distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def names(self, tasks) -> list[str]:
        """Return the numbers of the platforms and where they are: "3 at (-0.12, 0.50)"."""
        numbers = check_indices(tasks, self.num_tasks).tolist()
        places = self.platforms(tasks).tolist()
        return [f"{n} at ({x:.2f}, {y:.2f})" for n, (x, y) in zip(numbers, places, strict=True)]

    def optimal_return(self, tasks, episode_length: int | None) -> np.ndarray | None:
        """Return 1 for each task, float [K], if each platform can be reached in time.

        None if that is not proved: for steering turn, and if the bound of `most_strokes` exceeds
        the limit in one of the tasks.
        """
        if self.steering == "turn":
            return None
        most = self.most_strokes(tasks)
        in_time = episode_length is None or (most <= episode_length).all()
        return np.ones(len(most)) if in_time else None

    def most_strokes(self, tasks) -> np.ndarray:
        """Return a bound on the strokes from any start to each platform, int64 [K]; steering set.

        The heading nearest to the platform is off by at most pi / headings. At distance d a stroke
        s <= r, the radius, then leads to a distance of at most
        g(d) = sqrt(d^2 + s^2 - 2 d s cos(pi / headings)), which the wall can only shorten, since
        the pool is convex. From d <= r it leads to at most max(s, g(r)) <= r; for d >= r, g(d)
        grows with d. So n strokes from a distance of at most d lead to at most g(...g(d)).
        """
        distance = np.hypot(*self.platforms(tasks).T) + (self.start == "rim")
        cosine, strokes = np.cos(np.pi / self.headings), np.zeros(len(distance), np.int64)
        running = np.ones(len(distance), bool)
        while running.any():
            strokes += running
            distance = np.maximum(distance, self.platform_radius)
            square = distance**2 + self.stroke**2 - 2 * distance * self.stroke * cosine
            distance = np.sqrt(square)
            running &= distance > self.platform_radius - 1e-9  # so that rounding changes nothing
        return strokes

    def success(self, returns: np.ndarray) -> np.ndarray:
        """Return whether each return is above 0, so that the platform was reached."""
        return returns > 0

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray:
        """Draw one episode seen from above, uint8 [T + 1, H, W, 3]; see `envs.render`."""
        seen = np.concatenate([transitions["observation"], transitions["next_observation"][-1:]])
        return pool_frames(seen[:, :2], self.platforms([task])[0], self.platform_radius)

    def _begin(self, envs):
        angle = 2 * np.pi * self._random(envs)
        self._heading[envs] = self._random(envs) * self.headings
        radius = float(self.start == "rim")
        self._position[envs] = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def _advance(self, actions, envs):
        turned = (self._heading[envs] + 1 - actions) % self.headings  # 0 turns left
        heading = actions if self.steering == "set" else turned
        position = self._position[envs] + self.stroke * self._directions[heading]
        position /= np.maximum(np.hypot(*position.T), 1)[:, None]
        self._position[envs], self._heading[envs] = position, heading
        reached = np.hypot(*(position - self._platform[envs]).T) <= self.platform_radius
        return reached.astype(np.float32), reached

    def _observation(self):
        seen = np.concatenate([self._position, self._directions[self._heading]], axis=1)
        return seen.clip(-1, 1).astype(np.float32)

    def _draw(self, env):
        position, platform = self._position[env : env + 1], self._platform[env]
        return pool_frames(position, platform, self.platform_radius)[0]
