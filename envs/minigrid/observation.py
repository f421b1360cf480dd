"""What an agent of a MiniGrid environment observes, and the settings that choose it."""

from dataclasses import dataclass, fields

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from envs.checks import MAX_SEED, check_choice, check_flag, check_integer
from envs.minigrid.encoding import HIGHEST, NUM_PLANES, OBJECTS, VIEWS, one_hot
from envs.minigrid.missions import Missions, members

VIEW_KINDS = ("index", "one_hot")  # the cells that the agent sees
KINDS = (*VIEW_KINDS, "full", "rgb")
MISSIONS = (False, True, "words")
MAX_PIXELS = 32


@dataclass(frozen=True)
class Settings:
    """The settings of every MiniGrid environment. Raises ValueError for a bad value.

    view: the side of the square that the agent sees, in cells: 3, 5, 7 or 9.
    observation: index, the cells of the view as three numbers each; one_hot, the same as 20 planes;
    full, the numbers of all cells of the grid; rgb, a picture of the view.
    direction: whether the agent's direction is a further part of the observation.
    mission: whether its mission is one, as a number, or as words: the numbers of its words.
    pixels: the side of a cell of an rgb observation.
    seed: the seed of every reset, or None for a new layout at each reset.
    """

    view: int = 7
    observation: str = "index"
    direction: bool = False
    mission: bool | str = False
    pixels: int = 4
    seed: int | None = None

    def __post_init__(self):
        check_choice("view", self.view, VIEWS)
        check_choice("observation", self.observation, KINDS)
        check_flag("direction", self.direction)
        check_choice("mission", self.mission, MISSIONS)
        check_integer("pixels", self.pixels, 1, MAX_PIXELS)
        if self.seed is not None:
            check_integer("seed", self.seed, 0, MAX_SEED)

    @classmethod
    def take(cls, kwargs: dict) -> tuple["Settings", dict]:
        """Return the settings among `kwargs`, and the others, which are for the id."""
        names = {entry.name for entry in fields(cls)}
        own = {name: value for name, value in kwargs.items() if name in names}
        return cls(**own), {name: value for name, value in kwargs.items() if name not in names}


class Observation(gymnasium.Wrapper):
    """Give the observations that `settings` say; every reset has the settings' seed, if any.

    The observation is the image, uint8, or with a direction or a mission a dict of the parts image,
    direction and mission. `missions` are those of the family.
    """

    def __init__(self, env: gymnasium.Env, settings: Settings, missions: Missions):
        super().__init__(env)
        self.settings, self.missions = settings, missions
        self._image_space = self._make_image_space()
        parts = {"image": self._image_space}
        if settings.direction:
            parts["direction"] = Discrete(4)
        if settings.mission:
            parts["mission"] = missions.space
        self.observation_space = Dict(parts) if len(parts) > 1 else self._image_space

    def reset(self, *, seed=None, options=None):
        """Begin an episode, with the settings' seed if there is one."""
        fixed = self.settings.seed
        observation, info = self.env.reset(seed=seed if fixed is None else fixed, options=options)
        return self.observe(observation), info

    def step(self, action):
        """Take one step."""
        observation, *outcome = self.env.step(action)
        return self.observe(observation), *outcome

    def observe(self, observation: dict):
        """Return the observation that the settings choose of the package's `observation`."""
        image = self._image(observation)
        if not isinstance(self.observation_space, Dict):
            return image
        parts = {"image": image}
        if self.settings.direction:
            parts["direction"] = int(observation["direction"])
        if self.settings.mission:
            parts["mission"] = self.missions.encode(observation["mission"])
        return parts

    def _image(self, observation: dict) -> np.ndarray:
        kind, grid_env = self.settings.observation, current(self.env)
        if kind == "index":
            return observation["image"]
        if kind == "one_hot":
            return one_hot(observation["image"])
        if kind == "rgb":
            return grid_env.get_frame(tile_size=self.settings.pixels, agent_pov=True)
        cells = grid_env.grid.encode()
        cells[tuple(grid_env.agent_pos)] = OBJECTS.index("agent"), 0, grid_env.agent_dir
        return cells

    def _make_image_space(self) -> Box:
        view, kind = (self.settings.view,) * 2, self.settings.observation
        if kind == "one_hot":
            return Box(0, 1, (*view, NUM_PLANES), np.uint8)
        if kind == "rgb":
            return Box(0, 255, (*(cells * self.settings.pixels for cells in view), 3), np.uint8)
        shapes = {view} if kind == "index" else grid_shapes(self.env)
        if len(shapes) > 1:
            raise ValueError(
                "the members of a mixture differ in size, so none of them is observed full"
            )
        return Box(0, HIGHEST, (*shapes.pop(), 3), np.uint8)


def current(env: gymnasium.Env):
    """Return the `MiniGridEnv` inside of `env`: of a mixture, the member of this episode."""
    return getattr(env.unwrapped, "member", env).unwrapped


def grid_shapes(env: gymnasium.Env) -> set[tuple[int, int]]:
    """Return the (width, height) of the grid of `env`, or of all members of a mixture."""
    return {(member.width, member.height) for member in members(env)}
