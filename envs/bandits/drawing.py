"""Pictures of bandits: a bar an arm, as high as its mean, and what the last pull paid."""

import numpy as np

from envs.render import AGENT, FLOOR, FOUND, GOAL, WALL

WIDTH, HEIGHT, GAP, MARK = 24, 96, 4, 5  # pixels: a column, a picture, beside a bar, a mark


def draw(
    means: np.ndarray, arms: np.ndarray, rewards: np.ndarray, bounds: tuple[float, float]
) -> np.ndarray:
    """Draw a frame for each of T pulls, uint8 [T, HEIGHT, A * WIDTH, 3].

    means: of each arm, float [A], NaN for an arm that is not there. The bar of the best arm is
    orange, the bar of the pulled arm blue, all others gray.
    arms: the arm that was pulled, int [T], -1 for none; rewards: what it paid, float [T], which is
    a green mark at the height of the reward. `bounds` are the rewards at the lower and the upper
    edge; a reward beyond them is marked at the edge.
    """
    heights = _row(means, bounds), _row(np.zeros_like(means), bounds)
    top, bottom = np.minimum(*heights), np.maximum(*heights)
    colors = np.tile(np.array(WALL, np.uint8), (len(means), 1))
    colors[np.nanargmax(means)] = GOAL
    frames = np.full((len(arms), HEIGHT, len(means) * WIDTH, 3), FLOOR, np.uint8)
    for arm in np.flatnonzero(np.isfinite(means)):
        columns = slice(arm * WIDTH + GAP, (arm + 1) * WIDTH - GAP)
        pulled = np.flatnonzero(arms == arm)
        frames[:, top[arm] : bottom[arm] + 1, columns] = colors[arm]
        frames[pulled, top[arm] : bottom[arm] + 1, columns] = AGENT
        for frame, middle in zip(pulled, _row(rewards[pulled], bounds), strict=True):
            first = np.clip(middle - MARK // 2, 0, HEIGHT - MARK)
            frames[frame, first : first + MARK, columns] = FOUND
    return frames


def _row(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Return the row of pixels of each value, int64, from the top; 0 for NaN."""
    low, high = bounds
    share = np.clip((np.nan_to_num(values, nan=high) - low) / (high - low), 0, 1)
    return np.rint((1 - share) * (HEIGHT - 1)).astype(np.int64)
