"""Paths of the explorer reference, which visit every cell in few episodes.

The path of an episode is found by a beam search for the most cells that no earlier episode visited.
A cell scores slightly more the farther it is from the start, since returning to it later costs the
most steps. Of paths with equal scores, the beam prefers the one nearest to an unseen cell. The goal
is not used: until an agent reaches it, every task looks the same.
"""

import numpy as np

BEAM_WIDTH = 500  # paths kept; in a 9 x 9 room more than 200 change nothing
MAX_CELLS = 1500  # the search takes 4 s for 841 cells, and time grows with the square
DISTANCE_BONUS = 0.02  # added to a cell's score of 1 for each step of distance from the start


def explorer_paths(
    successors: np.ndarray,
    start: int,
    episode_length: int,
    episodes: int,
    goal_on_start: bool = False,
) -> list[np.ndarray] | None:
    """Return one path int [episode_length + 1] per episode until all cells are seen.

    successors: int [S, A], the next observation. With `goal_on_start` the start is a cell to see
    too, by a step that ends there. Returns at most `episodes` paths, or None if more than MAX_CELLS
    cells are within reach.
    """
    cells = _cells_within(successors, start, episode_length)
    if len(cells) > MAX_CELLS:
        return None
    index = np.full(len(successors), -1)
    index[cells] = np.arange(len(cells))
    moves = index[successors[cells]]  # [cells, A] among the cells within reach; -1 leads out
    moves = np.where(moves < 0, np.arange(len(cells))[:, None], moves)
    distance = _distances(moves)
    unseen, paths = np.ones(len(cells), bool), []
    unseen[index[start]] = goal_on_start
    while unseen.any() and len(paths) < episodes:
        path = _explorer_path(moves, distance, unseen, int(index[start]), episode_length)
        unseen[path[1:]] = False
        paths.append(cells[path])
    return paths


def _explorer_path(moves, distance, unseen, start: int, steps: int) -> np.ndarray:
    """Return the path int [steps + 1] from `start` that visits the most `unseen` (bool [cells])."""
    cell_score = 1 + DISTANCE_BONUS * distance[start]
    # Zobrist hashing: a key stands for the cells that a path has visited.
    bits = np.random.default_rng(0).integers(2**63, size=(2, len(cell_score)), dtype=np.uint64)
    at, left = np.array([start]), unseen[None]  # last cell [W] and unseen cells [W, cells] of paths
    score, visited, paths = np.zeros(1), np.zeros(1, np.uint64), np.array([[start]])
    for _ in range(steps):
        parent = np.repeat(np.arange(len(at)), moves.shape[1])
        to = moves[at].ravel()
        fresh = left[parent, to]
        key = np.where(fresh, visited[parent] ^ bits[0, to], visited[parent])
        _, first = np.unique(key ^ bits[1, to], return_index=True)  # one path per (cell, visited)
        parent, to, fresh, key = parent[first], to[first], fresh[first], key[first]
        remaining = left[parent]
        remaining[np.arange(len(to)), to] = False
        total = score[parent] + fresh * cell_score[to]
        nearest = np.where(remaining, distance[to], len(cell_score)).min(1)
        priority = total - DISTANCE_BONUS * np.where(remaining.any(1), nearest, 0)
        keep = np.argsort(-priority, kind="stable")[:BEAM_WIDTH]
        at, left, score, visited = to[keep], remaining[keep], total[keep], key[keep]
        paths = np.concatenate([paths[parent[keep]], at[:, None]], axis=1)
    return paths[score.argmax()]


def _cells_within(successors: np.ndarray, start: int, steps: int) -> np.ndarray:
    """Return the cells at most `steps` steps from `start`, sorted."""
    cells = np.array([start])
    for _ in range(steps):
        cells = np.union1d(cells, successors[cells])
    return cells


def _distances(moves: np.ndarray) -> np.ndarray:
    """Return steps from cell to cell, int16 [cells, cells]; `len(moves)` if there is no path."""
    reach = np.eye(len(moves), dtype=bool)
    distance = np.where(reach, 0, len(moves)).astype(np.int16)
    for steps in range(1, len(moves)):
        wider = reach | np.any([reach[after] for after in moves.T], axis=0)
        if (wider == reach).all():
            break
        distance[wider & ~reach] = steps
        reach = wider
    return distance
