"""How few episodes it takes to see every cell: the paths of the explorer reference.

Each episode is a beam search for a path that visits as many cells not seen before as possible; the
cells are worth slightly more the farther they are from the start, since it costs most to come back
for them, and paths that see the same cells are told apart by the way to the nearest unseen one. The
goal plays no part: until it is met, every task looks the same.
"""

import numpy as np

BEAM = 500  # paths kept; on 9 x 9 more than 200 change nothing
MAX_CELLS = 1500  # within reach; at 841 cells the search takes 4 s, and it grows with the square
FAR = 0.02  # what a step of distance from the start adds to a cell's worth of 1


def sweep_paths(
    successors: np.ndarray, start: int, episode_length: int, episodes: int
) -> list[np.ndarray] | None:
    """One path int [episode_length + 1] an episode, from `start`, until every cell is seen.

    successors int [S, A]: the next observation of each observation and action. At most `episodes`
    paths. None where more than MAX_CELLS cells are within reach.
    """
    cells = _within(successors, start, episode_length)
    if len(cells) > MAX_CELLS:
        return None
    number = np.full(len(successors), -1)
    number[cells] = np.arange(len(cells))
    moves = number[successors[cells]]  # [cells, A] among the cells within reach; -1 leads out
    moves = np.where(moves < 0, np.arange(len(cells))[:, None], moves)
    distance = _distances(moves)
    unseen, paths = np.ones(len(cells), bool), []
    unseen[number[start]] = False
    while unseen.any() and len(paths) < episodes:
        path = _sweep_path(moves, distance, unseen, int(number[start]), episode_length)
        unseen[path] = False
        paths.append(cells[path])
    return paths


def _sweep_path(moves, distance, unseen, start: int, steps: int) -> np.ndarray:
    """The path int [steps + 1] from `start` that sees the most of `unseen` (bool [cells])."""
    worth = 1 + FAR * distance[start]
    marks = np.random.default_rng(0).integers(2**63, size=(2, len(worth)), dtype=np.uint64)
    at, left = np.array([start]), unseen[None]  # [W] and [W, cells]
    score, seen, paths = np.zeros(1), np.zeros(1, np.uint64), np.array([[start]])
    for _ in range(steps):
        parent = np.repeat(np.arange(len(at)), moves.shape[1])
        to = moves[at].ravel()
        fresh = left[parent, to]
        key = np.where(fresh, seen[parent] ^ marks[0, to], seen[parent])
        _, first = np.unique(key ^ marks[1, to], return_index=True)  # a cell and what was seen
        parent, to, fresh, key = parent[first], to[first], fresh[first], key[first]
        remaining = left[parent]
        remaining[np.arange(len(to)), to] = False
        total = score[parent] + fresh * worth[to]
        nearest = np.where(remaining, distance[to], len(worth)).min(1)
        hope = total - FAR * np.where(remaining.any(1), nearest, 0)
        keep = np.argsort(-hope, kind="stable")[:BEAM]
        at, left, score, seen = to[keep], remaining[keep], total[keep], key[keep]
        paths = np.concatenate([paths[parent[keep]], at[:, None]], axis=1)
    return paths[score.argmax()]


def _within(successors: np.ndarray, start: int, steps: int) -> np.ndarray:
    """The cells at most `steps` away from `start`, sorted."""
    cells = np.array([start])
    for _ in range(steps):
        cells = np.union1d(cells, successors[cells])
    return cells


def _distances(moves: np.ndarray) -> np.ndarray:
    """Steps from cell to cell, int16 [cells, cells]; `len(moves)` where there is no way."""
    reach = np.eye(len(moves), dtype=bool)
    distance = np.where(reach, 0, len(moves)).astype(np.int16)
    for steps in range(1, len(moves)):
        wider = reach | np.any([reach[after] for after in moves.T], axis=0)
        if (wider == reach).all():
            break
        distance[wider & ~reach] = steps
        reach = wider
    return distance
