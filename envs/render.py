"""Pictures of rooms and pools: state in, uint8 frames out; no files."""

from collections.abc import Sequence

import numpy as np

# Colors for color-blind eyes: Okabe and Ito 2008, "Color Universal Design".
FLOOR, WALL = (250, 250, 250), (215, 215, 220)
TRAIL = (206, 229, 245)
AGENT, GOAL, FOUND = (0, 114, 178), (230, 159, 0), (0, 158, 115)
DOOR, WATER, PATH = (213, 94, 0), (226, 240, 250), (120, 175, 215)
END = (120, 120, 125)  # a hole, a terminal state
FRAME_SIDE = 288  # pixels along the longer side of a frame, at most
LARGEST_CELL = 32  # pixels along a side of a cell, at most
SMALLEST_LINED = 4  # pixels along a side of a cell, below which no line is drawn around it


def cell_pixels(rows: int, columns: int) -> int:
    """Return the pixels along a side of a cell: few in large rooms, whose episodes are long."""
    return min(max(FRAME_SIDE // max(rows, columns), 1), LARGEST_CELL)


def room_frames(
    shape: tuple[int, int],
    cells: np.ndarray,
    goal: tuple[int, int],
    pixels: int | None = None,
    reached: np.ndarray | None = None,
    holes: Sequence[int] = (),
) -> np.ndarray:
    """Draw an episode seen from above, uint8 [T, rows * pixels, columns * pixels, 3].

    pixels: the pixels along a side of a cell; None for `cell_pixels`.
    cells: the agent's cell in each frame, int [T]; the cells of earlier frames are tinted.
    reached: whether the goal counts as found in each frame, bool [T]; by default it does while the
    agent is on it. holes: cells that are drawn dark.
    """
    cells, goal_cell = np.asarray(cells), goal[0] * shape[1] + goal[1]
    if reached is None:
        reached = cells == goal_cell
    pixels = pixels or cell_pixels(*shape)
    tiles = _floor(shape, cells, pixels)
    for hole in holes:
        _paint(tiles, hole, np.array(END), _square(pixels, 0.42))
    goal_color = np.where(np.asarray(reached)[:, None], FOUND, GOAL)
    _paint(tiles, goal_cell, goal_color, _disc(pixels, 0.42))
    _paint(tiles, cells, np.array(AGENT), _disc(pixels, 0.27))
    return _joined(tiles, shape)


def key_door_frames(
    shape: tuple[int, int], cells: np.ndarray, key: int, door: int, held: np.ndarray
) -> np.ndarray:
    """Draw an episode with a key and a door, uint8 [T, rows * pixels, columns * pixels, 3].

    cells: the agent's cell in each frame, int [T]; held: whether it has the key, bool [T]. A key
    that is held is drawn on the agent. The door changes its color while the agent is on it with the
    key.
    """
    cells, held, pixels = np.asarray(cells), np.asarray(held), cell_pixels(*shape)
    tiles = _floor(shape, cells, pixels)
    opened = held & (cells == door)
    _paint(tiles, door, np.where(opened[:, None], FOUND, DOOR), _square(pixels, 0.42))
    _paint(tiles, cells, np.array(AGENT), _disc(pixels, 0.27))
    _paint(tiles, np.where(held, cells, key), np.array(GOAL), _disc(pixels, 0.18))
    return _joined(tiles, shape)


def _floor(shape: tuple[int, int], cells: np.ndarray, pixels: int) -> np.ndarray:
    """Draw the tiles of each frame, uint8 [T, S, p, p, 3]; earlier frames' `cells` are tinted."""
    visited = np.zeros((len(cells), np.prod(shape)), bool)
    visited[np.arange(len(cells)), cells] = True
    visited = np.logical_or.accumulate(visited)  # [T, S]
    edge = _edge(pixels)[..., None]
    drawn = np.stack([np.where(edge, WALL, floor) for floor in (FLOOR, TRAIL)]).astype(np.uint8)
    return drawn[visited.astype(np.intp)]


def _paint(tiles: np.ndarray, cells: np.ndarray | int, color: np.ndarray, mask: np.ndarray) -> None:
    """Paint `mask` on one of the `tiles` of each frame, in place.

    cells: its cell in each frame, int [T], or in all of them; color: [T, 3] or [3].
    """
    frames = np.arange(len(tiles))
    color = np.asarray(color).reshape(-1, 1, 1, 3)
    tiles[frames, cells] = _blend(tiles[frames, cells], color, mask)


def _joined(tiles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the frames [T, rows * p, columns * p, 3] that consist of `tiles` [T, S, p, p, 3]."""
    pixels = tiles.shape[2]
    rows = tiles.reshape(-1, *shape, pixels, pixels, 3).swapaxes(2, 3)  # [T, r, p, c, p, 3]
    return rows.reshape(-1, shape[0] * pixels, shape[1] * pixels, 3)


def _square(pixels: int, half: float) -> np.ndarray:
    """Return the mask of a centered square, float [pixels, pixels, 1]; half its side in tiles."""
    inside = abs(np.arange(pixels) - (pixels - 1) / 2) <= half * pixels
    return (inside[:, None] & inside)[..., None].astype(float)


def _edge(pixels: int) -> np.ndarray:
    """Return the mask of the upper and left line of a tile, bool [pixels, pixels]."""
    first = (np.arange(pixels) == 0) & (pixels >= SMALLEST_LINED)
    return first[:, None] | first


def _disc(pixels: int, radius: float) -> np.ndarray:
    """Return the share of each pixel that a disc covers, [pixels, pixels, 1]; radius in tiles."""
    offset = np.arange(pixels) - (pixels - 1) / 2
    return np.clip(radius * pixels + 0.5 - np.hypot(offset[:, None], offset), 0, 1)[..., None]


def _blend(tiles: np.ndarray, color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blend `color` over `tiles`, uint8 [T, p, p, 3], with the opacity `alpha` of each pixel."""
    return np.rint(tiles + (color - tiles.astype(float)) * alpha).astype(np.uint8)


def pool_frames(
    positions: np.ndarray, platform: np.ndarray, radius: float, pixels: int = 192
) -> np.ndarray:
    """Draw an episode in a round pool, the unit disk, uint8 [T, pixels, pixels, 3]; y points up.

    positions: the swimmer's (x, y) in each frame, [T, 2]; a line joins the earlier positions.
    platform: its center (x, y); it changes its color while the swimmer is over it.
    """
    axis = (np.arange(pixels) + 0.5) / pixels * 2.1 - 1.05
    points = np.stack(np.broadcast_arrays(axis, -axis[:, None]), axis=-1)  # (x, y) of each pixel
    blank = np.full((1, pixels, pixels, 3), WALL, np.uint8)
    water = _blend(blank, np.array(WATER), _inside(points, np.zeros(2), 1))
    disk, frames = _inside(points, platform, radius), []
    path = np.zeros((pixels, pixels, 1))
    for t, position in enumerate(positions):
        path = np.maximum(path, _segment(points, positions[max(t - 1, 0)], position, 0.015))
        over = np.hypot(*(position - platform)) <= radius
        frame = _blend(water, np.array(FOUND if over else GOAL), disk)
        frame = _blend(frame, np.array(PATH), path)
        frames.append(_blend(frame, np.array(AGENT), _inside(points, position, 0.05))[0])
    return np.stack(frames)


def _inside(points: np.ndarray, center: np.ndarray, radius: float) -> np.ndarray:
    """Return the share of each pixel in a disk, [p, p, 1]; points: their places [p, p, 2]."""
    return _segment(points, center, center, radius)


def _segment(points: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    """Return the share of each pixel within `radius` of the line from start to end, [p, p, 1]."""
    along = end - start
    share = ((points - start) @ along / max(along @ along, 1e-12)).clip(0, 1)
    distance = np.hypot(*np.moveaxis(points - start - share[..., None] * along, -1, 0))
    pixel = points[0, 1, 0] - points[0, 0, 0]
    return ((radius - distance) / pixel + 0.5).clip(0, 1)[..., None]
