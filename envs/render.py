"""Rooms as pictures and as text: state in, uint8 frames or a str out; no files, no encoding."""

import numpy as np

# Colours for colour-blind eyes: Okabe and Ito 2008, "Color Universal Design".
FLOOR, WALL = (250, 250, 250), (215, 215, 220)
TRAIL = (206, 229, 245)
AGENT, GOAL, FOUND = (0, 114, 178), (230, 159, 0), (0, 158, 115)


def room_frames(
    size: int,
    cells: np.ndarray,
    goal: tuple[int, int],
    pixels: int = 32,
    reached: np.ndarray | None = None,
) -> np.ndarray:
    """An episode seen from above, uint8 [T, size * pixels, size * pixels, 3].

    cells: where the agent is in each frame, int [T]; the cells of earlier frames are tinted.
    reached: in which frames the goal counts as found, bool [T]; default: with the agent on it.
    """
    cells, goal_cell = np.asarray(cells), goal[0] * size + goal[1]
    frames, reached = np.arange(len(cells)), cells == goal_cell if reached is None else reached
    visited = np.zeros((len(cells), size**2), bool)
    visited[frames, cells] = True
    visited = np.logical_or.accumulate(visited)  # [T, S]
    edge = _edge(pixels)[..., None]
    drawn = np.stack([np.where(edge, WALL, floor) for floor in (FLOOR, TRAIL)]).astype(np.uint8)
    tiles = drawn[visited.astype(np.intp)]  # [T, S, p, p, 3]
    goal_colour = np.where(np.asarray(reached)[:, None], FOUND, GOAL)[:, None, None]  # [T, 1, 1, 3]
    tiles[:, goal_cell] = _blend(tiles[:, goal_cell], goal_colour, _disc(pixels, 0.42))
    tiles[frames, cells] = _blend(tiles[frames, cells], np.array(AGENT), _disc(pixels, 0.27))
    rows = tiles.reshape(-1, size, size, pixels, pixels, 3).swapaxes(2, 3)  # [T, r, p, c, p, 3]
    return rows.reshape(-1, size * pixels, size * pixels, 3)


def room_text(size: int, cell: int, goal: tuple[int, int]) -> str:
    """The room as lines of characters: `A` the agent, `G` the goal, `*` the agent on the goal."""
    goal_cell = goal[0] * size + goal[1]
    marks = {goal_cell: "G", cell: "*" if cell == goal_cell else "A"}
    line = [marks.get(index, ".") for index in range(size**2)]
    return "\n".join(" ".join(line[row : row + size]) for row in range(0, size**2, size))


def _edge(pixels: int) -> np.ndarray:
    """The upper and left line of a tile, bool [pixels, pixels]."""
    first = np.arange(pixels) == 0
    return first[:, None] | first


def _disc(pixels: int, radius: float) -> np.ndarray:
    """How much of each pixel a disc covers, [pixels, pixels, 1]; radius in tiles, edge smoothed."""
    offset = np.arange(pixels) - (pixels - 1) / 2
    return np.clip(radius * pixels + 0.5 - np.hypot(offset[:, None], offset), 0, 1)[..., None]


def _blend(tiles: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """`colour` laid over `tiles` (uint8 [T, p, p, 3]) where `cover` says so."""
    return np.rint(tiles + (colour - tiles.astype(float)) * cover).astype(np.uint8)
