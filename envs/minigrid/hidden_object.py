"""Hidden Object: a room with three to five objects, of which one hidden kind pays.

A family of tasks for in-context learning, with the rooms, actions, views and encoding of MiniGrid
(Chevalier-Boisvert et al. 2023), stepped in arrays; tests compare it with the package. It is the
package's Fetch without its mission: the task is the mission that Fetch shows.

A kind is a type and a color; there are 3 x 6 = 18 kinds, and each is a task. An episode begins in
the center of an empty square room, in a random direction, with `min_objects` to `max_objects`
objects of different kinds, each number equally likely. One is of the kind that pays; the others are
drawn from the other 17 kinds. They lie on random cells; no two touch, not even diagonally, so that
every object can be reached. The agent turns, walks, and picks up the object in front of it, which
ends the episode, with reward 1 if it is of the kind that pays and 0 otherwise: an episode is one
guess. Objects cannot be walked over, and walking into one, or into a wall, does nothing. Only the
time limit ends an episode without a guess.

The kind that pays lies in every room, so what a room lacks is evidence too: an agent that remembers
the rooms of a few failed episodes can tell the kind without ever having been paid.
"""

from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from envs.checks import check_choice, check_flag, check_tasks
from envs.minigrid import guessing
from envs.minigrid.encoding import (
    COLORS,
    HIGHEST,
    NUM_PLANES,
    OBJECTS,
    VIEWS,
    from_one_hot,
    one_hot,
)
from envs.minigrid.tiles import draw
from envs.oracle import Reference
from envs.rng import draw_allowed
from envs.world import World

LEFT, RIGHT, FORWARD, PICK_UP = range(4)
DIRECTIONS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # (x, y) of right, down, left, up
UP = 3
TYPES = ("key", "ball", "box")
EMPTY, WALL, FIRST = 0, 1, 2  # codes of cells; object k has the code FIRST + k
NUM_KINDS = len(TYPES) * len(COLORS)
CELLS = np.array(
    [
        [OBJECTS.index("empty"), 0, 0],
        [OBJECTS.index("wall"), COLORS.index("grey"), 0],
        *([OBJECTS.index(kind), color, 0] for kind in TYPES for color in range(len(COLORS))),
    ],
    np.uint8,
)  # the encoding of each code
# The most steps to pick up an object in rooms of each size, from the center in any direction, and
# the most objects: found by trying all layouts (a test repeats it for the smallest size).
LONGEST = {7: (8, 3), 9: (11, 5), 11: (13, 5)}
TURNS = 2  # until the agent has seen the whole room, if its view is wide enough


