"""Pictures of encoded rooms with keys, balls and boxes, in the colors of MiniGrid."""

from functools import cache

import numpy as np

from envs.minigrid.encoding import COLORS, OBJECTS

PIXELS = 24  # of a cell
RGB = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "purple": (112, 39, 195),
    "yellow": (255, 255, 0),
    "grey": (100, 100, 100),
}  # as in minigrid.core.constants
EDGE, AGENT = (60, 60, 60), (255, 0, 0)


def draw(cells: np.ndarray, position: tuple[int, int], directions: np.ndarray) -> np.ndarray:
    """Draw encoded rooms or views, uint8 [T, x, y, 3], as frames, uint8 [T, H, W, 3].

    The agent is at `position` = (x, y) and looks in `directions`, int [T]: right, down, left, up.
    """
    numbers = cells[..., 0].astype(np.int64) * len(COLORS) + cells[..., 1]
    tiles = _tiles()[numbers]  # [T, x, y, p, p, 3]
    agent = np.stack([np.rot90(_triangle(), -quarter) for quarter in range(4)])[directions]
    tiles[:, position[0], position[1]][agent] = AGENT
    frames = tiles.transpose(0, 2, 3, 1, 4, 5)  # [T, y, p, x, p, 3]
    return frames.reshape(len(cells), cells.shape[2] * PIXELS, cells.shape[1] * PIXELS, 3)


@cache
def _tiles() -> np.ndarray:
    """Return the tile of each object and color, uint8 [66, p, p, 3]."""
    y, x = (np.indices((PIXELS, PIXELS)) + 0.5) / PIXELS
    masks = {
        "wall": np.ones_like(x, bool),
        "ball": np.hypot(x - 0.5, y - 0.5) < 0.31,
        "box": _in(x, 0.12, 0.88) & _in(y, 0.12, 0.88),
        "key": _in(x, 0.5, 0.63) & _in(y, 0.31, 0.88)
        | _in(x, 0.38, 0.5) & (_in(y, 0.59, 0.66) | _in(y, 0.81, 0.88))
        | (np.hypot(x - 0.56, y - 0.28) < 0.19),
    }
    masks["box"] &= ~(_in(x, 0.18, 0.82) & _in(y, 0.18, 0.82)) | _in(y, 0.47, 0.53)
    masks["key"] &= np.hypot(x - 0.56, y - 0.28) > 0.064
    tiles = np.zeros((len(OBJECTS), len(COLORS), PIXELS, PIXELS, 3), np.uint8)
    tiles[:, :, 0], tiles[:, :, :, 0] = EDGE, EDGE
    for name, mask in masks.items():
        for color, rgb in enumerate(RGB.values()):
            tiles[OBJECTS.index(name), color][mask] = rgb
    return tiles.reshape(-1, PIXELS, PIXELS, 3)


def _triangle() -> np.ndarray:
    """Return the pixels of an agent that looks to the right, bool [p, p]."""
    y, x = (np.indices((PIXELS, PIXELS)) + 0.5) / PIXELS
    return (x > 0.12) & (np.abs(y - 0.5) < 0.31 * (0.87 - x) / 0.75)


def _in(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values > low) & (values < high)
