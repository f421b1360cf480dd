"""Pictures of MiniGrid episodes by the package's own renderer."""

import gymnasium
import numpy as np

from envs.minigrid.encoding import OBJECTS, from_one_hot
from envs.minigrid.observation import Settings, current
from envs.render import FRAME_SIDE, cell_pixels

UP = 3  # the direction of the agent in its own view


def draw_replay(env: gymnasium.Env, images: np.ndarray, actions: np.ndarray) -> np.ndarray | None:
    """Play `actions`, int [T], again from a reset of `env` and draw the whole grid, [T + 1, ...].

    Returns None if an image that `env` observes is not that of `images` [T + 1, ...]. Closes `env`.
    """
    observation, _ = env.reset()
    frames = []
    for image, action in zip(images, [*actions, None], strict=True):
        seen = observation["image"] if isinstance(observation, dict) else observation
        if not np.array_equal(seen, image):
            frames = None
            break
        grid_env = current(env)
        pixels = cell_pixels(grid_env.width, grid_env.height)
        frames.append(grid_env.get_frame(tile_size=pixels))
        if action is not None:
            observation, *_ = env.step(int(action))
    env.close()
    return None if frames is None else np.stack(frames)


def draw_observation(images: np.ndarray, settings: Settings) -> np.ndarray:
    """Draw observed images [T + 1, ...] as they were seen, uint8 [T + 1, H, W, 3].

    A partial view is drawn from the agent, which looks up; cells that it does not see are black.
    """
    if settings.observation == "rgb":
        factor = max(FRAME_SIDE // images.shape[1], 1)
        return images.repeat(factor, axis=1).repeat(factor, axis=2)
    if settings.observation == "one_hot":
        images = from_one_hot(images)
    draw = _draw_grid if settings.observation == "full" else _draw_view
    return np.stack([draw(image) for image in images])


def _draw_view(cells: np.ndarray) -> np.ndarray:
    from minigrid.core.grid import Grid

    grid, visible = Grid.decode(cells)
    width, height = visible.shape
    position = width // 2, height - 1
    return grid.render(cell_pixels(width, height), position, UP, highlight_mask=visible)


def _draw_grid(cells: np.ndarray) -> np.ndarray:
    from minigrid.core.grid import Grid

    grid, _ = Grid.decode(np.where(cells[..., :1] == OBJECTS.index("agent"), 0, cells))
    position = tuple(np.argwhere(cells[..., 0] == OBJECTS.index("agent"))[0])
    return grid.render(cell_pixels(grid.width, grid.height), position, int(cells[position][2]))