class HiddenObject(World):
    """N rooms; a task is (type, color) of the kind that pays: indices into TYPES and COLORS.

    size: the side of the room with its walls: 7, 9 or 11 cells; view: the side of the square that
    the agent sees: 3, 5, 7 or 9; observation: index, three numbers a cell, or one_hot, 20 planes;
    direction: whether the agent's direction is a further part of the observation.
    Observations are uint8 [N, view, view, 3 or 20], with `direction` a dict of the parts image and
    direction. Raises ValueError for a bad setting or task.
    """

    metadata = World.metadata | {"render_modes": ["rgb_array"], "render_fps": 8}
    state_names: ClassVar[tuple[str, ...]] = ("_grid", "_position", "_direction", "_carried")
    task_noun = "kind"
    action_names = ("turn left", "turn right", "forward", "pick up")
    task_grid = (len(TYPES), len(COLORS))
    success_ends = True
    observes_view = True

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        size: int = 9,
        min_objects: int = 3,
        max_objects: int = 5,
        view: int = 7,
        observation: str = "index",
        direction: bool = False,
        render_mode: str | None = None,
    ):
        most = LONGEST[check_choice("size", size, list(LONGEST))][1]
        counts = (min_objects, max_objects)
        if any(type(n) is not int for n in counts) or not 1 <= min_objects <= max_objects <= most:
            raise ValueError(
                f"min_objects and max_objects must be integers from 1 to {most} in a room of "
                f"size {size}, got {min_objects!r} and {max_objects!r}"
            )
        self.size, self.counts = size, counts
        self.view = check_choice("view", view, VIEWS)
        self.observation = check_choice("observation", observation, ("index", "one_hot"))
        self.direction = check_flag("direction", direction)
        is_hot = observation == "one_hot"
        shape = view, view, NUM_PLANES if is_hot else 3
        space = Box(0, 1 if is_hot else HIGHEST, shape, np.uint8)
        if direction:
            space = Dict({"image": space, "direction": Discrete(len(DIRECTIONS))})
        super().__init__(num_envs, tasks, space, Discrete(4), render_mode)
        self._target = self._kinds(self.tasks)
        self._table = one_hot(CELLS) if is_hot else CELLS
        room = np.full((size, size), WALL, np.uint8)
        room[1:-1, 1:-1] = EMPTY
        self._grid = np.repeat(room[None], self.num_envs, axis=0)  # codes [N, x, y]
        self._position = np.full((self.num_envs, 2), size // 2)
        self._direction = np.zeros(self.num_envs, np.int64)
        self._carried = np.full(self.num_envs, EMPTY, np.uint8)  # code of what was picked up
        self._near = _near(size)

    def all_tasks(self) -> np.ndarray:
        """Return all kinds, type by type, int64 [18, 2]."""
        return np.stack(np.divmod(np.arange(NUM_KINDS), len(COLORS)), axis=1)

    def names(self, tasks) -> list[str]:
        """Return the names of `tasks`: "green ball"."""
        return [f"{COLORS[color]} {TYPES[kind]}" for kind, color in check_tasks(tasks, 2).tolist()]

    def optimal_return(self, tasks, episode_length: int | None) -> np.ndarray | None:
        """Return 1 for each task, float [K], if every room can be seen and solved in time.

        None if the view is too narrow to see the whole room from its center, or the limit too
        short for the worst layout.
        """
        needed = TURNS + LONGEST[self.size][0]
        in_time = episode_length is None or episode_length >= needed
        is_seen = self.view // 2 >= self.size // 2 - 1
        return np.ones(len(check_tasks(tasks, 2))) if in_time and is_seen else None

    def references(self, tasks, episode_length: int, episodes: int) -> dict[str, Reference]:
        """Return the curves of `envs.minigrid.guessing`; {} if the optimal return is unknown."""
        if self.optimal_return(tasks, episode_length) is None:
            return {}
        curves = guessing.curves(NUM_KINDS, range(self.counts[0], self.counts[1] + 1), episodes)
        spread = {name: np.tile(curve, (len(tasks), 1)) for name, curve in curves.items()}
        return {name: Reference(curve, curve, p_success=curve) for name, curve in spread.items()}

    def success(self, returns: np.ndarray) -> np.ndarray:
        """Return whether each return is above 0, so that the right kind was picked up."""
        return returns > 0

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray:
        """Draw what the agent saw in one episode, uint8 [T + 1, H, W, 3]; it looks up."""
        part = "-image" if self.direction else ""
        last = transitions[f"next_observation{part}"][-1:]
        images = np.concatenate([transitions[f"observation{part}"], last])
        images = from_one_hot(images) if self.observation == "one_hot" else images
        return draw(images, (self.view // 2, self.view - 1), np.full(len(images), UP))

    def _begin(self, envs):
        self._grid[envs, 1:-1, 1:-1] = EMPTY
        self._position[envs], self._carried[envs] = self.size // 2, EMPTY
        self._direction[envs] = self._random(envs) * len(DIRECTIONS)
        low, high = self.counts
        number = low + (self._random(envs) * (high - low + 1)).astype(np.int64)
        target_slot = (self._random(envs) * number).astype(np.int64)
        kinds = np.ones((len(envs), NUM_KINDS), bool)  # that no object of the room is of
        kinds[np.arange(len(envs)), self._target[envs]] = False
        cells = np.repeat(self._near[self.size**2][None], len(envs), axis=0)  # that are allowed
        for slot in range(high):
            kind = draw_allowed(kinds, self._random(envs))
            cell = draw_allowed(cells, self._random(envs))
            kinds[np.arange(len(envs)), kind] = False
            cells &= ~self._near[cell]
            kind = np.where(slot == target_slot, self._target[envs], kind)
            there = slot < number
            flat = self._grid.reshape(self.num_envs, -1)
            flat[envs[there], cell[there]] = FIRST + kind[there]

    def _advance(self, actions, envs):
        index = np.arange(self.num_envs)[envs]
        turn = (actions == RIGHT).astype(np.int64) - (actions == LEFT)
        self._direction[index] = (self._direction[index] + turn) % len(DIRECTIONS)
        front = self._position[index] + DIRECTIONS[self._direction[index]]
        code = self._grid[index, front[:, 0], front[:, 1]]
        walks = (actions == FORWARD) & (code == EMPTY)
        self._position[index[walks]] = front[walks]
        takes = (actions == PICK_UP) & (code >= FIRST)
        self._grid[index[takes], front[takes, 0], front[takes, 1]] = EMPTY
        self._carried[index[takes]] = code[takes]
        pays = takes & (code == FIRST + self._target[index])
        return pays.astype(np.float32), takes

    def _observation(self):
        image = self._table[self._seen()]
        if not self.direction:
            return image
        return {"image": image, "direction": self._direction.copy()}

    def _seen(self) -> np.ndarray:
        """Return the codes of the cells in the views, uint8 [N, view, view]; the agent looks up.

        Cells beyond the walls are walls, and the agent's own cell holds what it carries.
        """
        across, ahead = np.arange(self.view) - self.view // 2, np.arange(self.view)[::-1]
        forward = DIRECTIONS[self._direction][:, None, None]  # [N, 1, 1, 2]
        right = DIRECTIONS[(self._direction + 1) % 4][:, None, None]
        cells = (
            self._position[:, None, None] + right * across[:, None, None] + forward * ahead[:, None]
        )
        cells = cells.clip(0, self.size - 1)
        codes = self._grid[np.arange(self.num_envs)[:, None, None], cells[..., 0], cells[..., 1]]
        codes[:, self.view // 2, -1] = self._carried
        return codes

    def _draw(self, env):
        cells, position = CELLS[self._grid[env]], tuple(self._position[env])
        direction = self._direction[env : env + 1]
        return draw(cells[None], position, direction)[0]

    def _kinds(self, tasks) -> np.ndarray:
        """Return the kinds, int64 [K] below 18, of tasks; ValueError for one that is not there."""
        pairs = check_tasks(tasks, 2)
        for pair in pairs[((pairs < 0) | (pairs >= self.task_grid)).any(axis=1)].tolist():
            raise ValueError(f"{pair} is no kind: types go from 0 to 2, colors from 0 to 5")
        return pairs @ [len(COLORS), 1]


def _near(size: int) -> np.ndarray:
    """Return which cells touch each cell of a room or are the cell, bool [S + 1, S], S = size ** 2.

    The last row is another: the cells where objects may lie, inside the walls but for the center.
    """
    x, y = np.divmod(np.arange(size**2), size)
    touch = np.maximum(abs(x[:, None] - x), abs(y[:, None] - y)) <= 1
    inside = (np.minimum(x, y) > 0) & (np.maximum(x, y) < size - 1)
    free = inside & ((x != size // 2) | (y != size // 2))
    return np.concatenate([touch, free[None]])
